"""The lock and election services, beside real etcd's: the same requests to both, waiting ones included."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from gateway_streams import Lines
from gateway_twins import Asked, GatewayTwins
from google.protobuf.message import Message
from servers import Etcd, Server
from twins import CALL_SECONDS, Pool, Twins, mask

from pyetcd.proto.election_pb2 import (
    CampaignRequest,
    CampaignResponse,
    LeaderKey,
    LeaderRequest,
    LeaderResponse,
    ProclaimRequest,
    ProclaimResponse,
    ResignRequest,
    ResignResponse,
)
from pyetcd.proto.lock_pb2 import LockRequest, LockResponse, UnlockRequest, UnlockResponse
from pyetcd.proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    RangeRequest,
    RangeResponse,
)

LOCK, ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"
METHODS: dict[type[Message], tuple[str, type[Message]]] = {
    LockRequest: (LOCK + "Lock", LockResponse),
    UnlockRequest: (LOCK + "Unlock", UnlockResponse),
    CampaignRequest: (ELECTION + "Campaign", CampaignResponse),
    ProclaimRequest: (ELECTION + "Proclaim", ProclaimResponse),
    LeaderRequest: (ELECTION + "Leader", LeaderResponse),
    ResignRequest: (ELECTION + "Resign", ResignResponse),
}
SEQUENCES = 12
LENGTH = 60
WAIT_SECONDS = 15.0

Response = TypeVar("Response", bound=Message)


@pytest.fixture(scope="module")
def pool(goetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    both = Pool(goetcd, tmp_path_factory)
    yield both
    both.close()


@pytest.fixture
def twins(pool: Pool, request: pytest.FixtureRequest) -> Twins:
    return pool.begin(request.node.name)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Etcd]:
    one = Etcd(tmp_path)
    yield one
    one.close()


def ask(twins: Twins, request: Message, response: type[Response]) -> Response | None:
    """The same answer of both; None when the call failed, in the same way."""
    path, answer = METHODS[type(request)]
    assert answer is response
    ours, theirs = twins.exchange(path, request.SerializeToString())
    what = f"{path} {request}"
    twins.same(what, (ours.code, ours.details), (theirs.code, theirs.details))
    if not ours.bodies:
        return None
    found = response.FromString(ours.bodies[0])
    for each in (told := response.FromString(theirs.bodies[0]), found):
        mask(each)
    twins.same(what, found, told)
    return found


def failure(twins: Twins, request: Message) -> str:
    ours = twins.ask_raw(METHODS[type(request)][0], request.SerializeToString())
    assert ours.code is grpc.StatusCode.UNKNOWN
    return ours.details


def begin(server: Server, request: Message, seconds: float = CALL_SECONDS) -> grpc.Future:
    """A call that may wait."""
    path, response = METHODS[type(request)]
    method = server.channel.unary_unary(
        path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    return method.future(request, timeout=seconds)


def keys(server: Server, prefix: bytes) -> list[bytes]:
    request = RangeRequest(key=prefix, range_end=prefix[:-1] + bytes((prefix[-1] + 1,)))
    return [kv.key for kv in server.call("KV/Range", request, RangeResponse).kvs]


def eventually(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)  # there is no event to await: keys are looked at


def grant(twins: Twins, *leases: int, ttl: int = 600) -> None:
    for lease in leases:
        twins.ask(LeaseGrantRequest(ID=lease, TTL=ttl))


@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_requests_that_need_not_wait_are_answered_alike(twins: Twins, seed: int) -> None:
    """Of two names and two leases, one lease for each name, so that nobody stands in line behind another."""
    chance = random.Random(seed)
    grant(twins, 1, 0x2B)
    leases = {b"one": 1, b"two": 0x2B, b"": 1}
    held: list[bytes] = [b"", b"unknown"]
    leaders = [
        LeaderKey(),
        LeaderKey(name=b"one", key=b"none", rev=5, lease=1),
        LeaderKey(key=b"k", lease=77),
    ]
    for _ in range(LENGTH):
        name = chance.choice(list(leases))
        kind = chance.choice(list(METHODS))
        leader, value = chance.choice(leaders), chance.choice([b"", b"a", b"b"])
        if kind is LockRequest:
            locked = ask(twins, LockRequest(name=b"lock " + name, lease=leases[name]), LockResponse)
            assert locked is not None
            held.append(locked.key)
        elif kind is UnlockRequest:
            ask(twins, UnlockRequest(key=chance.choice(held)), UnlockResponse)
        elif kind is CampaignRequest:
            campaign = CampaignRequest(name=name, lease=leases[name], value=value)
            won = ask(twins, campaign, CampaignResponse)
            assert won is not None
            leaders.append(won.leader)
        elif kind is LeaderRequest:
            ask(twins, LeaderRequest(name=name), LeaderResponse)
        elif kind is ProclaimRequest:
            # without a lease each server grants one of its own
            ask(
                twins, ProclaimRequest(leader=leader if leader.lease else None, value=value), ProclaimResponse
            )
        else:
            ask(twins, ResignRequest(leader=leader if leader.lease else None), ResignResponse)


def test_failures_are_told_alike(twins: Twins) -> None:
    assert failure(twins, LockRequest(name=b"l", lease=404)) == "etcdserver: requested lease not found"
    assert failure(twins, CampaignRequest(name=b"e", lease=404)) == "etcdserver: requested lease not found"
    assert failure(twins, UnlockRequest()) == "etcdserver: key is not provided"
    assert failure(twins, ProclaimRequest(value=b"v")) == '"leader" field must be provided'
    assert failure(twins, ResignRequest()) == '"leader" field must be provided'
    assert failure(twins, LeaderRequest(name=b"nobody")) == "election: no leader"
    grant(twins, 1)
    gone = LeaderKey(name=b"e", key=b"e/1", rev=3, lease=1)
    assert failure(twins, ProclaimRequest(leader=gone, value=b"v")) == "election: not leader"
    assert failure(twins, ProclaimRequest(leader=LeaderKey(lease=1))) == "etcdserver: key is not provided"
    twins.ask_raw(LOCK + "Lock", b"\x0a\x09short")
    twins.ask_raw(ELECTION + "Observe", b"\x0a\x09short")
    twins.ask_raw(ELECTION + "Nothing", b"")


def test_who_brings_no_lease_gets_one_of_a_minute(twins: Twins) -> None:
    for server in (twins.ours, twins.theirs):
        locked = begin(server, LockRequest(name=b"l")).result()
        lease = int(locked.key.removeprefix(b"l/"), 16)
        assert lease > 0
        found = server.call("KV/Range", RangeRequest(key=locked.key), RangeResponse)
        assert (found.kvs[0].lease, found.kvs[0].value) == (lease, b"")
        server.call("Lease/LeaseRevoke", LeaseRevokeRequest(ID=lease), LeaseRevokeResponse)
        assert not keys(server, b"l/")


def both(twins: Twins, check: Callable[[Server], object]) -> None:
    """The same of both."""
    ours, theirs = check(twins.ours), check(twins.theirs)
    twins.same(getattr(check, "__name__", ""), ours, theirs)


def without_cluster(response: Message) -> Message:
    mask(response)
    return response


def test_who_waits_for_a_lock_gets_it_in_turn_with_a_growing_token(twins: Twins) -> None:
    grant(twins, 1, 2, 3)

    def in_turn(server: Server) -> list[Message]:
        first = begin(server, LockRequest(name=b"l", lease=1)).result()
        again = begin(server, LockRequest(name=b"l", lease=1)).result()
        second = begin(server, LockRequest(name=b"l", lease=2))
        eventually(lambda: len(keys(server, b"l/")) == 2)
        third = begin(server, LockRequest(name=b"l", lease=3))
        eventually(lambda: len(keys(server, b"l/")) == 3)
        assert not second.done()
        released = begin(server, UnlockRequest(key=first.key)).result()
        got = second.result()
        assert not third.done()
        server.call("Lease/LeaseRevoke", LeaseRevokeRequest(ID=2), LeaseRevokeResponse)
        last = third.result()
        assert first.header.revision < got.header.revision < last.header.revision
        return list(map(without_cluster, (first, again, released, got, last)))

    both(twins, in_turn)


def test_who_gives_up_waiting_leaves_the_line(twins: Twins) -> None:
    grant(twins, 1, 2, 3)

    def giving_up(server: Server) -> Message:
        begin(server, LockRequest(name=b"l", lease=1)).result()
        begin(server, CampaignRequest(name=b"l", lease=1)).result()
        hasty = begin(server, LockRequest(name=b"l", lease=2), seconds=0.5)
        given_up = [grpc.StatusCode.DEADLINE_EXCEEDED]
        if server is twins.theirs:  # which may be the first to see it, and then resets the stream
            given_up.append(grpc.StatusCode.CANCELLED)
        assert hasty.code() in given_up
        eventually(lambda: keys(server, b"l/") == [b"l/1"])
        canceled = begin(server, CampaignRequest(name=b"l", lease=3, value=b"v"))
        eventually(lambda: len(keys(server, b"l/")) == 2)
        canceled.cancel()
        eventually(lambda: keys(server, b"l/") == [b"l/1"])
        return without_cluster(begin(server, UnlockRequest(key=b"l/1")).result())

    both(twins, giving_up)


def test_a_lease_that_ends_in_the_line_ends_the_waiting_at_its_turn(twins: Twins) -> None:
    grant(twins, 1, 2)

    def expired(server: Server) -> tuple[grpc.StatusCode, str]:
        begin(server, LockRequest(name=b"l", lease=1)).result()
        waiting = begin(server, LockRequest(name=b"l", lease=2))
        eventually(lambda: len(keys(server, b"l/")) == 2)
        server.call("Lease/LeaseRevoke", LeaseRevokeRequest(ID=2), LeaseRevokeResponse)
        assert not waiting.done()
        begin(server, UnlockRequest(key=b"l/1")).result()
        return waiting.code(), waiting.details()

    both(twins, expired)
    assert twins.ours.call("KV/Range", RangeRequest(key=b"l/1"), RangeResponse).count == 0


def test_an_election_goes_to_the_next_in_line_with_its_value(twins: Twins) -> None:
    grant(twins, 1, 2)

    def election(server: Server) -> list[Message]:
        won = begin(server, CampaignRequest(name=b"e", lease=1, value=b"one")).result()
        changed = begin(server, CampaignRequest(name=b"e", lease=1, value=b"uno")).result()
        waiting = begin(server, CampaignRequest(name=b"e", lease=2, value=b"two"))
        eventually(lambda: len(keys(server, b"e/")) == 2)
        leader = begin(server, LeaderRequest(name=b"e")).result()
        resigned = begin(server, ResignRequest(leader=won.leader)).result()
        told = [won, changed, leader, resigned, waiting.result()]
        told.append(begin(server, LeaderRequest(name=b"e")).result())
        return list(map(without_cluster, told))

    both(twins, election)


def test_observers_are_told_of_every_leader_and_what_it_proclaims(twins: Twins) -> None:
    grant(twins, 1, 2)

    def observed(server: Server) -> list[tuple[bytes, bytes, int]]:
        method = server.channel.unary_stream(
            ELECTION + "Observe",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=LeaderResponse.FromString,
        )
        call = method(LeaderRequest(name=b"e"), timeout=CALL_SECONDS)
        time.sleep(0.3)  # so that it is there before anybody leads; it need not be
        won = begin(server, CampaignRequest(name=b"e", lease=1, value=b"one")).result()
        told = [next(call)]
        begin(server, ProclaimRequest(leader=won.leader, value=b"uno")).result()
        told.append(next(call))
        waiting = begin(server, CampaignRequest(name=b"e", lease=2, value=b"two"))
        eventually(lambda: len(keys(server, b"e/")) == 2)
        server.call("Lease/LeaseRevoke", LeaseRevokeRequest(ID=1), LeaseRevokeResponse)
        waiting.result()
        told.append(next(call))
        call.cancel()
        assert all(each.header.revision >= each.kv.mod_revision for each in told)
        return [(each.kv.key, each.kv.value, each.kv.mod_revision) for each in told]

    both(twins, observed)


def test_the_gateway_serves_them(twins: Twins) -> None:
    grant(twins, 1)
    gateways = GatewayTwins(twins.theirs, twins.ours)

    def post(path: str, **body: object) -> Asked:
        return Asked(path, json.dumps(body).encode())

    key = "bC8x"  # l/1
    assert gateways.same(post("/v3/lock/lock", name="bA==", lease="1")).status == 200
    assert gateways.same(post("/v3/lock/unlock", key=key)).status == 200
    assert gateways.same(post("/v3/lock/lock", name="bA==", lease="404")).status == 500
    assert gateways.same(post("/v3/election/leader", name="ZQ==")).status == 500
    won = gateways.same(post("/v3/election/campaign", name="ZQ==", lease=1, value="dg=="))
    leader = json.loads(won.body)["leader"]
    assert gateways.same(post("/v3/election/proclaim", leader=leader, value="dw==")).status == 200
    assert gateways.same(post("/v3/election/leader", name="ZQ==")).status == 200
    with Lines(twins.ours, "/v3/election/observe", b'{"name":"ZQ=="}') as lines:
        line = lines.next()
        assert line is not None
        assert line["result"]["kv"]["value"] == "dw=="
    assert gateways.same(post("/v3/election/resign", leader=leader)).status == 200
    assert gateways.same(post("/v3/election/resign")).status == 500


def test_three_hundred_who_wait_get_the_lock_one_after_another(server: Etcd) -> None:
    """Each is woken by the one before it and nobody else."""
    count = 300
    first = begin(server, LockRequest(name=b"l")).result()
    waiting = [begin(server, LockRequest(name=b"l")) for _ in range(count)]
    eventually(lambda: len(keys(server, b"l/")) == count + 1)
    begin(server, UnlockRequest(key=first.key)).result()
    order = []
    for _ in range(count):
        eventually(lambda: any(each.done() for each in waiting))
        done = next(each for each in waiting if each.done())
        waiting.remove(done)
        order.append(done.result().header.revision)
        assert sum(each.done() for each in waiting) == 0, "one at a time"
        begin(server, UnlockRequest(key=done.result().key)).result()
    assert order == sorted(order)
