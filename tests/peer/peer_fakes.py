"""A network in memory: the native wire's Server with the same events, and no sockets, threads or real time.

`Net.install` puts it in the place of the native one, so that `PeerWire` and all above it are the real ones.
It parses nothing: requests, bodies and chunks are carried over, chunks cut at random places.
"""

from __future__ import annotations

import asyncio
import os
import random
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from pyetcd._native import CANCEL, FAILED, HALF_CLOSE, HTTP, MESSAGE, RESPONSE, WRITABLE
from pyetcd.cluster.urls import Url, parse_url
from pyetcd.peer import wire
from pyetcd.peer.port import PeerPort
from pyetcd.peer.transport import Transport
from pyetcd.peer.wire import PeerWire
from pyetcd.raft import Message

Result = TypeVar("Result")
Body = bytes | Sequence[bytes]
Headers = Sequence[tuple[str, str]]

_PATTERN = bytes([block for block in range(256) for _ in range(256)])
CLUSTER_ID = 0xCDF818194E3A8C32


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Never waits: what it would have waited has passed."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready: list[Any] = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)


@dataclass
class FakeRequest:
    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""


@dataclass
class FakeResponse:
    status: int
    headers: Headers = ()
    body: bytes = b""


class FakeWake:
    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def wake(self) -> None:
        os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            pass


@dataclass(eq=False)
class Flow:
    """One direction of a call's body, from `sender` (its call `from_call`) to `receiver`."""

    sender: FakeServer
    from_call: int
    receiver: FakeServer
    to_call: int
    unsent: int = 0
    full: bool = False
    held: deque[bytes] = field(default_factory=deque)
    ended: bool = False


class FakeServer:
    """The native Server, as far as peers use it."""

    def __init__(
        self,
        net: Net,
        wake: FakeWake,
        methods: object,
        limits: object,
        *,
        streamed_paths: Sequence[str] = (),
        local_address: str | None = None,
    ) -> None:
        self.net = net
        self.wake = wake
        self.streamed_paths = streamed_paths
        self.events: deque[tuple[int, int, int, Any, Any]] = deque()
        self.answered: dict[int, FakeResponse] = {}  # served calls, and what was answered
        self.credit: dict[int, int] = {}
        self.hung_up: list[int] = []
        self._calls = 0
        self._out: dict[int, Flow] = {}  # what we send on a call
        self._other: dict[int, tuple[FakeServer, int]] = {}  # the other end of a call
        self._dialled: set[int] = set()
        self._streams: set[int] = set()  # dialled with stream=True
        net.servers.append(self)

    def push(self, kind: int, call: int, payload: object = None) -> None:
        self.events.append((kind, call, 0, payload, None))
        self.wake.wake()

    def drain(self, count: int) -> list[tuple[int, int, int, Any, Any]]:
        return [self.events.popleft() for _ in range(min(count, len(self.events)))]

    def request(self, request: FakeRequest) -> int:
        """A request out of nowhere; the call."""
        self._calls += 1
        self.push(HTTP, self._calls, request)
        return self._calls

    def listen_at(self, target: str) -> None:
        self.net.listening[target] = self

    def stop_accepting(self) -> None:
        for target in [target for target, server in self.net.listening.items() if server is self]:
            del self.net.listening[target]

    def shutdown(self, grace_seconds: float) -> None:
        for call in list(self._other):
            self.hang_up(call)

    def dial(
        self,
        target: str,
        method: str,
        path: str,
        headers: Headers,
        body: bytes = b"",
        *,
        tls: object = None,
        stream: bool = False,
        upload: bool = False,
        connect_timeout: float = 0,
        idle_timeout: float = 0,
        timeout: float = 0,
    ) -> int:
        self._calls += 1
        call = self._calls
        self._dialled.add(call)
        self.net.dials.append((target, method, path))
        if timeout:
            asyncio.get_running_loop().call_later(timeout, self._time_out, call)
        if target in self.net.silent:
            self._other[call] = (self, -1)
            return call
        other = self.net.listening.get(target)
        if other is None:
            self.push(FAILED, call, f"dial tcp {target}: connect: connection refused".encode())
            return call
        lower = [(key.lower(), value) for key, value in headers]
        streamed = path in other.streamed_paths
        served = other.request(FakeRequest(method, path, lower, b"" if streamed else body))
        self._other[call], other._other[served] = (other, served), (self, call)
        other._out[served] = Flow(other, served, self, call)
        if stream:
            self._streams.add(call)
        if streamed or upload:
            flow = self._out[call] = Flow(self, call, other, served)
            if body:
                self._carry(flow, body)
            if not upload:
                other.push(HALF_CLOSE, served)
        return call

    def http_reply(self, call: int, status: int, headers: Headers, body: Body, end: bool = True) -> None:
        if call in self.answered:
            return
        whole = body if isinstance(body, bytes) else b"".join(body)
        self.answered[call] = FakeResponse(status, headers, whole)
        if call not in self._other:
            return
        other, dialled = self._other[call]
        lower = [(key.lower(), value) for key, value in headers]
        if dialled in other._streams:
            other.push(RESPONSE, dialled, FakeResponse(status, lower))
            if whole:
                self._carry(self._out[call], whole)
            if end:
                other.push(HALF_CLOSE, dialled)
        else:
            assert end, "a long answer to a short question"
            other.push(RESPONSE, dialled, FakeResponse(status, lower, whole))
        if end:
            self._forget(call)

    def send_many(self, messages: Sequence[tuple[int, Body]]) -> list[int]:
        found = []
        for call, body in messages:
            flow = self._out.get(call)
            if flow is None or flow.ended:
                found.append(-1)
                continue
            whole = body if isinstance(body, bytes) else b"".join(body)
            flow.unsent += len(whole)
            if flow.unsent > wire.STREAM_BACKLOG_BYTES:
                flow.full = True
            flow.held.append(whole)
            found.append(flow.unsent)
            self.net.soon(flow)
        return found

    def finish_many(self, ends: Sequence[tuple[int, int, str]]) -> list[object]:
        for call, _, _ in ends:
            flow = self._out.get(call)
            if flow is not None:
                flow.ended = True
                self.net.soon(flow)
        return []

    def hang_up(self, call: int) -> None:
        self.hung_up.append(call)
        if call not in self._other:
            return
        other, theirs = self._other[call]
        self._forget(call)
        if other is not self:
            did_dial = theirs in other._dialled
            other.push(FAILED if did_dial else CANCEL, theirs, b"unexpected EOF" if did_dial else None)

    def consumed(self, call: int, count: int) -> None:
        self.credit[call] = self.credit.get(call, 0) + count

    def tear(self, call: int) -> None:
        """The connection of a call breaks: both sides hear of it."""
        other, theirs = self._other[call]
        self._forget(call)
        for server, its_call in ((self, call), (other, theirs)):
            did_dial = its_call in server._dialled
            server.push(
                FAILED if did_dial else CANCEL,
                its_call,
                b"read: connection reset by peer" if did_dial else None,
            )

    def _time_out(self, call: int) -> None:
        if call in self._other:
            self._other.pop(call)
            self.push(FAILED, call, b"context deadline exceeded")

    def _carry(self, flow: Flow, data: bytes) -> None:
        for chunk in self.net.cut(data):
            flow.receiver.push(MESSAGE, flow.to_call, chunk)

    def _forget(self, call: int) -> None:
        found = self._other.pop(call, None)
        self._out.pop(call, None)
        if found is not None and found[1] >= 0:
            other, theirs = found
            other._other.pop(theirs, None)
            other._out.pop(theirs, None)


class Net:
    def __init__(self, seed: int = 1) -> None:
        self.servers: list[FakeServer] = []
        self.listening: dict[str, FakeServer] = {}
        self.silent: set[str] = set()  # targets that take a connection and say nothing
        self.frozen: set[FakeServer] = set()  # servers whose bytes do not leave
        self.dials: list[tuple[str, str, str]] = []
        self.chance = random.Random(seed)
        self.whole = False

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(wire, "Wake", FakeWake)
        patch.setattr(wire, "Limits", lambda **limits: limits)
        patch.setattr(wire, "Server", lambda *args, **kwargs: FakeServer(self, *args, **kwargs))

    def cut(self, data: bytes) -> list[bytes]:
        if self.whole or len(data) < 2:
            return [data] if data else []
        places = sorted(self.chance.sample(range(1, len(data)), min(len(data) - 1, self.chance.randrange(3))))
        return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]

    def soon(self, flow: Flow) -> None:
        asyncio.get_running_loop().call_soon(self._move, flow)

    def thaw(self, server: FakeServer) -> None:
        self.frozen.discard(server)
        for flow in list(server._out.values()):
            self.soon(flow)

    def _move(self, flow: Flow) -> None:
        sender = flow.sender
        if sender in self.frozen or sender._out.get(flow.from_call) is not flow:
            return
        while flow.held:
            data = flow.held.popleft()
            sender._carry(flow, data)
            flow.unsent -= len(data)
        if flow.full:
            flow.full = False
            sender.push(WRITABLE, flow.from_call)
        if flow.ended:
            flow.receiver.push(HALF_CLOSE, flow.to_call)
            if flow.to_call in flow.receiver._streams:
                sender._forget(flow.from_call)
            else:
                del sender._out[flow.from_call]


class Sink:
    """A snapshot's database, in memory."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.finished = False
        self.aborted = False
        self.gate: asyncio.Event | None = None
        self.fail: Exception | None = None

    async def write(self, chunk: bytes) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.fail is not None:
            raise self.fail
        self.data += chunk

    async def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted = True


class Data:
    """A database that is so many bytes of its own."""

    def __init__(self, size: int, short: bool = False) -> None:
        self.size = size
        self.closed = False
        self.read_bytes = 0
        self._short = short

    async def read(self, offset: int, count: int) -> bytes:
        if self._short and offset > self.size // 2:
            return b""
        self.read_bytes += count
        return self.content(offset, count)

    def content(self, offset: int, count: int) -> bytes:
        """The number of its 256-byte block, in every byte."""
        first = offset % len(_PATTERN)
        return (_PATTERN * ((first + count) // len(_PATTERN) + 1))[first : first + count]

    def close(self) -> None:
        assert not self.closed
        self.closed = True


class FakeRaft:
    """What was asked of a member."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.removed_ids: set[int] = set()
        self.leader = 0
        self.strangers: list[tuple[int, Sequence[str]]] = []
        self.unreachable: list[int] = []
        self.reports: list[tuple[int, bool]] = []
        self.told_removed = 0
        self.raises: Exception | None = None
        self.refuses_snapshot: Exception | None = None
        self.sinks: list[Sink] = []
        self.make_sink: Callable[[], Sink] = Sink

    def process(self, message: Message) -> None:
        if self.raises is not None:
            raise self.raises
        self.got.append(message)

    def is_removed(self, id: int) -> bool:
        return id in self.removed_ids

    def leads(self, id: int) -> bool:
        return id == self.leader

    def stranger(self, id: int, urls: Sequence[str]) -> None:
        self.strangers.append((id, urls))

    def report_unreachable(self, id: int) -> None:
        self.unreachable.append(id)

    def report_snapshot(self, id: int, ok: bool) -> None:
        self.reports.append((id, ok))

    def receive_snapshot(self, message: Message) -> Sink:
        if self.refuses_snapshot is not None:
            raise self.refuses_snapshot
        self.sinks.append(self.make_sink())
        return self.sinks[-1]

    def member_removed(self) -> None:
        self.told_removed += 1


class Member:
    """One side: the real wire, transport and port over the fake network."""

    def __init__(self, id: int, cluster_id: int = CLUSTER_ID) -> None:
        loop = asyncio.get_running_loop()
        self.id = id
        self.url: Url = parse_url(f"http://10.0.0.{id}:2380")
        self.raft = FakeRaft()
        self.wire = PeerWire(loop, tls=None, dial_timeout_seconds=1.0)
        self.server: FakeServer = self.wire.server  # type: ignore[assignment]
        self.transport = Transport(id, cluster_id, [self.url.text], self.wire, self.raft, loop)
        self.port = PeerPort(self.wire, self.transport, {}, {})
        self.server.listen_at(self.url.host)
        self.wire.after_turn = self.transport.flush
        self.wire.start()

    def knows(self, *others: Member) -> None:
        for other in others:
            self.transport.add_peer(other.id, [other.url])

    async def close(self) -> None:
        await self.transport.stop()
        await self.port.close()
        await self.wire.close()


async def pair() -> tuple[Member, Member]:
    """Two members that know each other, connected."""
    one, two = Member(1), Member(2)
    one.knows(two)
    two.knows(one)
    await asyncio.sleep(0.01)
    assert one.transport.active_since(2) is not None
    assert two.transport.active_since(1) is not None
    return one, two
