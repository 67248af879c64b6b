"""`/debug/pprof/`: profiles of this process at the paths where Go programs have theirs.

The paths, `?seconds=` and refusals are Go's; what is behind them is Python's and is text, since Go's format
is of Go's runtime. There with `--enable-pprof`, and at the level debug, as in etcd. One profile of a kind at
a time.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qs

from pyetcd.api import profiles
from pyetcd.api.http_reply import NOT_FOUND, TEXT, Reply

PREFIX: Final = "/debug/pprof/"
PROFILE_SECONDS: Final = 30
HEAP_SECONDS: Final = 5
SECONDS_MAX: Final = 600

_INDEX: Final = {
    "cmdline": "the command line, its words parted by NUL",
    "profile": "where time goes: stacks and how often each was seen, for flame graphs; ?seconds=30",
    "heap": "what is allocated in the time and still held at its end; ?seconds=5",
    "goroutine": "the stacks of all tasks and threads",
}


class Profiles:
    """Answers to the paths below PREFIX."""

    def __init__(self) -> None:
        self._answers: dict[str, Callable[[str], Awaitable[Reply]]] = {
            "": self._index,
            "cmdline": self._command_line,
            "profile": self._profile,
            "heap": self._heap,
            "goroutine": self._stacks,
        }
        self._profiling = False

    async def answer(self, path: str, query: str) -> Reply:
        answer = self._answers.get(path.removeprefix(PREFIX))
        return NOT_FOUND if answer is None else await answer(query)

    async def _index(self, query: str) -> Reply:
        rows = "".join(f'<p><a href="{name}">{name}</a>: {text}</p>\n' for name, text in _INDEX.items())
        body = f"<html>\n<head><title>{PREFIX}</title></head>\n<body>\n{rows}</body>\n</html>\n"
        headers = (("Content-Type", "text/html; charset=utf-8"), ("X-Content-Type-Options", "nosniff"))
        return Reply(200, headers, body.encode())

    async def _command_line(self, query: str) -> Reply:
        return Reply(200, TEXT, "\0".join(sys.orig_argv).encode())

    async def _profile(self, query: str) -> Reply:
        if self._profiling:
            return Reply.error(500, "Could not enable CPU profiling: cpu profiling already in use")
        self._profiling = True
        sampler = profiles.Sampler()
        sampler.begin()
        try:
            await asyncio.sleep(_seconds(query, PROFILE_SECONDS))
        finally:
            text = sampler.end()
            self._profiling = False
        return Reply(200, TEXT, text)

    async def _heap(self, query: str) -> Reply:
        if not profiles.begin_allocations():
            return Reply.error(500, "Could not trace allocations: they are being traced already")
        try:
            await asyncio.sleep(_seconds(query, HEAP_SECONDS))
        finally:
            snapshot = profiles.end_allocations()
        loop = asyncio.get_running_loop()
        return Reply(200, TEXT, await loop.run_in_executor(None, profiles.allocations, snapshot))

    async def _stacks(self, query: str) -> Reply:
        return Reply(200, TEXT, profiles.stacks(asyncio.all_tasks()))


def _seconds(query: str, default: int) -> int:
    """As Go reads it: what is no positive number is the default. No profile goes on for ever."""
    try:
        given = int(parse_qs(query).get("seconds", ["0"])[0])
    except ValueError:
        return default
    return min(given, SECONDS_MAX) if given > 0 else default
