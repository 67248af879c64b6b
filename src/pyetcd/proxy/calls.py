"""What a call through the proxy is, to everything between its client and the cluster.

No task is made for a call: whoever begins one says with `done` what is to happen at its end, which comes
once, perhaps before `begin` returns. `done(message, 0, "")` is an answer, `done(None, code, text)` a status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from pyetcd.proto.errors import EtcdError

Done = Callable[[bytes | None, int, str], None]
Answer = TypeVar("Answer", bound=Message)


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a call is made. `deadline`: loop time, None for no end."""

    token: str = ""
    deadline: float | None = None


NOBODY = Caller()


class Handle(Protocol):
    """A call under way."""

    def cancel(self) -> None:
        """Its end is not told any more."""


class Ended:
    """The handle of a call that has ended already."""

    def cancel(self) -> None: ...


ENDED = Ended()


class Stream(Protocol):
    """One to the cluster, as its owner sees it."""

    def on_message(self, message: bytes) -> None:
        """Another message may come once the owner has said `read`."""

    def on_end(self, code: int, text: str) -> None:
        """Nothing comes after it."""


class Kv(Protocol):
    """Key-value calls. `path` is the method's, `payload` its request."""

    def begin(self, path: str, payload: bytes, caller: Caller, done: Done) -> Handle: ...


async def ask(
    begin: Callable[[Done], Handle], answer: type[Answer], loop: asyncio.AbstractEventLoop
) -> Answer:
    """A call that a coroutine waits for. EtcdError for a bad end; cancelled with its task."""
    future: asyncio.Future[bytes] = loop.create_future()

    def done(message: bytes | None, code: int, text: str) -> None:
        if future.done():
            return
        if message is None:
            future.set_exception(EtcdError(code, text))
        else:
            future.set_result(message)

    handle = begin(done)
    try:
        return answer.FromString(await future)
    finally:
        handle.cancel()
