"""Make the wheels in dist/, and prove them: installed in clean environments without Rust and C, they serve.

Two wheels, because what makes pyetcd quick comes from two compilers with different promises:

* `cp311-abi3`: Python sources and the native crate, which uses Python's stable interface. Runs on every
  CPython from 3.11 on, interpreted.
* `cp311-cp311`: the same, and the hot rooms compiled by mypyc, whose modules serve the one Python they were
  made with. pip prefers it there. Other Pythons get theirs by running this script with them.

The tag's glibc is the newest that any shared object asks for, found in the objects themselves.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

from compile import ROOT, SOURCE, is_compiled, sources, stale

DIST = ROOT / "dist"
NATIVE = ".abi3.so"
OLDEST_GLIBC = 17  # manylinux2014
_GLIBC = re.compile(rb"GLIBC_2\.(\d+)\0")
_WHEEL = re.compile(r"(?P<name>[^-]+-[^-]+)-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>.+)\.whl")


def native_wheel(directory: Path) -> Path:
    """The interpreted one, as maturin makes it."""
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    environment.pop("CONDA_PREFIX", None)
    maturin = Path(sys.prefix) / "bin" / "maturin"
    command = [str(maturin), "build", "--release", "--locked", "--quiet", "--out", str(directory)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    (made,) = directory.glob("*.whl")
    with zipfile.ZipFile(made) as wheel:
        objects = [name for name in wheel.namelist() if name.endswith(".so")]
    assert len(objects) == 1, f"one shared object belongs in there, not {objects}"
    assert objects[0].endswith(NATIVE), objects
    return made


def compiled_wheel(native: Path, directory: Path) -> Path:
    """The same with the compiled modules, under the tag of this Python."""
    objects = sorted(path for path in SOURCE.rglob("*.so") if not path.name.endswith(NATIVE))
    made_for = sysconfig.get_config_var("EXT_SUFFIX")
    assert all(path.name.endswith(made_for) for path in objects), "compiled for another Python"
    assert len(objects) > len(sources()), "every hot module, and what they share"
    parts = _WHEEL.fullmatch(native.name)
    assert parts is not None, native.name
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = f"manylinux_2_{max(glibc(native), *map(glibc, objects))}_{os.uname().machine}"
    target = directory / f"{parts['name']}-{python}-{python}-{platform}.whl"
    records: list[str] = []
    with zipfile.ZipFile(native) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as wheel:

        def add(name: str, data: bytes) -> None:
            entry = zipfile.ZipInfo(name, (2000, 1, 1, 0, 0, 0))
            entry.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            records.append(f"{name},sha256={digest},{len(data)}")

        for name in source.namelist():
            data = source.read(name)
            if name.endswith(".dist-info/RECORD"):
                record = name
            elif name.endswith(".dist-info/WHEEL"):
                lines = [line for line in data.decode().splitlines() if line and not line.startswith("Tag:")]
                add(name, "\n".join([*lines, f"Tag: {python}-{python}-{platform}", ""]).encode())
            else:
                add(name, data)
        for path in objects:
            add(str(path.relative_to(SOURCE)), path.read_bytes())
        wheel.writestr(record, "\n".join([*records, f"{record},,", ""]))
    return target


def glibc(path: Path) -> int:
    """The newest 2.x that a shared object, or those in a wheel, ask for."""
    data = [path.read_bytes()]
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            data = [wheel.read(name) for name in wheel.namelist() if name.endswith(".so")]
    return max((int(minor) for each in data for minor in _GLIBC.findall(each)), default=OLDEST_GLIBC)


def prove(wheel: Path) -> None:
    """Install it where there is no compiler, and put and get on a server of it."""
    with tempfile.TemporaryDirectory(prefix="pyetcd-wheel-") as made:
        place = Path(made)
        python = place / "venv" / "bin" / "python"
        environment = {"PATH": f"{python.parent}:/nowhere", "HOME": made, "LANG": "C.UTF-8"}
        environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        subprocess.run([str(python), *install, str(wheel)], check=True, env=environment, cwd=made)
        smoke = Path(__file__).with_name("smoke.py")
        expected = "interpreted" if "-abi3-" in wheel.name else "compiled"
        subprocess.run([str(python), "-I", str(smoke), expected], check=True, env=environment, cwd=made)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the wheels in dist/ and prove them.")
    parser.add_argument("--skip-proof", action="store_true", help="only make them")
    arguments = parser.parse_args()
    if not is_compiled() or stale():
        sys.exit("make setup comes first: the hot rooms have to be compiled")
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    wheels = [native_wheel(DIST)]
    wheels.append(compiled_wheel(wheels[0], DIST))
    for wheel in wheels:
        print(f"{wheel.relative_to(ROOT)} ({wheel.stat().st_size >> 10} KiB)", flush=True)
        if not arguments.skip_proof:
            prove(wheel)


if __name__ == "__main__":
    main()
