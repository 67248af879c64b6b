"""SIGTERM and SIGINT end a member cleanly and quickly, whatever it is doing; nothing acknowledged is lost."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from crash_check import check
from crash_load import Ledger, Load
from crash_member import ROUNDS, Crashable
from crash_seed import MANY_KEYS as KEYS
from crash_seed import Seed, copy, keys_of
from google.protobuf.message import Message

from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

STOP_SECONDS = 2.0
WATCHES = 200


@pytest.fixture
def placed(member: Crashable, seed: Seed) -> Crashable:
    seed.place(member.data)
    return member


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.002)


def waited(pid: int) -> float:
    """For how many seconds a process has wanted a processor and had none: on a busy machine, most of them."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def stops(member: Crashable, *numbers: signal.Signals) -> None:
    """Send signals one after the other; the member ends by the first of them, cleanly and in time."""
    pid = member.process.pid
    before = last = waited(pid)
    began = time.monotonic()
    for number in numbers:
        member.process.send_signal(number)
        until(lambda: "closing etcd server" in member.printed.text())
    while member.process.poll() is None and time.monotonic() - began < 10 * STOP_SECONDS:
        last = max(last, waited(pid))
        time.sleep(0.002)
    ending = member.ending(began, 1)
    assert ending.code == -numbers[0], ending.text
    assert "closed etcd server" in ending.text
    assert not [line for line in ending.lines if line["level"] in ("error", "fatal")], ending.text
    assert ending.seconds - (last - before) < STOP_SECONDS, ending.text


@contextmanager
def many_streams(member: Crashable) -> Iterator[int]:
    """Watches on many streams of several connections, all open, and a lease kept alive on some: its ID."""
    lease = member.call("Lease/LeaseGrant", LeaseGrantRequest(TTL=60), LeaseGrantResponse)
    assert isinstance(lease, LeaseGrantResponse)
    channels = [
        grpc.insecure_channel(f"127.0.0.1:{member.port}", [("grpc.use_local_subchannel_pool", 1)])
        for _ in range(4)
    ]
    done = threading.Event()

    def once(request: Message) -> Iterator[Message]:
        yield request
        done.wait(60)

    streams = []
    create = WatchRequest(create_request=WatchCreateRequest(key=b"\0", range_end=b"\0"))
    for number in range(WATCHES):
        channel = channels[number % len(channels)]
        if number % 10:
            method, request, response = "Watch/Watch", create, WatchResponse
        else:
            method, response = "Lease/LeaseKeepAlive", LeaseKeepAliveResponse
            request = LeaseKeepAliveRequest(ID=lease.ID)
        call = channel.stream_stream(
            f"/etcdserverpb.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        streams.append(call(once(request), timeout=60))
    for stream in streams:
        next(stream)  # it is open
    yield lease.ID
    done.set()
    for stream in streams:
        stream.cancel()
    for channel in channels:
        channel.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_loaded_member_with_many_streams_and_nothing_is_lost(
    number: signal.Signals, tmp_path: Path
) -> None:
    member, ledger = Crashable(tmp_path), Ledger()
    member.start()
    with many_streams(member) as lease:
        ledger.leases.add(lease)
        load = Load(member, ledger, seed=number)
        threading.Event().wait(0.5)
        stops(member, number)
    assert load.end() > 20
    member.start()
    check(member, ledger)
    member.stop()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_changes_nothing(second: signal.Signals, placed: Crashable, seed: Seed) -> None:
    placed.start()
    with many_streams(placed):
        placed.put(b"a", b"1")
        stops(placed, signal.SIGTERM, second, second)
    placed.start()
    assert keys_of(placed) == {**seed.late_keys, b"a": b"1"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_moment_of_the_start_ends_it_and_harms_nothing(
    number: signal.Signals, placed: Crashable, seed: Seed
) -> None:
    rnd = random.Random(number)
    for _ in range(5 * ROUNDS):
        placed.begin()
        until(lambda: "starting an etcd server" in placed.printed.text())
        placed.printed.wait_ready(rnd.uniform(0, 0.3))
        placed.process.send_signal(number)
        ending = placed.ending(time.monotonic(), 20)
        assert ending.code == -number, ending.text
    placed.start()
    assert keys_of(placed) == seed.late_keys


def test_the_executable_is_ended_by_sigterm_at_any_moment(tmp_path: Path) -> None:
    member = Crashable(tmp_path, forked=False)
    for seconds in (0.05, 0.2, 0.4, 0.8):
        member.begin()
        member.printed.wait_ready(seconds)
        member.process.send_signal(signal.SIGTERM)
        assert member.ending(time.monotonic(), 20).code == -signal.SIGTERM
    member.start()
    member.put(b"a", b"1")
    stops(member, signal.SIGINT)


def test_a_member_amid_a_large_deletion_stops_at_once(many_keys: Path, tmp_path: Path) -> None:
    for seconds in (0.0, 0.1):
        member = Crashable(tmp_path / str(seconds))
        copy(many_keys, member.data)
        member.start()
        gone = DeleteRangeRequest(key=b"many/", range_end=b"many0")
        call = member.channel.unary_unary(
            "/etcdserverpb.KV/DeleteRange",
            request_serializer=DeleteRangeRequest.SerializeToString,
            response_deserializer=DeleteRangeResponse.FromString,
        ).future(gone, timeout=30)
        threading.Event().wait(seconds)
        stops(member, signal.SIGTERM)
        answered = call.exception(10) is None
        member.start()
        left = member.call(
            "KV/Range", RangeRequest(key=b"many/", range_end=b"many0", count_only=True), RangeResponse
        )
        assert isinstance(left, RangeResponse)
        assert left.count in ((0,) if answered else (0, KEYS))
        member.stop()


def test_a_member_amid_the_compares_of_a_transaction_stops_at_once(many_keys: Path, tmp_path: Path) -> None:
    """They take many turns over 200,000 keys. After the restart the entry is applied in full, or was never
    logged."""
    member = Crashable(tmp_path)
    copy(many_keys, member.data)
    member.start()
    compare = Compare(
        key=b"many/", range_end=b"many0", target=Compare.CREATE, result=Compare.GREATER, create_revision=0
    )
    put = RequestOp(request_put=PutRequest(key=b"compared", value=b"all"))
    call = member.channel.unary_unary(
        "/etcdserverpb.KV/Txn",
        request_serializer=TxnRequest.SerializeToString,
        response_deserializer=TxnResponse.FromString,
    ).future(TxnRequest(compare=[compare] * 3, success=[put]), timeout=30)
    threading.Event().wait(0.1)
    stops(member, signal.SIGTERM)
    answered = call.exception(10) is None
    member.start()
    found = member.range(b"compared")
    assert found.header.revision == KEYS + 1 + found.count
    assert found.count or not answered
    member.stop()
