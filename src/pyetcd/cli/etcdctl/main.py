"""etcdctl as a program."""

from __future__ import annotations

from pyetcd.cli import program
from pyetcd.cli.etcdctl.tree import help_of, root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run etcdctl with these arguments (the program's name first); returns the exit code."""
    return program.main(root(), arguments, help_of)
