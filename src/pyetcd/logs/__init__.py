"""Logging in zap's shape: one line an event, with etcd's keys and messages.

`log = logs.get("mvcc")`, then `log.info("restored last compact revision", {"restored-compact-revision": 7})`.
Levels are etcd's: debug, info, warn, error, fatal. Where lines go, in which format and from which level on,
is set once by the executable with `setup`; until then they go to stderr as JSON from info on.

Rules that hold here:

* A level that is off costs one comparison. A message repeated more than 100 times within a second is thinned
  to every hundredth, as zap's sampling does in etcd, so that a storm of one complaint costs neither disk nor
  loop.
* Outputs belong to one thread, that of the loop they are attached to; a line from another one is handed to
  the loop.
* Nothing here raises into the caller: a closed pipe, a full disk or an odd value in a field costs the line,
  no more.
* Values are rendered as Go's: `timedelta` as `1m30s`, bytes as text, exceptions by their message.
* Callers never hand over secrets; nothing here could tell.
"""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from _thread import get_ident
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import FrameType
from typing import Final

from pyetcd.logs.gotext import duration, duration_ns, quote
from pyetcd.logs.sinks import Sink, Writer, WriterLoop

__all__ = [
    "DEBUG",
    "ERROR",
    "FATAL",
    "FORMATS",
    "INFO",
    "LEVELS",
    "WARN",
    "Fields",
    "Log",
    "ago",
    "attach",
    "duration",
    "duration_ns",
    "flush",
    "get",
    "level_named",
    "quote",
    "set_level",
    "setup",
    "stopwatch",
]

DEBUG: Final = 0
INFO: Final = 1
WARN: Final = 2
ERROR: Final = 3
FATAL: Final = 4

_NAMES: Final = ("debug", "info", "warn", "error", "fatal")
LEVELS: Final[Mapping[str, int]] = {name: number for number, name in enumerate(_NAMES)}
_ALIASES: Final = {"panic": "fatal", "dpanic": "fatal", "warning": "warn"}
FORMATS: Final = ("json", "console")

_SAMPLE_FIRST: Final = 100
_SAMPLE_EVERY: Final = 100
_SAMPLE_MESSAGES_MAX: Final = 4096

Fields = Mapping[str, object]


class Log:
    """The log of one room. Each call writes one line and returns, `fatal` too: leaving is up to the caller.

    `exc` is for a failure nobody foresaw: its message goes under `error` (unless the fields have one) and its
    traceback under `stacktrace`. A failure that is part of life goes into the fields as `{"error": error}`.
    """

    __slots__ = ("_out", "room")

    def __init__(self, room: str, out: _Output) -> None:
        self.room = room
        self._out = out

    def debug(self, msg: str, fields: Fields | None = None, exc: BaseException | None = None) -> None:
        if self._out.level <= DEBUG:
            self._out.write(DEBUG, msg, fields, exc, sys._getframe(1))

    def info(self, msg: str, fields: Fields | None = None, exc: BaseException | None = None) -> None:
        if self._out.level <= INFO:
            self._out.write(INFO, msg, fields, exc, sys._getframe(1))

    def warn(self, msg: str, fields: Fields | None = None, exc: BaseException | None = None) -> None:
        if self._out.level <= WARN:
            self._out.write(WARN, msg, fields, exc, sys._getframe(1))

    def error(self, msg: str, fields: Fields | None = None, exc: BaseException | None = None) -> None:
        if self._out.level <= ERROR:
            self._out.write(ERROR, msg, fields, exc, sys._getframe(1))

    def fatal(self, msg: str, fields: Fields | None = None, exc: BaseException | None = None) -> None:
        self._out.write(FATAL, msg, fields, exc, sys._getframe(1))

    def enabled(self, level: int) -> bool:
        """Whether lines of this level are written: ask before building costly fields."""
        return self._out.level <= level


class _Output:
    """Where all logs of the process write: level, format, sinks, and the memory of recent messages."""

    def __init__(self) -> None:
        self.level: int = INFO
        self.console = False
        self.sinks: list[Sink] = [Writer(2)]
        self._loop: WriterLoop | None = None
        self._thread = 0  # the loop's
        self._callers: dict[str, str] = {}
        self._clock = _Clock()
        self._seen: dict[tuple[int, str], int] = {}
        self._seen_second = 0

    def write(
        self, level: int, msg: str, fields: Fields | None, exc: BaseException | None, frame: FrameType
    ) -> None:
        now_ns = time.time_ns()
        if not self._sampled(level, msg, now_ns // 1_000_000_000):
            return
        caller = f"{self._caller(frame.f_code.co_filename)}:{frame.f_lineno}"
        if exc is not None:
            fields = _with_error(fields, exc)
        stamp = self._clock.text(now_ns)
        if self.console:
            line = _console_line(_NAMES[level], stamp, caller, msg, fields)
        else:
            line = _json_line(_NAMES[level], stamp, caller, msg, fields)
        data = line.encode("utf-8", "replace")
        if self._loop is not None and get_ident() != self._thread:
            try:
                self._loop.call_soon_threadsafe(lambda: self._emit(level, data))
                return
            except RuntimeError:  # it is closed, and so writes no more
                pass
        self._emit(level, data)

    def _emit(self, level: int, data: bytes) -> None:
        for sink in self.sinks:
            sink.write(level, data)

    def attach(self, loop: WriterLoop | None) -> None:
        self._loop, self._thread = loop, get_ident()
        for sink in self.sinks:
            sink.attach(loop)

    def _sampled(self, level: int, msg: str, second: int) -> bool:
        if second != self._seen_second or len(self._seen) >= _SAMPLE_MESSAGES_MAX:
            self._seen_second = second
            self._seen.clear()
        key = (level, msg)
        count = self._seen[key] = self._seen.get(key, 0) + 1
        return count <= _SAMPLE_FIRST or (count - _SAMPLE_FIRST) % _SAMPLE_EVERY == 0

    def _caller(self, filename: str) -> str:
        short = self._callers.get(filename)
        if short is None:
            short = self._callers[filename] = "/".join(filename.rsplit("/", 2)[-2:])
        return short


class _Clock:
    """Timestamps as etcd writes them, local zone with microseconds; the part above a second is made once a
    second.
    """

    def __init__(self) -> None:
        self._second = -1
        self._head = ""
        self._zone = ""

    def text(self, now_ns: int) -> str:
        second, rest = divmod(now_ns, 1_000_000_000)
        if second != self._second:
            local = time.localtime(second)
            self._second = second
            self._head = time.strftime("%Y-%m-%dT%H:%M:%S", local)
            self._zone = time.strftime("%z", local) if local.tm_gmtoff else "Z"
        return f"{self._head}.{rest // 1000:06d}{self._zone}"


def _with_error(fields: Fields | None, exc: BaseException) -> Fields:
    merged: dict[str, object] = dict(fields) if fields else {}
    merged.setdefault("error", exc)
    if exc.__traceback__ is not None:
        merged["stacktrace"] = "".join(traceback.format_exception(exc)).rstrip("\n")
    return merged


def _render(value: object) -> object:
    """A field's value as something JSON has a form for. Called by the encoder for what it does not know."""
    if isinstance(value, timedelta):
        return duration(value / timedelta(seconds=1))
    if isinstance(value, BaseException):
        return str(value) or type(value).__name__
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return list(value)
    return str(value)


_compact = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=_render, check_circular=False, allow_nan=False
).encode
_spaced = json.JSONEncoder(ensure_ascii=False, default=_render, check_circular=False, allow_nan=False).encode


def _encode(encode: Callable[[object], str], fields: Fields) -> str:
    try:
        return encode(fields)
    except (TypeError, ValueError, RecursionError):
        # Keys that are no strings, cycles, NaN: rare, and a line with a poorer value beats no line.
        return encode(_plain(fields, 8))


def _plain(value: object, depth: int) -> object:
    """`value` in a form that always encodes: NaN and infinities as zap's strings, nothing deeper than
    `depth`.
    """
    if depth == 0:
        return f"<{type(value).__name__}>"
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
    if value is None or isinstance(value, str | int):
        return value
    rendered = value if isinstance(value, dict | list) else _render(value)
    if isinstance(rendered, dict):
        return {str(key): _plain(item, depth - 1) for key, item in rendered.items()}
    if isinstance(rendered, list):
        return [_plain(item, depth - 1) for item in rendered]
    return rendered


def _json_line(level: str, stamp: str, caller: str, msg: str, fields: Fields | None) -> str:
    head = f'{{"level":"{level}","ts":"{stamp}","caller":{_compact(caller)},"msg":{_compact(msg)}'
    if not fields:
        return head + "}\n"
    return f"{head},{_encode(_compact, fields)[1:]}\n"


def _console_line(level: str, stamp: str, caller: str, msg: str, fields: Fields | None) -> str:
    """zap's console encoding: tabs between, spaced JSON for the fields, a stack trace on lines of its own."""
    if not fields:
        return f"{stamp}\t{level}\t{caller}\t{msg}\n"
    stack = fields.get("stacktrace")
    if stack is None:
        return f"{stamp}\t{level}\t{caller}\t{msg}\t{_encode(_spaced, fields)}\n"
    rest = {key: value for key, value in fields.items() if key != "stacktrace"}
    return f"{stamp}\t{level}\t{caller}\t{msg}\t{_encode(_spaced, rest)}\n{stack}\n"


_output = _Output()
_logs: dict[str, Log] = {}


def get(room: str) -> Log:
    """The log of a room; the same object for the same name."""
    log = _logs.get(room)
    if log is None:
        log = _logs[room] = Log(room, _output)
    return log


def setup(level: str, log_format: str, sinks: Sequence[Sink]) -> None:
    """Set the process's level, format (`json` or `console`) and outputs. KeyError for an unknown level."""
    assert log_format in FORMATS, log_format
    old = _output.sinks
    _output.level = LEVELS[level]
    _output.console = log_format == "console"
    _output.sinks = list(sinks)
    for sink in old:
        if sink not in _output.sinks:
            sink.close()


def level_named(text: str) -> str | None:
    """The level that an operator means, in any case and by zap's names too; None: there is none such."""
    level = text.lower()
    level = _ALIASES.get(level, level)
    return level if level in LEVELS else None


def set_level(level: str) -> None:
    """Change the level of a running process. KeyError for an unknown one."""
    _output.level = LEVELS[level]


def attach(loop: WriterLoop | None) -> None:
    """Call from the thread of `loop`: it finishes what a slow reader left behind when it sees room for it,
    and takes the lines of other threads. None to let go.
    """
    _output.attach(loop)


def ago(seconds: float) -> str:
    """The moment so many seconds before now, as lines are dated."""
    return _Clock().text(time.time_ns() - round(seconds * 1e9))


def flush(timeout_seconds: float = 1.0) -> None:
    """Before leaving: give outputs whose reader is slow this long to take what is left."""
    for sink in _output.sinks:
        sink.flush(timeout_seconds)


def stopwatch() -> Callable[[], str]:
    """What tells how long ago this was, as a field of a line."""
    began = time.monotonic()
    return lambda: duration(time.monotonic() - began)
