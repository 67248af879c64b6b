"""`watch`: one watcher from the command line, or any number from stdin with `--interactive`; each event may
start a command."""

from __future__ import annotations

import os
import sys

from pyetcd.cli import command, gotext
from pyetcd.cli.etcdctl import programs
from pyetcd.cli.etcdctl.output import WatchAnswer, emit, flush
from pyetcd.cli.etcdctl.session import Session, prefix_end, raw
from pyetcd.cli.etcdctl.watcher import Watcher
from pyetcd.cli.exits import BAD_ARGS, ERROR, INTERRUPTED, INVALID_INPUT, Exit
from pyetcd.proto import lite
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyetcd.cli.command import Invocation

BAD_NUMBER = "bad number of arguments"
CONFLICT = "bad number of arguments (found conflicting environment key)"
NO_COMMANDS = "bad number of arguments (found separator --, but no commands)"


class Wanted:
    """What a watch command asks for: `keys` is a key and perhaps a range_end, `program` what events start."""

    __slots__ = ("call", "keys", "program")

    def __init__(self, call: Invocation, environment_keys: list[str]) -> None:
        positional = call.args if call.dash is None else call.args[: call.dash]
        self.program = [] if call.dash is None else call.args[call.dash :]
        if call.dash is not None and not self.program:
            raise Exit(BAD_ARGS, NO_COMMANDS)
        if environment_keys and positional:
            raise Exit(BAD_ARGS, CONFLICT)
        self.keys = environment_keys or positional
        if not self.keys and call.dash is None:
            raise Exit(BAD_ARGS, BAD_NUMBER)
        self.call = call

    def request(self) -> Message:
        return create_request(self.call, self.keys)


def environment_keys() -> list[str]:
    """Key and range_end from the variables, as far as they are set."""
    key, range_end = os.environ.get("ETCDCTL_WATCH_KEY", ""), os.environ.get("ETCDCTL_WATCH_RANGE_END", "")
    if range_end and not key:
        value = gotext.quote(range_end)
        raise Exit(BAD_ARGS, f"ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={value}")
    return [name for name in (key, range_end) if name]


def create_request(call: Invocation, keys: list[str]) -> Message:
    """The WatchCreateRequest that flags and keys mean."""
    if not keys:
        raise Exit(BAD_ARGS, BAD_NUMBER)
    key, range_end = raw(keys[0]), b""
    if len(keys) == 2:
        if call.on("prefix"):
            raise Exit(BAD_ARGS, "`range_end` and `--prefix` are mutually exclusive")
        range_end = raw(keys[1])
    if call.on("prefix"):
        key, range_end = (key, prefix_end(key)) if key else (b"\0", b"\0")
    return Message(
        "etcdserverpb.WatchCreateRequest",
        key=key,
        range_end=range_end,
        start_revision=call.number("rev"),
        prev_kv=call.on("prev-kv"),
        progress_notify=call.on("progress-notify"),
    )


def watch(call: Invocation) -> None:
    keys = environment_keys()
    if call.on("interactive"):
        _interactive(call, keys)
        return
    wanted = Wanted(call, keys)
    session = Session(call)
    _follow(session, Watcher(session.client, wanted.request()), wanted.program)
    raise Exit(INTERRUPTED, "watch is canceled by the server")


def _follow(session: Session, watcher: Watcher, program: list[str]) -> None:
    """Print all that the watcher is told until it ends."""
    for answer in watcher.answers():
        if answer.canceled:
            print(f"watch was canceled ({answer.error or '<nil>'})", file=sys.stderr, flush=True)
        if answer.is_progress and answer.header is not None:
            emit(f"progress notify: {answer.header.number('revision')}\n")
        session.printer.watch(answer)
        flush()
        if program:
            _run(program, answer)


def _run(program: list[str], answer: WatchAnswer) -> None:
    """Start the program once for each event, without an input, and wait for it."""
    revision = answer.header.number("revision") if answer.header is not None else 0
    for event in answer.events:
        kv = event.child("kv")
        kind = lite.enum_name("mvccpb.Event.EventType", event.number("type"))
        variables = {
            "ETCD_WATCH_REVISION": str(revision),
            "ETCD_WATCH_EVENT_TYPE": gotext.quote(kind),
            "ETCD_WATCH_KEY": gotext.quote(kv.data("key")),
            "ETCD_WATCH_VALUE": gotext.quote(kv.data("value")),
        }
        try:
            programs.run(program, {**os.environ, **variables})
        except programs.Failed as error:
            shown = "[" + " ".join(map(gotext.quote, program)) + "]"
            _complain(f"command {shown} error ({error})")
            raise Exit(ERROR) from None


def _interactive(call: Invocation, keys: list[str]) -> None:
    """Read `watch …` and `progress` lines until stdin ends; each watch runs in a thread of its own."""
    from threading import Thread

    session = Session(call)
    watchers: list[Watcher] = []
    threads: list[Thread] = []
    try:
        for line in _stdin_lines():
            wanted = _command_in(line, keys, watchers)
            if wanted is None:
                continue
            try:
                watcher = Watcher(session.client, wanted.request())
            except Exit as refused:
                _complain(f"Invalid command {line} ({refused.message})")
                continue
            watchers.append(watcher)
            arguments = (session, watcher, wanted.program)
            threads.append(Thread(target=_follow_in_background, args=arguments, daemon=True))
            threads[-1].start()
    finally:
        # The wire must not be waited on while the interpreter shuts down.
        for watcher in watchers:
            watcher.close()
        for thread in threads:
            thread.join()


def _stdin_lines() -> Iterator[str]:
    while True:
        line = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape")
        if not line.endswith("\n"):
            raise Exit(INVALID_INPUT, "error reading watch request line: EOF")
        yield line[:-1]


def _command_in(line: str, keys: list[str], watchers: list[Watcher]) -> Wanted | None:
    """The watch that a line asks for. None after another command, or one that is no good."""
    from pyetcd.cli.etcdctl import words
    from pyetcd.cli.etcdctl.tree import watch_command

    args = words.split(line)
    if not args:
        _complain(f"Invalid command: {line} (watch and progress supported)")
    elif args[0] == "progress":
        for watcher in watchers:
            watcher.request_progress()
    elif args[0] != "watch":
        _complain(f"Invalid command {line} (only support watch)")
    elif len(args) < 2 and not keys:
        _complain(f"Invalid command {line} (command type or key is not provided)")
    else:
        try:
            inner = command.parse(watch_command(), args[1:], args[1:])
        except (command.FlagError, command.HelpWanted) as error:
            raise Exit(BAD_ARGS, str(error) or "pflag: help requested") from None
        return Wanted(inner, keys)
    return None


def _follow_in_background(session: Session, watcher: Watcher, program: list[str]) -> None:
    try:
        _follow(session, watcher, program)
    except Exit as error:
        if error.message is not None:
            _complain(f"Error: {error.message}")
        flush()
        os._exit(error.code)


def _complain(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
