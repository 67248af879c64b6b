"""With a million keys, whatever one client asks for, other clients' puts are answered within 100 ms.

The machine may be busy with other things, and a put that waits for a processor says nothing about the loop.
So a metronome process runs beside: puts during which it was late are not judged, and enough must remain.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from servers import CHANNEL_OPTIONS, Etcd

from pyetcd.mvcc.answer import finish
from pyetcd.mvcc.restore import restore
from pyetcd.mvcc.seams import NoLeases
from pyetcd.mvcc.store import Store
from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    DeleteRangeRequest,
    DeleteRangeResponse,
    RangeRequest,
    RangeResponse,
)
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles

KEYS = 1_000_000
OVERWRITTEN = 500_000
DELETED = 200_000
COMMIT_EVERY = 100_000
STALL_SECONDS = 0.1
LATE_SECONDS = 0.02  # of the metronome: the machine was busy
JUDGED_MIN = 5  # puts

PUTTER = """
import sys, time
import grpc
from pyetcd.proto.rpc_pb2 import PutRequest
put = grpc.insecure_channel(sys.argv[1]).unary_unary("/etcdserverpb.KV/Put")
request = PutRequest(key=b"other", value=b"x").SerializeToString()
while True:
    begun = time.monotonic()
    put(request, timeout=60)
    print(begun, time.monotonic(), flush=True)
    time.sleep(0.002)
"""
METRONOME = """
import time
while True:
    begun = time.monotonic()
    time.sleep(0.002)
    print(begun, time.monotonic(), flush=True)
"""


class Intervals:
    """Pairs of begin and end, in monotonic seconds, which a process of its own prints to a file."""

    def __init__(self, program: str, path: Path, *arguments: str) -> None:
        self._path = path
        with path.open("w") as output:
            self._process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=output)

    def read(self) -> list[tuple[float, float]]:
        lines = self._path.read_text().split("\n")[:-1]
        return [(float(begun), float(ended)) for begun, ended in map(str.split, lines)]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def fill(database: Path) -> None:
    """A million keys in the database of a stopped member, half of them with an older revision."""
    backend = Backend.open(OsFiles(), str(database), None)
    store = Store(backend, NoLeases(), finish, finish(restore(backend)))
    for number in range(KEYS + OVERWRITTEN):
        store.put_simple(key(number % KEYS), b"value-%d" % number)
        if not number % COMMIT_EVERY:
            backend.commit_now()
    backend.close_now()


def key(number: int) -> bytes:
    return b"/registry/pods/%08d" % number


pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    directory = tmp_path_factory.mktemp("million")
    member = Etcd(directory, quota_backend_bytes=8 << 30, compaction_batch_limit=10_000)
    member.stop()
    fill(directory / "data" / "member" / "snap" / "db")
    member.ready_seconds = 120
    member.start()
    yield member
    member.close()


def worst_put_seconds(etcd: Etcd, work: Callable[[grpc.Channel], None]) -> float:
    """The slowest put by another client while `work` runs and for a second after it."""
    target = f"127.0.0.1:{etcd.port}"
    metronome = Intervals(METRONOME, etcd.directory / "metronome")
    puts = Intervals(PUTTER, etcd.directory / "puts", target)
    try:
        deadline = time.monotonic() + 30
        while len(puts.read()) < 20:
            assert time.monotonic() < deadline, "the puts do not begin"
            time.sleep(0.05)
        with grpc.insecure_channel(target, CHANNEL_OPTIONS) as channel:
            begun = time.monotonic()
            work(channel)
        until = time.monotonic() + 1
        while puts.read()[-1][0] < until:
            assert time.monotonic() < until + 30, "the puts have ended"
            time.sleep(0.05)
        late = [beat for beat in metronome.read() if beat[1] - beat[0] > LATE_SECONDS]
        judged = [
            end - start
            for start, end in puts.read()
            if begun <= end and not any(start < last and first < end for first, last in late)
        ]
    finally:
        puts.close()
        metronome.close()
    assert len(judged) >= JUDGED_MIN, f"the machine is too busy to tell: {len(judged)} puts"
    return max(judged)


def call(channel: grpc.Channel, path: str, request: Message) -> bytes:
    answer: bytes = channel.unary_unary(f"/etcdserverpb.KV/{path}")(request.SerializeToString(), timeout=120)
    return answer


def test_a_range_of_everything_stalls_nobody(etcd: Etcd) -> None:
    def work(channel: grpc.Channel) -> None:
        answer = call(channel, "Range", RangeRequest(key=b"/registry/", range_end=b"/registry0"))
        assert len(answer) > KEYS * len(key(0))

    assert worst_put_seconds(etcd, work) < STALL_SECONDS


def test_a_count_of_everything_stalls_nobody(etcd: Etcd) -> None:
    def work(channel: grpc.Channel) -> None:
        request = RangeRequest(key=b"/registry/", range_end=b"/registry0", count_only=True)
        assert RangeResponse.FromString(call(channel, "Range", request)).count == KEYS

    assert worst_put_seconds(etcd, work) < STALL_SECONDS


def test_a_compaction_of_half_a_million_revisions_stalls_nobody(etcd: Etcd) -> None:
    def work(channel: grpc.Channel) -> None:
        call(channel, "Compact", CompactionRequest(revision=KEYS + OVERWRITTEN, physical=True))

    assert worst_put_seconds(etcd, work) < STALL_SECONDS


def test_a_deletion_of_200_000_keys_stalls_nobody(etcd: Etcd) -> None:
    def work(channel: grpc.Channel) -> None:
        request = DeleteRangeRequest(key=key(0), range_end=key(DELETED))
        assert DeleteRangeResponse.FromString(call(channel, "DeleteRange", request)).deleted == DELETED

    assert worst_put_seconds(etcd, work) < STALL_SECONDS
