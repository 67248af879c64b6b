"""What members ask each other beside raft's messages is answered alike: status, headers and body, byte for
byte, next to a real etcd.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from servers import GoEtcd

from pyetcd.cluster.members import Member
from pyetcd.peer.calls import PeerHash, Versions
from pyetcd.peer.endpoints import Endpoints, LeaseLife, Response
from pyetcd.proto import errors
from pyetcd.proto.lease_pb2 import LeaseInternalRequest
from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    HashKVRequest,
    HashKVResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseTimeToLiveRequest,
    MemberListRequest,
    MemberListResponse,
    PutRequest,
    PutResponse,
)

LEASE = 77
TTL = 5000
WIRES_OWN = {"date", "content-length", "connection"}


class Request:
    """As the wire hands it over."""

    def __init__(self, method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body


class Meta:
    peer = "127.0.0.1:1"


class SameAs:
    """Has what the Go member has."""

    def __init__(self, member: GoEtcd) -> None:
        listed = member.call("Cluster/MemberList", MemberListRequest(), MemberListResponse)
        assert isinstance(listed, MemberListResponse)
        self._members = [
            Member(each.ID, tuple(each.peerURLs), each.isLearner, each.name, tuple(each.clientURLs))
            for each in listed.members
        ]
        self.cluster_id = listed.header.cluster_id
        self._hash = member.call("Maintenance/HashKV", HashKVRequest(), HashKVResponse)

    def members(self) -> Sequence[Member]:
        return self._members

    def versions(self) -> Versions:
        return Versions("3.7.1", "3.7.0", "3.7.0")

    async def promote(self, member_id: int, token: str | None) -> Sequence[Member]:
        if member_id == self._members[0].id:
            raise errors.MEMBER_NOT_LEARNER
        raise errors.MEMBER_NOT_FOUND

    async def catch_up(self) -> None: ...

    async def renew(self, lease_id: int) -> int:
        if lease_id != LEASE:
            raise errors.LEASE_NOT_FOUND
        return TTL

    async def time_to_live(self, lease_id: int, keys: bool) -> LeaseLife:
        if lease_id != LEASE:
            raise errors.LEASE_NOT_FOUND
        return LeaseLife(TTL - 1, TTL, [b"with a lease"] if keys else ())

    async def hash_kv(self, revision: int) -> PeerHash:
        found = self._hash
        assert isinstance(found, HashKVResponse)
        if revision == 2:
            raise errors.COMPACTED
        if revision > 100:
            raise errors.FUTURE_REVISION
        return PeerHash(0, found.header.revision, found.hash, found.compact_revision, found.hash_revision)

    async def downgrade_enabled(self) -> bool:
        return False


@pytest.fixture(scope="module")
def go(goetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoEtcd]:
    member = GoEtcd(goetcd, tmp_path_factory.mktemp("go"))
    try:
        member.call("Lease/LeaseGrant", LeaseGrantRequest(ID=LEASE, TTL=TTL), LeaseGrantResponse)
        member.call("KV/Put", PutRequest(key=b"with a lease", value=b"v", lease=LEASE), PutResponse)
        for number in range(3):
            member.put(b"key", b"%d" % number)
        member.call("KV/Compact", CompactionRequest(revision=3, physical=True), CompactionResponse)
        yield member
    finally:
        member.close()


def ask_go(member: GoEtcd, request: Request) -> Response:
    connection = http.client.HTTPConnection("127.0.0.1", member.peer_port, timeout=10)
    try:
        connection.request(request.method, request.target, request.body, dict(request.headers))
        answer = connection.getresponse()
        return answer.status, tuple(answer.getheaders()), answer.read()
    finally:
        connection.close()


def comparable(response: Response) -> tuple[int, set[tuple[str, str]], bytes]:
    status, headers, body = response
    return status, {(name, value) for name, value in headers if name.lower() not in WIRES_OWN}, body


def lease(id: int, *, unknown: bytes = b"") -> bytes:
    return LeaseKeepAliveRequest(ID=id).SerializeToString() + unknown


def life(id: int, keys: bool) -> bytes:
    asked = LeaseTimeToLiveRequest(ID=id, keys=keys)
    return LeaseInternalRequest(LeaseTimeToLiveRequest=asked).SerializeToString()


REQUESTS = [
    ("GET", "/members", b""),
    ("GET", "/members?query=1", b""),
    ("GET", "/%6dembers", b""),
    ("POST", "/members", b""),
    ("HEAD", "/members", b""),
    ("GET", "/members/none", b""),
    ("GET", "/version", b""),
    ("POST", "/version", b""),
    ("GET", "/members/promote/1", b""),
    ("POST", "/members/promote/1", b""),
    ("POST", "/members/promote/own", b""),
    ("POST", "/members/promote/", b""),
    ("POST", "/members/promote/-1", b""),
    ("POST", "/members/promote/%31", b""),
    ("POST", "/members/promote/18446744073709551616", b""),
    ("POST", "/members/promote/1/2", b""),
    ("POST", "/leases", lease(LEASE)),
    ("POST", "/leases", lease(LEASE, unknown=b"\x78\x01")),
    ("POST", "/leases", lease(1)),
    ("POST", "/leases", b""),
    ("POST", "/leases", b"\xff\xff"),
    ("POST", "/leases", b"\x0a" + b"x" * (64 << 10)),
    ("GET", "/leases", b""),
    ("POST", "/leases/internal", life(LEASE, False)),
    ("POST", "/leases/internal", life(LEASE, True)),
    ("POST", "/leases/internal", life(1, True)),
    ("POST", "/leases/internal", b"\x0a\x05"),
    ("DELETE", "/leases/internal", b""),
    ("POST", "/leases/other", b""),
    ("GET", "/members/hashkv", b"{}"),
    ("GET", "/members/hashkv", b'{"revision":5}'),
    ("GET", "/members/hashkv", b'{"REVISION":5, "other": [1]}'),
    ("GET", "/members/hashkv", b'{"revision":null}'),
    ("GET", "/members/hashkv", b"null"),
    ("GET", "/members/hashkv", b'{"revision":2}'),
    ("GET", "/members/hashkv", b'{"revision":1000}'),
    ("GET", "/members/hashkv", b'{"revision":"5"}'),
    ("GET", "/members/hashkv", b'{"revision":5.5}'),
    ("GET", "/members/hashkv", b'{"revision":9223372036854775808}'),
    ("GET", "/members/hashkv", b'{"revision":true}'),
    ("GET", "/members/hashkv", b""),
    ("GET", "/members/hashkv", b"[]"),
    ("GET", "/members/hashkv", b"{} x"),
    ("POST", "/members/hashkv", b"{}"),
    ("GET", "/downgrade/enabled", b""),
    ("PUT", "/downgrade/enabled", b""),
    ("GET", "/", b""),
    ("GET", "/health", b""),
    ("GET", "/metrics", b""),
]


@pytest.mark.parametrize(("method", "target", "body"), REQUESTS)
def test_a_request_of_another_member_is_answered_alike(
    go: GoEtcd, method: str, target: str, body: bytes
) -> None:
    serving = SameAs(go)
    target = target.replace("own", str(serving.members()[0].id))
    check(go, serving, Request(method, target, (), body))


@pytest.mark.parametrize("cluster_id", ["", "1234", "own"])
def test_the_cluster_a_hash_is_asked_of_matters(go: GoEtcd, cluster_id: str) -> None:
    serving = SameAs(go)
    header = ("x-etcd-cluster-id", cluster_id.replace("own", f"{serving.cluster_id:x}"))
    check(go, serving, Request("GET", "/members/hashkv", (header,), b"{}"))


def check(go: GoEtcd, serving: SameAs, request: Request) -> None:
    ours = asyncio.run(Endpoints(serving).handle(request, Meta()))  # type: ignore[arg-type]
    theirs = ask_go(go, request)
    if request.method == "HEAD":
        ours = (*ours[:2], b"")
    assert comparable(ours) == comparable(theirs)
