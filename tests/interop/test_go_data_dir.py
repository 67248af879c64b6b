"""One data directory, served in turns by pyetcd and by real etcd 3.7.1: each finds what the other wrote, says
the same about it, and goes on with it.

Segments of the log are short and snapshots frequent, so that on both sides `.snap` files are written,
segments released and purged. Both serve on the same addresses, since a member's client URLs are part of what
`Hash` covers.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from servers import Etcd, GoEtcd, Server

from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    HashKVRequest,
    HashKVResponse,
    HashRequest,
    HashResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    MemberListRequest,
    MemberListResponse,
    PutRequest,
    PutResponse,
    RequestOp,
    StatusRequest,
    StatusResponse,
    TxnRequest,
    TxnResponse,
)

SEGMENT_BYTES = 64 << 10
LIMITS = {"snapshot_count": 50, "snapshot_catchup_entries": 100}
SETTLED_SECONDS = 15.0
SMALL_SEGMENTS = Path(__file__).parent / "small_segments.py"

Answer = TypeVar("Answer", bound=Message)


class Ours(Etcd):
    """pyetcd with short segments."""

    def command(self) -> list[str]:
        return [sys.executable, str(SMALL_SEGMENTS), str(SEGMENT_BYTES), *super().command()[1:]]


@dataclass(frozen=True)
class Told:
    """What a member says of itself and of its data."""

    member_id: int
    cluster_id: int
    revision: int
    version: str
    storage_version: str
    hash_kv: tuple[int, int, int]
    hash: int
    keys: tuple[bytes, ...]
    members: tuple[bytes, ...]
    leases: tuple[bytes, ...]


def ask(server: Server, path: str, request: Message, response: type[Answer]) -> Answer:
    answer = server.call(path, request, response)
    assert isinstance(answer, response)
    return answer


def told_by(server: Server) -> Told:
    status = settled(server)
    hashed = ask(server, "Maintenance/HashKV", HashKVRequest(), HashKVResponse)
    leases = []
    for lease in ask(server, "Lease/LeaseLeases", LeaseLeasesRequest(), LeaseLeasesResponse).leases:
        question = LeaseTimeToLiveRequest(ID=lease.ID, keys=True)
        found = ask(server, "Lease/LeaseTimeToLive", question, LeaseTimeToLiveResponse)
        leases.append(b"%d %d %s" % (lease.ID, found.grantedTTL, b" ".join(sorted(found.keys))))
    members = ask(server, "Cluster/MemberList", MemberListRequest(), MemberListResponse).members
    return Told(
        status.header.member_id,
        status.header.cluster_id,
        status.header.revision,
        status.version,
        status.storageVersion,
        (hashed.hash, hashed.hash_revision, hashed.compact_revision),
        ask(server, "Maintenance/Hash", HashRequest(), HashResponse).hash,
        tuple(kv.SerializeToString() for kv in server.range(b"\0", b"\0").kvs),
        tuple(member.SerializeToString() for member in members),
        tuple(sorted(leases)),
    )


def settled(server: Server) -> StatusResponse:
    """The status, once cluster and storage have their versions: in a new cluster they come a little later."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while True:
        status = ask(server, "Maintenance/Status", StatusRequest(), StatusResponse)
        if status.storageVersion not in ("", "3.5.0") or time.monotonic() > deadline:
            return status
        time.sleep(0.05)  # nothing announces it


def write(server: Server, rnd: random.Random, turn: int) -> None:
    """Puts, deletes, transactions, leases and a compaction: enough to fill some segments of the log."""
    granted = ask(server, "Lease/LeaseGrant", LeaseGrantRequest(TTL=10_000 + turn), LeaseGrantResponse)
    answers = []
    for number in range(260):
        key = b"key-%03d" % rnd.randrange(120)
        value = rnd.randbytes(rnd.choice([0, 10, 700, 700, 3000]))
        lease = granted.ID if rnd.random() < 0.1 else 0
        put = PutRequest(key=key, value=value, lease=lease)
        if number % 7 == 3:
            request = DeleteRangeRequest(key=key, range_end=key + b"\xff" if number % 2 else b"")
            answers.append(begin(server, "KV/DeleteRange", request, DeleteRangeResponse))
        elif number % 7 == 5:
            guard = Compare(key=key, target=Compare.VERSION, result=Compare.GREATER, version=0)
            other = RequestOp(request_put=PutRequest(key=b"made-%d" % turn, value=value))
            txn = TxnRequest(compare=[guard], success=[RequestOp(request_put=put), other], failure=[other])
            answers.append(begin(server, "KV/Txn", txn, TxnResponse))
        else:
            answers.append(begin(server, "KV/Put", put, PutResponse))
    revision = max(answer.result().header.revision for answer in answers)
    spare = ask(server, "Lease/LeaseGrant", LeaseGrantRequest(TTL=20_000), LeaseGrantResponse)
    server.call("KV/Put", PutRequest(key=b"leased", value=b"x", lease=spare.ID), PutResponse)
    if turn % 2:
        server.call("Lease/LeaseRevoke", LeaseRevokeRequest(ID=spare.ID), LeaseRevokeResponse)
    compaction = CompactionRequest(revision=revision - 100, physical=True)
    server.call("KV/Compact", compaction, CompactionResponse)


def begin(server: Server, path: str, request: Message, response: type[Message]) -> grpc.Future:
    method = server.channel.unary_unary(
        f"/etcdserverpb.{path}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    return method.future(request, timeout=30)


def look_at_files(data: Path, gobolt: Path, gowal: Path) -> tuple[list[str], list[tuple[int, int]]]:
    """Go's packages read all of it and find no fault. Returns the segments and the markers, newest first."""

    def run(*command: object) -> str:
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    wal, snap = data / "member" / "wal", data / "member" / "snap"
    assert run(gobolt, "check", snap / "db") == ""
    markers = [(index, term) for index, term in json.loads(run(gowal, "markers", wal))]
    index, term = markers[0]
    assert index > 0
    found = json.loads(run(gowal, "snap", snap / f"{term:016x}-{index:016x}.snap"))
    assert (found["Index"], found["Term"]) == (index, term)
    assert b'"/0/members/' in bytes.fromhex(found["Data"]), "the members, as etcd 3.5 would read them"
    entries = json.loads(run(gowal, "read", wal, index, term))["Entries"] or []  # Go says null
    assert [entry["Index"] for entry in entries] == [*range(index + 1, index + 1 + len(entries))]
    return sorted(path.name for path in wal.glob("*.wal")), markers


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("begins", ["ours", "go"])
def test_a_data_directory_goes_back_and_forth(
    goetcd: Path, gobolt: Path, gowal: Path, tmp_path: Path, closing: ExitStack, begins: str
) -> None:
    starts: dict[str, Callable[[tuple[int, int] | None], Server]] = {
        "ours": lambda ports: Ours(tmp_path, ports, **LIMITS),
        "go": lambda ports: GoEtcd(goetcd, tmp_path, ports, wal_segment_bytes=SEGMENT_BYTES, **LIMITS),
    }
    rnd = random.Random(begins)
    order = ["ours", "go"] if begins == "ours" else ["go", "ours"]
    ports: tuple[int, int] | None = None
    before: Told | None = None
    # So each takes over from the other after a clean stop, and after a kill -9 right behind the last answer.
    for turn, how in enumerate(("stop", "kill", "kill", "stop", "stop")):
        server = starts[order[turn % 2]](ports)
        closing.callback(server.close)
        ports = (server.port, server.peer_port)
        now = told_by(server)
        if before is not None:
            assert now == before, f"turn {turn}: {order[turn % 2]} says otherwise"
        write(server, rnd, turn)
        before = told_by(server)
        assert before.revision > now.revision
        assert len(before.leases) > len(now.leases)
        assert (before.version, before.storage_version) == ("3.7.1", "3.7.0")
        server.stop(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        segments, markers = look_at_files(tmp_path / "data", gobolt, gowal)
        assert markers[0][0] > turn * 200, "each took snapshots"
    assert int(segments[0][:16], 16) > 0, "segments were released and purged"
    assert not list((tmp_path / "data").rglob("*.broken")), "nothing had to be repaired"
