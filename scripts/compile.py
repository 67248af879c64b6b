"""Compile the hot rooms with mypyc, so that the very Python that is read here runs without the interpreter.

What is made are shared objects beside their sources; `import` prefers them. They serve the Python they were
made with. What stays interpreted: what is not hot, what tests put others in the place of (the disk, the wire,
whole services), and what mypyc has no translation for. `scripts/compile.py --remove` goes back to the
interpreter, which understands the same sources.

Whoever imports compiled modules whose sources have changed since would test and run yesterday's code: `stale`
names them, and the tests refuse to start.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
BUILD = ROOT / "build" / "compiled"
MADE_OF = BUILD / "made-of.json"  # source -> its SHA-256

HOT = (
    "raft/*.py",
    "mvcc/*.py",
    "lease/*.py",
    "auth/{access,caller,entries,intervals,requests,simple_tokens,store}.py",
    "storage/bolt/*.py",
    "storage/{backend,checksums,schema,write_buffer}.py",
    "storage/wal/{frames,log}.py",
    "peer/{entries,frames,headers,msgappv2,peer,stream_in,stream_out}.py",
    "member/{apply,apply_times,consensus,identity,member,pacing,peers,phases,position,quota,reads,request_times,requests}.py",
    "api/{dispatch,kv,leadership}.py",
    "proto/{deep,plain_put,splice,strict}.py",
)


def sources() -> list[Path]:
    """The modules that are compiled, in a fixed order."""
    package = SOURCE / "pyetcd"
    return [path for pattern in HOT for one in _each(pattern) for path in sorted(package.glob(one))]


def _each(pattern: str) -> list[str]:
    """`a/{b,c}.py` is two patterns."""
    if "{" not in pattern:
        return [pattern]
    before, rest = pattern.split("{")
    names, after = rest.split("}")
    return [f"{before}{name}{after}" for name in names.split(",")]


def digests() -> dict[str, str]:
    own = Path(__file__)
    return {
        str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in [*sources(), own]
    }


def is_compiled() -> bool:
    return MADE_OF.exists()


def stale() -> list[str]:
    """Sources that are not what was compiled. Empty also where nothing is compiled."""
    if not is_compiled():
        return []
    made_of, now = json.loads(MADE_OF.read_text()), digests()
    return sorted(name for name in made_of.keys() | now.keys() if made_of.get(name) != now.get(name))


def remove() -> None:
    MADE_OF.unlink(missing_ok=True)
    for made in SOURCE.rglob("*.so"):
        if ".abi3." not in made.name:
            made.unlink()


def build() -> None:
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    class Build(build_ext):
        """Compiles the files of one extension side by side; setuptools would take one after the other."""

        def build_extension(self, ext: Any) -> None:
            def compiled(source: str) -> str:
                (made,) = self.compiler.compile(
                    [source],
                    output_dir=self.build_temp,
                    include_dirs=ext.include_dirs,
                    # Calls between files need no table of their own: a hundredth of the CPU of a put.
                    extra_postargs=[*ext.extra_compile_args, "-fvisibility=hidden"],
                )
                return made

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                ext.extra_objects = list(pool.map(compiled, ext.sources))
            ext.sources, ext.depends = [], ext.extra_objects  # linked again when one of these is newer
            super().build_extension(ext)

    os.chdir(ROOT)
    paths = [str(path.relative_to(ROOT)) for path in sources()]
    print(f"compiling {len(paths)} modules: takes about two minutes", flush=True)
    made_of = digests()
    extensions = mypycify(
        ["--strict", *paths],
        opt_level="3",
        debug_level="0",
        multi_file=True,
        group_name="pyetcd",
        target_dir=str(BUILD),
    )
    remove()
    command = Build(Distribution({"ext_modules": extensions, "package_dir": {"": "src"}}))
    command.inplace = True
    command.build_temp = str(BUILD / "objects")
    command.ensure_finalized()
    command.run()
    MADE_OF.write_text(json.dumps(made_of, indent=1))


if __name__ == "__main__":
    if "--remove" in sys.argv:
        remove()
    elif not is_compiled() or stale():
        build()
