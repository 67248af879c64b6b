"""The arrows between rooms, kept: an import that ARCHITECTURE.md does not allow fails here."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "pyetcd"

STATE = {"proto", "storage", "mvcc", "lease", "auth", "cluster", "raft"}
MAY_IMPORT: dict[str, set[str]] = {
    "proto": set(),
    "version": set(),
    "logs": set(),
    "metrics": {"logs"},
    "raft": {"proto", "logs"},
    "storage": {"proto", "_native", "logs"},
    "mvcc": {"storage", "proto", "_native", "logs"},
    "lease": {"storage", "proto", "logs"},
    "auth": {"storage", "proto", "logs"},
    "cluster": {"storage", "proto", "logs"},
    "listen": {"cluster", "_native"},
    "peer": {"raft", "cluster", "listen", "proto", "_native", "logs"},
    "member": {*STATE, "peer", "_native", "logs", "metrics"},
    "api": {*STATE, "listen", "peer", "member", "_native", "logs", "metrics"},
    "proxy": {"cluster", "listen", "proto", "api", "_native", "logs", "metrics"},
    "cli": {*STATE, "listen", "peer", "member", "api", "proxy", "loop", "_native", "logs", "metrics"},
    "embed": {"storage", "member", "cli", "launching", "loop", "logs"},
    "testing": {"launching"},
    "launching": set(),
    "loop": set(),
}
LEAVES = {"version", "logs"}  # known to everyone but to each other


def room_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return sorted(
        path for path in SOURCE.rglob("*.py") if "_pb2" not in path.name and path != SOURCE / "__init__.py"
    )


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrow"
            names.add(node.module or "")
            if node.module == "pyetcd":
                names.update(f"pyetcd.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_the_rooms_it_may_know(path: Path) -> None:
    room = room_of(path)
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("pyetcd.")}
    allowed = MAY_IMPORT[room] | {room} | (set() if room in LEAVES or room == "proto" else LEAVES)
    assert rooms <= allowed, f"{room} may not know {rooms - allowed}"


def test_every_room_is_in_the_table() -> None:
    rooms = {entry.name for entry in SOURCE.iterdir() if entry.is_dir() and entry.name != "__pycache__"}
    assert rooms <= set(MAY_IMPORT)
