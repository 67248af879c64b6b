"""The peers' own wire: one native `Server` that listens to the other members and dials them.

It is apart from the clients' wire, so that what members tell each other never queues behind requests. Rules
that hold here:

* An event of a call goes to the call's owner; a request nobody owns goes to `on_request`, and is answered
  503 before that is set. A call that is over has no owner any more: an owner hears its last event once.
* What a handler raises is logged and costs nobody else anything.
* Every failure to reach another member has a text in Go's words. A dial never raises: it fails with an event.
* Around the handling of a turn's events `before_turn` and `after_turn` are called, also where there are none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pyetcd import logs
from pyetcd._native import (
    CANCEL,
    FAILED,
    HALF_CLOSE,
    HTTP,
    REJECTED,
    RESPONSE,
    ClientTls,
    HttpRequest,
    HttpResponse,
    Limits,
    Meta,
    Server,
    Wake,
)
from pyetcd.cluster.urls import Url
from pyetcd.logs.rejected import log_rejected

EVENTS_PER_TURN: Final = 512
STREAM_BACKLOG_BYTES: Final = 1 << 20  # unsent bytes of a call beyond which its sender should wait
HEADER_BYTES: Final = (1 << 20) + 4096  # as Go's server takes
REQUEST_BYTES: Final = 64 << 10  # what others ask beside raft is small; anybody may ask it
RAFT_PATH: Final = "/raft"
SNAPSHOT_PATH: Final = "/raft/snapshot"
STREAMED_PATHS: Final = (RAFT_PATH, SNAPSHOT_PATH)  # whose requests' bodies come in pieces, after the head
SHUTDOWN_GRACE_SECONDS: Final = 0.0

_log = logs.get("peer")


class Unreachable(Exception):
    """No answer from another member; the text is Go's."""


class CallOwner(Protocol):
    """Who hears the events of a call. After FAILED, CANCEL, a RESPONSE that is whole or the HALF_CLOSE of a
    stream we dialled, no more will come."""

    def on_event(self, kind: int, payload: object) -> None: ...


OnRequest = Callable[[int, HttpRequest, Meta], None]


class PeerWire:
    """Make it, `start` it, `close` it. Every method is called from the loop.

    `tls`: how https URLs are dialled; None: with the system's authorities and no certificate of our own.
    `connections`: that others may have to it at once, 0 for any number. `local_address`: where it dials from;
    None: the system chooses.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        tls: ClientTls | None,
        dial_timeout_seconds: float,
        connections: int = 0,
        local_address: str | None = None,
    ) -> None:
        self._loop = loop
        self._wake = Wake()
        limits = Limits(
            http_body_bytes=REQUEST_BYTES,
            stream_backlog_bytes=STREAM_BACKLOG_BYTES,
            header_bytes=HEADER_BYTES,
            connections=connections,
        )
        self.server = Server(
            self._wake,
            [],
            limits,
            streamed_paths=STREAMED_PATHS,
            local_address=local_address,
        )
        self._tls = tls
        self._dial_timeout_seconds = dial_timeout_seconds
        self._owners: dict[int, CallOwner] = {}
        self._dialled: dict[int, bool] = {}  # calls we made: whether their response is a stream
        self._failures = 0
        self._closed = False
        self.on_request: OnRequest = self._not_ready
        self.before_turn: Callable[[], None] = _nothing
        self.after_turn: Callable[[], None] = _nothing

    def start(self) -> None:
        """Handle events from now on."""
        self._loop.add_reader(self._wake.fileno(), self._turn)

    def use_tls(self, tls: ClientTls) -> None:
        """How https URLs are dialled from now on; connections that stand go on."""
        self._tls = tls

    async def request(
        self,
        url: Url,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        timeout_seconds: float,
    ) -> HttpResponse:
        """One request with its whole answer, whatever its status. Raises Unreachable."""
        waiter = _Waiter(self._loop)
        call = self.dial(url, method, path, headers, waiter, body=body, timeout_seconds=timeout_seconds)
        try:
            return await waiter.answer
        except asyncio.CancelledError:
            self.hang_up(call)
            raise

    def dial(
        self,
        url: Url,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]],
        owner: CallOwner,
        *,
        stream: bool = False,
        upload: bool = False,
        idle_timeout_seconds: float = 0,
        body: bytes = b"",
        timeout_seconds: float = 0,
    ) -> int:
        """Make a request; its events go to `owner`. `stream`: the answer comes in pieces. `upload`: the body
        is sent with `server.send_many` and ended with `server.finish_many`. Timeouts of 0: none."""
        try:
            if url.is_secure and self._tls is None:
                self._tls = ClientTls()  # as Go does without a flag: the system's authorities
            call = self.server.dial(
                target_of(url),
                method,
                path,
                headers,
                body,
                tls=self._tls if url.is_secure else None,
                stream=stream,
                upload=upload,
                connect_timeout=self._dial_timeout_seconds,
                idle_timeout=idle_timeout_seconds,
                timeout=timeout_seconds,
            )
        except (ValueError, RuntimeError) as error:  # what no request can be made of; a wire that is closed
            return self._fail_soon(owner, str(error))
        self._owners[call] = owner
        self._dialled[call] = stream
        return call

    def hang_up(self, call: int) -> None:
        """Forget a call of either direction; unsent bytes are dropped, its owner hears nothing more."""
        self._dialled.pop(call, None)
        self._owners.pop(call, None)
        if call >= 0:
            self.server.hang_up(call)

    def own(self, call: int, owner: CallOwner) -> None:
        """From now on the events of this served call go to `owner`."""
        self._owners[call] = owner

    def disown(self, call: int) -> None:
        """Nobody listens to this call any more."""
        self._owners.pop(call, None)
        self._dialled.pop(call, None)

    async def close(self) -> None:
        """Answer nothing more and drop all connections."""
        if self._closed:
            return
        self._closed = True
        self.server.stop_accepting()
        self._loop.remove_reader(self._wake.fileno())
        self._owners.clear()
        self._dialled.clear()
        await self._loop.run_in_executor(None, self.server.shutdown, SHUTDOWN_GRACE_SECONDS)

    def _turn(self) -> None:
        if self._closed:
            return
        self._wake.clear()
        self.before_turn()
        events = self.server.drain(EVENTS_PER_TURN)
        for kind, call, _, payload, meta in events:
            try:
                if kind == HTTP:
                    self.on_request(call, payload, meta)  # type: ignore[arg-type]
                elif kind == REJECTED:
                    assert isinstance(payload, bytes)
                    log_rejected(_log, "peer", payload)
                else:
                    self._hand_over(kind, call, payload)
            except Exception as error:
                _log.error("failed to handle peer traffic", {"error": repr(error)}, exc=error)
                if kind == HTTP:  # it is not known whether it has been answered; a second answer is dropped
                    self.server.http_reply(call, 500, (), b"")
        self.after_turn()
        if len(events) == EVENTS_PER_TURN:
            self._loop.call_soon(self._turn)

    def _hand_over(self, kind: int, call: int, payload: object) -> None:
        owner = self._owners.get(call)
        if owner is None:
            return
        streams = self._dialled.get(call)
        if (
            kind in (FAILED, CANCEL)
            or (kind == RESPONSE and streams is False)
            or (kind == HALF_CLOSE and streams is True)
        ):
            self.disown(call)
        owner.on_event(kind, payload)

    def _not_ready(self, call: int, request: HttpRequest, meta: Meta) -> None:
        self.server.http_reply(call, 503, (), b"")

    def _fail_soon(self, owner: CallOwner, reason: str) -> int:
        """An event for a call that never was; its number is negative."""
        self._failures += 1
        call = -self._failures
        self._owners[call] = owner
        self._loop.call_soon(self._hand_over, FAILED, call, reason.encode())
        return call


class _Waiter:
    """Owns a call for whoever awaits its answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.answer: asyncio.Future[HttpResponse] = loop.create_future()

    def on_event(self, kind: int, payload: object) -> None:
        if self.answer.done():
            return
        if kind == RESPONSE:
            self.answer.set_result(payload)  # type: ignore[arg-type]
        elif kind in (FAILED, CANCEL):
            self.answer.set_exception(Unreachable(reason_of(payload)))


def reason_of(payload: object) -> str:
    """The text of a FAILED event."""
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else "EOF"


def target_of(url: Url) -> str:
    """What the wire dials: `host:port`, or `unix:path`."""
    if url.is_unix:
        return "unix:" + url.socket_path
    if url.port:
        return url.host
    return f"{url.host.removesuffix(':')}:{443 if url.is_secure else 80}"


def _nothing() -> None:
    """Nobody wants to know of the end of turns yet."""
