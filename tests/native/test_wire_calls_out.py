"""Calls that a loop makes: begun at once, their answers drained."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from pyetcd._native import Calls, Channel, Wake

SECONDS = 20.0

Served = Callable[[bytes, grpc.ServicerContext], bytes]


class Methods(grpc.GenericRpcHandler):
    """`/s/Echo`, `/s/Fail`, `/s/Hang` one to one; `/s/Each` a stream each way, `/s/Flood` an endless one."""

    def __init__(self) -> None:
        self.flooded = 0

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.removeprefix("/s/")
        if name in ("Echo", "Fail", "Hang"):
            return grpc.unary_unary_rpc_method_handler(getattr(self, name.lower()))
        if name in ("Each", "Flood"):
            return grpc.stream_stream_rpc_method_handler(getattr(self, name.lower()))
        return None

    def echo(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata())
        return request + metadata.get("suffix", "").encode()

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, request.decode())

    def hang(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        while context.is_active():
            time.sleep(0.02)
        return b""

    def each(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield request.upper()

    def flood(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        while context.is_active():
            self.flooded += 1
            yield bytes(1 << 20)


class Caller:
    """Drains with a deadline."""

    def __init__(self) -> None:
        self._wake = Wake()
        self.calls = Calls(self._wake)
        self._told: list[tuple[int, bytes | None, int, str]] = []

    def next(self, seconds: float = SECONDS) -> tuple[int, bytes | None, int, str]:
        deadline = time.monotonic() + seconds
        while not self._told:
            left = deadline - time.monotonic()
            if left < 0 or not select.select([self._wake.fileno()], [], [], left)[0]:
                raise TimeoutError
            self._wake.clear()
            self._told = self.calls.drain(100)
        return self._told.pop(0)


@pytest.fixture
def methods() -> Methods:
    return Methods()


@pytest.fixture
def channel(methods: Methods) -> Iterator[Channel]:
    server = grpc.server(ThreadPoolExecutor(8), handlers=[methods])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = Channel(f"127.0.0.1:{port}")
    yield channel
    channel.close()
    server.stop(None).wait()


@pytest.fixture
def caller() -> Caller:
    return Caller()


def test_many_calls_are_under_way_at_once_and_each_gets_its_own_answer(
    caller: Caller, channel: Channel
) -> None:
    begun = {
        caller.calls.unary(channel, "/s/Echo", b"%d" % number, [("suffix", "!")]): number
        for number in range(100)
    }
    assert len(begun) == 100
    for _ in range(100):
        call, message, code, text = caller.next()
        assert (message, code, text) == (b"%d!" % begun.pop(call), 0, "")
    assert caller.calls.under_way() == 0


def test_a_failure_is_told_with_its_code_and_text(caller: Caller, channel: Channel) -> None:
    call = caller.calls.unary(channel, "/s/Fail", b"no such thing")
    assert caller.next() == (call, None, 5, "no such thing")


def test_what_is_past_its_time_ends_and_what_was_given_up_is_not_told(
    caller: Caller, channel: Channel
) -> None:
    given_up = caller.calls.unary(channel, "/s/Hang", b"")
    caller.calls.cancel(given_up)
    late = caller.calls.unary(channel, "/s/Hang", b"", [], 0.2)
    assert caller.next() == (late, None, 4, "context deadline exceeded")
    assert caller.calls.under_way() == 0


def test_a_server_that_is_not_there_fails_the_call(caller: Caller) -> None:
    call = caller.calls.unary(Channel("127.0.0.1:1"), "/s/Echo", b"")
    assert caller.next()[:3] == (call, None, 14)


def test_a_stream_goes_both_ways_to_its_good_end(caller: Caller, channel: Channel) -> None:
    call = caller.calls.open(channel, "/s/Each")
    assert caller.calls.send(call, b"a")
    assert caller.calls.send(call, b"b")
    assert [caller.next(), caller.next()] == [(call, b"A", 0, ""), (call, b"B", 0, "")]
    caller.calls.half_close(call)
    assert caller.next() == (call, None, 0, "")
    assert not caller.calls.send(call, b"c")


def test_a_stream_that_is_not_read_stops_and_others_go_on(
    caller: Caller, channel: Channel, methods: Methods
) -> None:
    flood = caller.calls.open(channel, "/s/Flood")
    caller.calls.send(flood, b"go")
    assert [caller.next()[0] for _ in range(16)] == [flood] * 16
    with pytest.raises(TimeoutError):
        caller.next(1.0)
    assert methods.flooded < 64
    echo = caller.calls.unary(channel, "/s/Echo", b"x")
    assert caller.next() == (echo, b"x", 0, "")
    caller.calls.read(flood, 2)
    assert [caller.next()[0] for _ in range(2)] == [flood] * 2
    caller.calls.cancel(flood)


def test_a_connection_without_a_sign_of_life_is_given_up(caller: Caller) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        channel = Channel(target, keepalive_time=0.1, keepalive_timeout=0.2)
        call = caller.calls.unary(channel, "/s/Echo", b"")
        assert caller.next()[:3] == (call, None, 14)
