"""A Kubernetes cluster's load: many API servers, each with watch caches, that write, list and compact. No
cache may be stale, and none may lose, repeat or reorder an event."""

from __future__ import annotations

import random
import threading
from contextlib import ExitStack

import grpc
import pytest
from api_server import COMPACT_KEY, Requests, WatchCaches, end_of
from cluster import Cluster
from cluster_leases import grant
from conftest import SEED, Start, kinds_of
from rpc import Client

from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.rpc_pb2 import (
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    RangeRequest,
    RangeResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

RESOURCES = (b"/registry/pods/", b"/registry/leases/", b"/registry/events/")
SERVERS = 4  # API servers at each member
WRITERS = 6
WRITES = 150  # of each writer
NAMES = 40  # of each resource, so that writers meet
DROPPED = "raft proposal dropped"  # what etcd says, of code Unknown, while leadership is handed over
COMPACTED = "etcdserver: mvcc: required revision has been compacted"


class Writer:
    """Creates, updates and deletes objects at random, as many do at the same time."""

    def __init__(self, client: Client, seed: int) -> None:
        self._requests = Requests(client)
        self._random = random.Random(seed)
        self._seed = seed
        self._lease = 0
        self.written = self.refused = 0
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while self.written < WRITES:
                self._write()
            self._expire()
        except BaseException as error:
            self.error = error

    def _write(self) -> None:
        resource = self._random.choice(RESOURCES)
        key = resource + b"default/object-%02d" % self._random.randrange(NAMES)
        held: KeyValue | None = KeyValue()
        while held is not None:  # as the API server: what the refusal has told is tried again
            try:
                done, held = self._attempt(key, held)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE and error.details() != DROPPED:
                    raise
                return  # the leader has changed; nobody knows, and nobody needs to
            if done:
                self.written += 1
                return
            self.refused += 1
        if self._random.random() < 0.02:
            self._expire()

    def _attempt(self, key: bytes, held: KeyValue) -> tuple[bool, KeyValue | None]:
        if held.mod_revision and self._random.random() < 0.3:
            return self._requests.delete(key, held.mod_revision)
        value = self._random.randbytes(self._random.choice((10, 200, 3000)))
        lease = self._leased() if key.startswith(RESOURCES[2]) else 0
        return self._requests.put(key, value, held.mod_revision, lease)

    def _leased(self) -> int:
        """Events have a lease, one for many of them."""
        if not self._lease:
            self._lease = grant(self._requests.client, 600)
        return self._lease

    def _expire(self) -> None:
        """A lease ends: many objects go in one revision."""
        if self._lease:
            revoke = LeaseRevokeRequest(ID=self._lease)
            self._lease = 0
            self._requests.client.ask("Lease/LeaseRevoke", revoke, LeaseRevokeResponse)


class Cycle:
    """The cluster, its API servers, and what is looked at again and again while others write."""

    def __init__(self, cluster: Cluster, servers: list[WatchCaches]) -> None:
        self.cluster = cluster
        self.servers = servers
        self.compared = 0
        self.turns = [0] * len(cluster.members)
        self.compacted = 0

    def look(self) -> int:
        """Each server is made fresh, and all that was vouched for is compared with the lists of another
        member; returns the revision up to which all have been compared."""
        lowest = 0
        for place, server in enumerate(self.servers):
            now = server.requests.current(RESOURCES[place % len(RESOURCES)])
            server.wait_fresh(now)
            lister = Requests(self.cluster.members[(place + 1) % len(self.cluster.members)].client)
            for cache, at, items in server.take_proven():
                if at < self.compacted:
                    continue  # vouched for again by the watch that it was compared for before
                _, listed = lister.list(cache.prefix, at)
                assert items == listed, f"{cache.prefix!r} at {at} differs from the list"
                self.compared += 1
            lowest = min(lowest or now, now)
        return lowest

    def compact(self, revision: int) -> None:
        """All members' compactors at once; one of them wins."""
        clients = [member.client for member in self.cluster.members]
        won: list[int] = []

        def attempt(place: int) -> None:
            done, self.turns[place] = Requests(clients[place]).compact(self.turns[place], revision)
            if done:
                won.append(place)

        threads = [threading.Thread(target=attempt, args=(place,)) for place in range(len(clients))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1, f"{won} compacted at {revision}"
        assert len(set(self.turns)) == 1, self.turns
        self.compacted = revision


def refusal(client: Client, prefix: bytes, revision: int) -> str:
    request = RangeRequest(key=prefix, range_end=end_of(prefix), limit=1, revision=revision)
    with pytest.raises(grpc.RpcError) as refused:
        client.ask("KV/Range", request, RangeResponse)
    assert refused.value.code() == grpc.StatusCode.OUT_OF_RANGE
    return str(refused.value.details())


def first_end(client: Client, prefix: bytes, revision: int) -> WatchResponse:
    """How a watch from a revision that is gone ends."""
    create = WatchCreateRequest(key=prefix, range_end=end_of(prefix), start_revision=revision)
    asked = threading.Event()

    def requests():  # type: ignore[no-untyped-def]
        yield WatchRequest(create_request=create)
        asked.wait(20)

    call = client.stream("Watch/Watch", requests(), WatchResponse, seconds=20)
    try:
        return next(answer for answer in call if answer.canceled)
    finally:
        asked.set()
        call.cancel()


@pytest.mark.parametrize("size", [1, 3])
def test_no_watch_cache_of_an_api_server_is_stale_or_misses_an_event(
    start: Start, mixture: str, size: int
) -> None:
    cluster = start(kinds_of(mixture, size), size, watch_progress_notify_interval="300ms")
    with ExitStack() as stack:
        servers = [
            stack.enter_context(WatchCaches(member.client, RESOURCES, notified=number % 2 == 0))
            for member in cluster.members
            for number in range(SERVERS)
        ]
        cycle = Cycle(cluster, servers)
        writers = [
            Writer(cluster.members[number % size].client, SEED * 100 + number) for number in range(WRITERS)
        ]
        for writer in writers:
            writer.thread.start()
        rounds = 0
        while any(writer.thread.is_alive() for writer in writers):
            cycle.compact(cycle.look())
            rounds += 1
            if size > 1 and rounds % 3 == 1:
                cluster.move_leader(cluster.follower())
            late = WatchCaches(cluster.members[rounds % size].client, RESOURCES, notified=rounds % 2 == 0)
            servers.append(stack.enter_context(late))  # one that lists and watches in the midst of it
        for writer in writers:
            writer.thread.join()
            if writer.error is not None:
                raise writer.error
        final = cycle.look()
        for server in servers[: size * SERVERS : SERVERS]:  # one of each member that is notified
            server.wait_told()
        cycle.look()
        told = {cache.prefix: cache.items for cache in servers[0].caches}
        for server in servers:
            assert {cache.prefix: cache.items for cache in server.caches} == told
    for member in cluster.members:
        for prefix in RESOURCES:
            assert refusal(member.client, prefix, cycle.compacted - 1) == COMPACTED
            ended = first_end(member.client, prefix, cycle.compacted - 1)
            assert ended.compact_revision == cycle.compacted
            assert Requests(member.client).list(prefix, final)[1] == told[prefix]
        assert member.client.get(COMPACT_KEY) == b"%d" % cycle.compacted
    assert cycle.compared > len(servers) * len(RESOURCES)
    assert sum(writer.refused for writer in writers) > WRITERS, "guards were met"
    assert min(cache.events for cache in servers[0].caches) > WRITES / 2
