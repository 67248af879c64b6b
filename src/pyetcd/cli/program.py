"""From a command line to a command, and from what it raises to an exit code.

What etcdctl and etcdutl have in common. They differ in what `--help` prints, and in that etcdutl says twice
why a command line is no good, since both cobra and its main function do.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from pyetcd.cli import command
from pyetcd.cli.exits import ERROR, Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def later(package: str, module: str, function: str) -> Callable[[command.Invocation], None]:
    """A command's function, imported when it runs."""

    def run(call: command.Invocation) -> None:
        chosen: Callable[[command.Invocation], None] = getattr(import_module(f"{package}.{module}"), function)
        chosen(call)

    return run


def main(
    tree: command.Command,
    arguments: Sequence[str] | None,
    help_of: Callable[[command.Command], str],
    *,
    twice: bool = False,
) -> int:
    """Run the program with these arguments (its name first; None: the process's); returns the exit code."""
    argv = list(sys.argv if arguments is None else arguments)[1:]
    _open_what_is_closed()
    try:
        code = _run(tree, argv, help_of, twice)
        sys.stdout.flush()
    except BrokenPipeError:
        return _die_by("SIGPIPE")
    except KeyboardInterrupt:
        return _die_by("SIGINT")
    except OSError as error:
        if not _is_of_output(error):
            raise
        return _fail(f"Error: write /dev/stdout: {(error.strerror or str(error)).lower()}")
    return code


def _open_what_is_closed() -> None:
    """Whoever starts the program may have closed its input or outputs, which then are None to Python."""
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _is_of_output(error: OSError) -> bool:
    """Whether standard output could not be written; if so, what is left for it is dropped.

    All else that a command opens and cannot write has a name, or is told of by the command.
    """
    import errno

    if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.stdout.flush()
    return True


def _run(
    tree: command.Command, argv: list[str], help_of: Callable[[command.Command], str], twice: bool
) -> int:
    try:
        chosen, rest = command.resolve(tree, argv)
    except command.UnknownCommand as error:
        again = f"\nError: {error}" if twice else ""
        return _fail(f"Error: {error}\nRun '{tree.path} --help' for usage.{again}")
    try:
        call = command.parse(chosen, rest, argv)
        if chosen.run is None:
            raise command.HelpWanted(chosen)
        chosen.run(call)
    except command.HelpWanted as error:
        sys.stdout.write(help_of(error.command))
    except command.FlagError as error:
        from pyetcd.cli.usage import usage_text

        again = f"\nError: {error}" if twice else ""
        return _fail(f"Error: {error}\n{usage_text(chosen)}{again}")
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
    import signal

    number = signal.Signals[name]
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
