"""etcdutl as a program."""

from __future__ import annotations

from collections.abc import Sequence

from pyetcd import logs
from pyetcd.cli import program
from pyetcd.cli.etcdutl.tree import root
from pyetcd.cli.usage import usage_text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run etcdutl with these arguments (the program's name first); returns the exit code."""
    try:
        return program.main(root(), arguments, usage_text, twice=True)
    finally:
        logs.flush()  # whoever reads the log lines may be slow
