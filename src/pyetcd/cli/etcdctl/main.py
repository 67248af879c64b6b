"""From the command line to a command, and from what it raises to an exit code."""

from __future__ import annotations

import sys

from pyetcd.cli import command
from pyetcd.cli.etcdctl.exits import ERROR, Exit
from pyetcd.cli.etcdctl.tree import FOOTER, root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run etcdctl with these arguments (the program's name first); returns the exit code."""
    argv = list(sys.argv if arguments is None else arguments)[1:]
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:
        return _die_by("SIGPIPE")
    except KeyboardInterrupt:
        return _die_by("SIGINT")
    return code


def _run(argv: list[str]) -> int:
    tree = root()
    try:
        chosen, rest = command.resolve(tree, argv)
    except command.UnknownCommand as error:
        return _fail(f"Error: {error}\nRun '{tree.path} --help' for usage.")
    try:
        call = command.parse(chosen, rest, argv)
        if chosen.run is None:
            raise command.HelpWanted(chosen)
        chosen.run(call)
    except command.HelpWanted as error:
        from pyetcd.cli.usage import help_text

        sys.stdout.write(help_text(error.command, FOOTER))
    except command.FlagError as error:
        from pyetcd.cli.usage import usage_text

        return _fail(f"Error: {error}\n{usage_text(chosen)}")
    except Exit as error:
        sys.stdout.flush()
        if error.message is not None:
            _fail(f"Error: {error.message}")
        return error.code
    return 0


def _fail(text: str) -> int:
    data = f"{text}\n".encode("utf-8", "surrogateescape")
    sys.stderr.flush()
    sys.stderr.buffer.write(data)
    sys.stderr.flush()
    return ERROR


def _die_by(name: str) -> int:
    """End as a program that does not handle the signal, so that shells see what happened."""
    import os
    import signal

    number = signal.Signals[name]
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
