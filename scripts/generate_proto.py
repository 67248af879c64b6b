"""Generate what the `.proto` files say: the protobuf codec and its type stubs. Run by `make proto`.

The stubs protoc writes do not pass mypy --strict (bare Mapping, untyped `**kwargs`, misplaced ClassVar),
so they are finished here. Everything generated is committed; a test compares it with a fresh run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

SOURCE = Path(__file__).parents[1] / "src"
PROTO = Path("pyetcd/proto")


def generate(out: Path) -> list[Path]:
    """Write everything generated below `out`, which stands for `src`; returns the files, relative to it."""
    names = sorted(str(path.relative_to(SOURCE)) for path in (SOURCE / PROTO).glob("*.proto"))
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    status = protoc.main(
        ["protoc", f"-I{SOURCE}", f"-I{builtin}", f"--python_out={out}", f"--pyi_out={out}", *names]
    )
    if status:
        raise SystemExit(f"protoc failed with {status}")
    stubs = [Path(name.removesuffix(".proto") + "_pb2.pyi") for name in names]
    for stub in stubs:
        finish(out / stub)
    return [*stubs, *(stub.with_suffix(".py") for stub in stubs)]


def finish(stub: Path) -> None:
    """Make a stub from protoc pass mypy --strict."""
    text = stub.read_text()
    text = text.replace("_Mapping]", "_Mapping[str, object]]").replace("**kwargs)", "**kwargs: object)")
    lines = []
    for line in text.split("\n"):
        if not line.startswith(" ") and ": _ClassVar[" in line:
            line = line.replace("_ClassVar[", "").removesuffix("]")
        lines.append(line)
    stub.write_text("\n".join(lines))


if __name__ == "__main__":
    for path in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else SOURCE):
        print(path)
