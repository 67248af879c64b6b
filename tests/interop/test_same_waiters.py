"""Whoever waits for a lock or an election: the same callers of real etcd and pyetcd at the same time, the
same answers, and the same keys left behind when they go away, lose their connection or their lease.

`test_same_locks` has those who need not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from servers import CHANNEL_OPTIONS, Etcd, GoEtcd, Server
from twins import Metadata, mask

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
from pyetcd.proto.kv_pb2 import Event
from pyetcd.proto.lock_pb2 import LockRequest, LockResponse, UnlockRequest, UnlockResponse
from pyetcd.proto.rpc_pb2 import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    RangeRequest,
    RangeResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

SECONDS = 20
PATHS: dict[type[Message], tuple[str, type[Message]]] = {
    LockRequest: ("/v3lockpb.Lock/Lock", LockResponse),
    UnlockRequest: ("/v3lockpb.Lock/Unlock", UnlockResponse),
    CampaignRequest: ("/v3electionpb.Election/Campaign", CampaignResponse),
    ProclaimRequest: ("/v3electionpb.Election/Proclaim", ProclaimResponse),
    LeaderRequest: ("/v3electionpb.Election/Leader", LeaderResponse),
    ResignRequest: ("/v3electionpb.Election/Resign", ResignResponse),
    RangeRequest: ("/etcdserverpb.KV/Range", RangeResponse),
    DeleteRangeRequest: ("/etcdserverpb.KV/DeleteRange", DeleteRangeResponse),
    LeaseGrantRequest: ("/etcdserverpb.Lease/LeaseGrant", LeaseGrantResponse),
    LeaseRevokeRequest: ("/etcdserverpb.Lease/LeaseRevoke", LeaseRevokeResponse),
    LeaseLeasesRequest: ("/etcdserverpb.Lease/LeaseLeases", LeaseLeasesResponse),
    LeaseTimeToLiveRequest: ("/etcdserverpb.Lease/LeaseTimeToLive", LeaseTimeToLiveResponse),
}
Answer = Message | tuple[str, str]
Result = TypeVar("Result")


class Client:
    """A client of one server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        now = self.ask(RangeRequest(key=b"a"))
        assert isinstance(now, RangeResponse)
        self._since = now.header.revision

    def begin(self, request: Message, seconds: float = SECONDS, metadata: Metadata = ()) -> grpc.Future:
        path, response = PATHS[type(request)]
        method = self.server.channel.unary_unary(path, response_deserializer=response.FromString)
        return method.future(request.SerializeToString(), timeout=seconds, metadata=metadata)

    def end(self, call: grpc.Future) -> Answer:
        """What came of it, comparable."""
        try:
            response: Message = call.result(SECONDS)
        except grpc.RpcError as error:
            return error.code().name, error.details()
        mask(response)
        return response

    def ask(self, request: Message, metadata: Metadata = ()) -> Answer:
        return self.end(self.begin(request, metadata=metadata))

    def grant(self, *leases: int) -> None:
        for lease in leases:
            self.ask(LeaseGrantRequest(ID=lease, TTL=1000))

    def until(self, key: bytes, has_happened: Callable[[Event], bool]) -> int:
        """Wait until there has been such an event of a key, since this client was made; returns the
        revision."""
        create = WatchCreateRequest(key=key, start_revision=self._since + 1)
        watch = self.server.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=WatchRequest.SerializeToString,
            response_deserializer=WatchResponse.FromString,
        )(iter([WatchRequest(create_request=create)]), timeout=SECONDS)
        for response in watch:
            for event in response.events:
                if has_happened(event):
                    watch.cancel()
                    return event.kv.mod_revision
        raise AssertionError("the stream has ended before")

    def until_put(self, key: bytes) -> int:
        return self.until(key, lambda event: event.type == Event.PUT)

    def until_deleted(self, key: bytes) -> int:
        return self.until(key, lambda event: event.type == Event.DELETE)

    def keys(self, name: str = "") -> list[bytes]:
        start = name.encode() or b"\0"
        end = start[:-1] + bytes([start[-1] + 1]) if name else b"\0"
        found = self.ask(RangeRequest(key=start, range_end=end))
        assert isinstance(found, RangeResponse)
        return [kv.key for kv in found.kvs]


class Both:
    """Real etcd and pyetcd; what is done to one is done to the other, at the same time."""

    def __init__(self, goetcd: Path, factory: pytest.TempPathFactory) -> None:
        self.servers = (Etcd(factory.mktemp("ours")), GoEtcd(goetcd, factory.mktemp("go")))
        self._pool = ThreadPoolExecutor(2)

    def same(self, what: Callable[[Client], Result]) -> Result:
        """Do it to both, compare what came of it."""
        ours, theirs = self._pool.map(what, [Client(server) for server in self.servers])
        assert ours == theirs, f"ours:\n{ours}\nreal etcd:\n{theirs}"
        return ours

    def clear(self) -> None:
        """No keys, no leases."""

        def clear(client: Client) -> None:
            client.ask(DeleteRangeRequest(key=b"\0", range_end=b"\0"))
            leases = client.ask(LeaseLeasesRequest())
            assert isinstance(leases, LeaseLeasesResponse)
            for lease in leases.leases:
                client.ask(LeaseRevokeRequest(ID=lease.ID))

        self.same(clear)

    def close(self) -> None:
        self._pool.shutdown()
        for server in self.servers:
            server.close()


@pytest.fixture(scope="module")
def servers(goetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    both = Both(goetcd, tmp_path_factory)
    yield both
    both.close()


@pytest.fixture
def both(servers: Both) -> Both:
    servers.clear()
    return servers


def leader_key(rev: int, lease: int = 7, key: bytes = b"e/7") -> LeaderKey:
    return LeaderKey(name=b"e", key=key, rev=rev, lease=lease)


def test_requests_that_need_not_wait_get_the_same_answers(both: Both) -> None:
    def requests(client: Client) -> list[Answer]:
        client.grant(7, 8)
        answers = [
            client.ask(request)
            for request in (
                LockRequest(name=b"a", lease=9),
                LockRequest(name=b"a", lease=-9),
                LockRequest(name=b"a", lease=7),
                LockRequest(name=b"a", lease=7),
                LockRequest(name=b"a/", lease=7),
                LockRequest(name=b"", lease=7),
                LockRequest(name=b"\xff\xff\0", lease=7),
                UnlockRequest(key=b"a/7"),
                UnlockRequest(key=b"a/7"),
                UnlockRequest(key=b"none"),
                UnlockRequest(),
                LeaderRequest(name=b"e"),
                LeaderRequest(),
                ProclaimRequest(value=b"v"),
                ProclaimRequest(value=b"v", leader=LeaderKey()),
                ResignRequest(),
                ResignRequest(leader=LeaderKey()),
                ResignRequest(leader=leader_key(5)),
                CampaignRequest(name=b"e", lease=9, value=b"v"),
                CampaignRequest(name=b"e", lease=7, value=b"v"),
                CampaignRequest(name=b"e", lease=7, value=b"v"),
                CampaignRequest(name=b"e", lease=7, value=b"w"),
                CampaignRequest(name=b"f", lease=7),
                CampaignRequest(lease=7, value=b"x" * 2_000_000),
                LeaderRequest(name=b"e"),
                ProclaimRequest(value=b"x", leader=leader_key(1)),
            )
        ]
        found = client.ask(RangeRequest(key=b"e/7"))
        assert isinstance(found, RangeResponse)
        leader = leader_key(found.kvs[0].create_revision)
        answers += [
            client.ask(request)
            for request in (
                ProclaimRequest(value=b"x", leader=leader_key(leader.rev, lease=9)),
                ProclaimRequest(value=b"x", leader=leader_key(leader.rev, lease=8)),
                ProclaimRequest(value=b"x", leader=leader_key(leader.rev, key=b"e/8")),
                ProclaimRequest(value=b"y" * 2_000_000, leader=leader),
                ProclaimRequest(value=b"y", leader=leader),
                ResignRequest(leader=leader_key(1)),
                ResignRequest(leader=leader_key(leader.rev, lease=9)),
                ResignRequest(leader=leader),
                ResignRequest(leader=leader),
                ProclaimRequest(value=b"y", leader=leader),
                LeaderRequest(name=b"e"),
                RangeRequest(key=b"\0", range_end=b"\0"),
            )
        ]
        return answers

    answers = both.same(requests)
    assert ("UNKNOWN", "etcdserver: requested lease not found") in answers
    assert ("UNKNOWN", "election: not leader") in answers
    assert sum(isinstance(answer, tuple) for answer in answers) >= 10, "errors were compared too"


def test_bytes_that_are_no_request_get_the_same_answers(both: Both) -> None:
    def send(client: Client) -> list[tuple[str, str]]:
        said = []
        for path in sorted(path for path, _ in PATHS.values() if path.startswith("/v3")):
            for payload in (b"\xff", b"\x0a\x05a", b"\x0a\x01\xff\x7a\x05"):
                try:
                    client.server.channel.unary_unary(path)(payload, timeout=SECONDS)
                except grpc.RpcError as error:
                    said.append((path, f"{error.code()} {error.details()}".replace("\xa0", " ")))
        return said

    assert both.same(send)


def test_whoever_has_no_lease_is_given_one_of_a_minute(both: Both) -> None:
    def lock(client: Client) -> tuple[int, bool, int]:
        answers = [
            client.ask(request)
            for request in (
                LockRequest(name=b"a"),
                CampaignRequest(name=b"e", value=b"v"),
                ResignRequest(leader=LeaderKey(key=b"e/7", rev=5)),
            )
        ]
        locked, won, _ = answers
        assert isinstance(locked, LockResponse)
        assert isinstance(won, CampaignResponse)
        lease = int(locked.key.removeprefix(b"a/"), 16)
        told = client.ask(LeaseTimeToLiveRequest(ID=lease, keys=True))
        assert isinstance(told, LeaseTimeToLiveResponse)
        assert list(told.keys) == [locked.key]
        leases = client.ask(LeaseLeasesRequest())
        assert isinstance(leases, LeaseLeasesResponse)
        return told.grantedTTL, won.leader.key == b"e/%x" % won.leader.lease, len(leases.leases)

    assert both.same(lock) == (60, True, 3)


def test_locks_go_to_those_who_wait_in_the_order_in_which_they_came(both: Both) -> None:
    def take_turns(client: Client) -> list[Answer]:
        leases = range(10, 20)
        client.grant(*leases)
        calls = []
        for lease in leases:
            calls.append(client.begin(LockRequest(name=b"a", lease=lease)))
            client.until_put(b"a/%x" % lease)
        answers = []
        for at, call in enumerate(calls):
            answer = client.end(call)
            assert isinstance(answer, LockResponse)
            assert not any(later.done() for later in calls[at + 1 :])
            answers += [answer, client.ask(UnlockRequest(key=answer.key))]
        return answers

    both.same(take_turns)


@pytest.mark.parametrize("how", ["cancel", "deadline", "disconnect"])
@pytest.mark.parametrize("request_type", [LockRequest, CampaignRequest])
def test_whoever_stops_waiting_leaves_no_key(
    both: Both, how: str, request_type: type[LockRequest] | type[CampaignRequest]
) -> None:
    def stop_waiting(client: Client) -> tuple[list[bytes], Answer, int]:
        client.grant(1, 2, 3)
        client.ask(request_type(name=b"a", lease=1))
        other = grpc.insecure_channel(f"127.0.0.1:{client.server.port}", CHANNEL_OPTIONS)
        path, _ = PATHS[request_type]
        waiting = other.unary_unary(path).future(
            request_type(name=b"a", lease=2).SerializeToString(), timeout=3 if how == "deadline" else SECONDS
        )
        client.until_put(b"a/2")
        last = client.begin(request_type(name=b"a", lease=3))
        client.until_put(b"a/3")
        if how == "cancel":
            waiting.cancel()
        elif how == "disconnect":
            other.close()
        revision = client.until_deleted(b"a/2")
        other.close()
        keys = client.keys("a/")
        assert not last.done()
        client.ask(UnlockRequest(key=b"a/1"))
        return keys, client.end(last), revision

    keys, answer, _ = both.same(stop_waiting)
    assert keys == [b"a/1", b"a/3"]
    assert not isinstance(answer, tuple)


def test_a_lock_is_not_given_to_whose_lease_has_ended_in_the_meantime(both: Both) -> None:
    def outlive(client: Client) -> list[Answer]:
        client.grant(1, 2, 3)
        client.ask(LockRequest(name=b"a", lease=1))
        first = client.begin(LockRequest(name=b"a", lease=2))
        client.until_put(b"a/2")
        second = client.begin(LockRequest(name=b"a", lease=3))
        client.until_put(b"a/3")
        client.ask(LeaseRevokeRequest(ID=2))
        assert not first.done()
        assert not second.done()
        client.ask(UnlockRequest(key=b"a/1"))
        return [client.end(first), client.end(second), client.ask(RangeRequest(key=b"a/", range_end=b"a0"))]

    answers = both.same(outlive)
    assert answers[0] == ("UNKNOWN", "mutex: session is expired")
    assert isinstance(answers[1], LockResponse)


def test_a_lease_that_runs_out_frees_what_it_held(both: Both) -> None:
    def run_out(client: Client) -> list[Answer]:
        client.ask(LeaseGrantRequest(ID=1, TTL=2))
        client.grant(2)
        client.ask(LockRequest(name=b"a", lease=1))
        client.ask(CampaignRequest(name=b"e", lease=1, value=b"v"))
        calls = [client.begin(kind(name=name, lease=2)) for kind, name in ((LockRequest, b"a"),)]
        client.until_put(b"a/2")
        calls.append(client.begin(CampaignRequest(name=b"e", lease=2)))
        return [client.end(call) for call in calls]

    locked, won = both.same(run_out)
    assert isinstance(locked, LockResponse)
    assert isinstance(won, CampaignResponse)


def test_an_election_is_won_by_who_waited_even_without_a_lease_by_then(both: Both) -> None:
    def outlive(client: Client) -> list[Answer]:
        client.grant(1, 2)
        client.ask(CampaignRequest(name=b"e", lease=1, value=b"one"))
        waiting = client.begin(CampaignRequest(name=b"e", lease=2, value=b"two"))
        client.until_put(b"e/2")
        client.ask(LeaseRevokeRequest(ID=2))
        client.ask(LeaseRevokeRequest(ID=1))
        return [client.end(waiting), client.ask(LeaderRequest(name=b"e"))]

    both.same(outlive)


def test_who_waits_twice_with_one_lease_has_one_place(both: Both) -> None:
    def wait_twice(client: Client) -> list[Answer]:
        client.grant(1, 2)
        client.ask(CampaignRequest(name=b"e", lease=1, value=b"one"))
        first = client.begin(CampaignRequest(name=b"e", lease=2, value=b"two"))
        client.until_put(b"e/2")
        second = client.begin(CampaignRequest(name=b"e", lease=2, value=b"2"))
        client.until(b"e/2", lambda event: event.kv.value == b"2")
        client.ask(LeaseRevokeRequest(ID=1))
        return [client.end(first), client.end(second), client.ask(LeaderRequest(name=b"e"))]

    both.same(wait_twice)


def observe(client: Client, name: bytes, metadata: Metadata = ()) -> Iterator[LeaderResponse]:
    stream: Iterator[LeaderResponse] = client.server.channel.unary_stream(
        "/v3electionpb.Election/Observe", response_deserializer=LeaderResponse.FromString
    )(LeaderRequest(name=name).SerializeToString(), timeout=SECONDS, metadata=metadata)
    return stream


def test_an_observer_hears_of_every_leader_and_proclamation(both: Both) -> None:
    def watch_leaders(client: Client) -> list[Answer]:
        client.grant(1, 2)
        stream = observe(client, b"e")
        said: list[Answer] = []

        def hear() -> None:
            response = next(stream)
            mask(response)
            said.append(response)

        won = client.ask(CampaignRequest(name=b"e", lease=1, value=b"one"))
        assert isinstance(won, CampaignResponse)
        hear()
        client.ask(ProclaimRequest(leader=won.leader, value=b"eins"))
        hear()
        late = observe(client, b"e")
        first = next(late)
        mask(first)
        said.append(first)
        waiting = client.begin(CampaignRequest(name=b"e", lease=2, value=b"two"))
        client.until_put(b"e/2")
        client.ask(ResignRequest(leader=won.leader))
        hear()
        answer = client.end(waiting)
        assert isinstance(answer, CampaignResponse)
        client.ask(LeaseRevokeRequest(ID=2))
        client.grant(3)
        client.ask(CampaignRequest(name=b"e", lease=3, value=b"three"))
        hear()
        for each in (stream, late):
            each.cancel()  # type: ignore[attr-defined]
        return [*said, answer]

    said = both.same(watch_leaders)
    assert [each.kv.value for each in said[:-1] if isinstance(each, LeaderResponse)] == [
        b"one",
        b"eins",
        b"eins",
        b"two",
        b"three",
    ]


def test_an_observer_of_a_name_without_candidates_hears_nothing(both: Both) -> None:
    def wait(client: Client) -> tuple[str, str]:
        stream = client.server.channel.unary_stream("/v3electionpb.Election/Observe")(
            LeaderRequest(name=b"none").SerializeToString(), timeout=1
        )
        assert not list(_until_error(stream))
        return stream.code().name, ""

    assert both.same(wait) == ("DEADLINE_EXCEEDED", "")


def _until_error(stream: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from stream
    except grpc.RpcError:
        return


def test_a_member_with_waiting_callers_stops_and_starts(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path)
    client = Client(etcd)
    client.grant(1, 2)
    client.ask(LockRequest(name=b"a", lease=1))
    waiting = client.begin(LockRequest(name=b"a", lease=2))
    watching = observe(client, b"none")
    client.until_put(b"a/2")
    try:
        etcd.stop()
        assert isinstance(client.end(waiting), tuple)
        assert not list(_until_error(watching))  # type: ignore[arg-type]
        etcd.start()
        assert b"a/1" in Client(etcd).keys("a/")
        assert isinstance(Client(etcd).ask(LockRequest(name=b"a", lease=1)), LockResponse)
    finally:
        etcd.close()
