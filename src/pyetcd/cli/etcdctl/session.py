"""What most commands need: the settings, a client and a printer, made in etcdctl's order."""

from __future__ import annotations

import os

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl import output
from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.settings import Settings
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation
    from pyetcd.proto.lite import Message


class Session:
    """One run of one command against the cluster."""

    def __init__(self, call: Invocation) -> None:
        self.settings = Settings(call)
        self.deadline = Deadline(self.settings.command_timeout)
        self.printer = output.printer(self.settings)
        self.client = Client(self.settings)

    def call(
        self,
        path: str,
        request: Message,
        answer_type: str,
        *,
        reads: bool = False,
        deadline: Deadline | None = None,
        failure: str = "{}",
        code: int = ERROR,
    ) -> Message:
        """One call, within the command's time unless told otherwise. Exit, with `failure` around the text."""
        try:
            return self.client.call(path, request, answer_type, deadline or self.deadline, reads=reads)
        except CallError as error:
            raise Exit(code, failure.format(error)) from None


def raw(argument: str) -> bytes:
    """An argument's bytes as they were given."""
    return os.fsencode(argument)


def hex_id(argument: str, message: str) -> int:
    """A lease's ID. Exit with `message`, which has a place for the reason, when it is none."""
    try:
        return gotext.parse_int(argument, 16)
    except gotext.GoValueError as error:
        raise Exit(BAD_ARGS, message.format(error)) from None


def prefix_end(key: bytes) -> bytes:
    """The end of the range of all keys that begin with `key`."""
    for at in range(len(key) - 1, -1, -1):
        if key[at] < 0xFF:
            return key[:at] + bytes((key[at] + 1,))
    return b"\0"
