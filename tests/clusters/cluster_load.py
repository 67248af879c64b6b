"""Several clients at once against a cluster, a watcher on every member, and the check of all they were told.

Clients ask any member, those that are down included, a handful of keys, so that they meet each other all the
time. What they cannot know the outcome of is recorded as unknown and stays so. The keys are the load's own.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import grpc
from cluster import SETTLE_SECONDS, Cluster, until
from google.protobuf.message import Message
from history import Changes, KeyState, Kind, Operation, Outcome, check, merge
from members import Member

from pyetcd.proto.kv_pb2 import Event, KeyValue
from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

CLIENTS = 5
KEYS = 4
CALL_SECONDS = 1.0  # a frozen member holds a client up for so long
PAUSE_SECONDS = 0.01
END = {b"load/": b"load0"}
KINDS = (
    (Kind.PUT, 30),
    (Kind.SWAP, 30),
    (Kind.READ, 25),
    (Kind.DELETE, 8),
    (Kind.READ_ALL, 4),
    (Kind.STALE_READ, 3),
)
NEVER_SENT = "failed to connect to all addresses"


@dataclass(frozen=True, slots=True)
class Report:
    """What a load came to."""

    outcomes: Counter[Outcome]
    writes: int  # acknowledged
    longest_pause: float  # seconds between two acknowledged writes
    revisions: int

    def __str__(self) -> str:
        counts = ", ".join(f"{self.outcomes[outcome]} {outcome.value}" for outcome in Outcome)
        return f"{counts}; {self.writes} writes, longest pause {self.longest_pause:.2f} s"


class Load:
    """Runs from `with` to the end of it, where everything is checked. `report` stands then."""

    prefix = b"load/"

    def __init__(
        self, cluster: Cluster, *, clients: int = CLIENTS, seed: int = 1, watching: bool = True
    ) -> None:
        """Without `watching` the watchers start when the clients have ended, and look back."""
        self._cluster = cluster
        self._watching = watching
        self._stopping = threading.Event()
        self._first = cluster.leader().client.range(self.prefix).header.revision
        self._watchers: dict[str, Watcher] = {}
        self._workers = [Worker(cluster, self._stopping, seed * 1000 + at) for at in range(clients)]
        self.report: Report | None = None

    def __enter__(self) -> Load:
        if self._watching:
            self.watch_new_members()
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping.set()
        for worker in self._workers:
            worker.join(10 * CALL_SECONDS)
        try:
            if kind is None:
                self._check()
        finally:
            for watcher in self._watchers.values():
                watcher.stop()

    def watch_new_members(self) -> None:
        """A watcher on every member that has none, from the load's beginning."""
        for member in self._cluster.members:
            if member.name not in self._watchers:
                self._watchers[member.name] = Watcher(member, self._first)
                self._watchers[member.name].start()

    def wait_writes(self, count: int = 30, seconds: float = SETTLE_SECONDS) -> None:
        """Until so many more writes have been acknowledged: the cluster serves."""
        goal = self._writes() + count
        until(lambda: self._writes() >= goal, f"{count} more writes ({self.outcomes()})", seconds)

    def pause(self, seconds: float) -> None:
        """Let the clients go on for a while."""
        self._stopping.wait(seconds)

    def outcomes(self) -> Counter[Outcome]:
        return Counter(o.outcome for worker in self._workers for o in list(worker.done))

    def _writes(self) -> int:
        return sum(worker.writes for worker in self._workers)

    def _check(self) -> None:
        for worker in self._workers:
            assert not worker.is_alive(), "a client hangs"
            if worker.failure is not None:
                raise worker.failure
        last = self._cluster.leader().client.range(self.prefix).header.revision
        self.watch_new_members()
        alive = {member.name for member in self._cluster.answering}
        complete = [watcher for name, watcher in self._watchers.items() if name in alive]
        missing = {name: watcher for name, watcher in self._watchers.items() if name not in alive}
        try:
            until(lambda: all(w.last >= last for w in complete), f"revision {last} at all watchers")
        finally:
            for watcher in self._watchers.values():
                watcher.stop()
        log = merge(
            self._first,
            last,
            {watcher.member.name: watcher.seen for watcher in complete},
            {name: watcher.seen for name, watcher in missing.items()},
        )
        operations = [operation for worker in self._workers for operation in worker.done]
        check(log, operations, self.prefix)
        times = sorted(o.returned for o in operations if o.outcome is Outcome.OK and o.changed)
        pauses = [later - earlier for earlier, later in pairwise(times)]
        self.report = Report(self.outcomes(), len(times), max(pauses, default=0.0), last - self._first)


class Worker(threading.Thread):
    """One client: one request under way at a time, at any member."""

    def __init__(self, cluster: Cluster, stopping: threading.Event, seed: int) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._stopping = stopping
        self._random = random.Random(seed)
        self._seed = seed
        self._known: dict[bytes, int] = {}  # key → the revision it was last modified at, as far as we know
        self.done: list[Operation] = []
        self.writes = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.wait(PAUSE_SECONDS * self._random.random()):
                self._once()
        except BaseException as failure:
            self.failure = failure

    def _once(self) -> None:
        kinds, weights = zip(*KINDS, strict=True)
        [kind] = self._random.choices(kinds, weights)
        member = self._random.choice(self._cluster.members)
        key = Load.prefix + (b"" if kind is Kind.READ_ALL else b"%d" % self._random.randrange(KEYS))
        operation = Operation(kind, key, time.monotonic(), asked=member.name)
        if kind in (Kind.PUT, Kind.SWAP):
            operation.value = b"%d-%d" % (self._seed, len(self.done))
            operation.expected = self._known.get(key, 0)
        self.done.append(operation)
        try:
            ASK[kind](member, operation)
        except grpc.RpcError as error:
            operation.error = f"{error.code().name}: {error.details()}"
            if operation.error.startswith(f"UNAVAILABLE: {NEVER_SENT}"):
                operation.returned = time.monotonic()
                operation.outcome = Outcome.FAILED
            return
        operation.returned = time.monotonic()
        operation.outcome = Outcome.OK
        if operation.changed:
            self._known[key] = 0 if kind is Kind.DELETE else operation.revision
            self.writes += 1
        elif kind is not Kind.READ_ALL:
            self._known[key] = operation.found[0].modified if operation.found else 0


def _states(kvs: object) -> tuple[KeyState, ...]:
    return tuple(
        KeyState(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version)
        for kv in kvs  # type: ignore[attr-defined]
    )


def _put(member: Member, operation: Operation) -> None:
    request = PutRequest(key=operation.key, value=operation.value)
    answer = member.client.ask("KV/Put", request, PutResponse, CALL_SECONDS, wait=False)
    operation.revision, operation.changed = answer.header.revision, True


def _delete(member: Member, operation: Operation) -> None:
    request = DeleteRangeRequest(key=operation.key)
    answer = member.client.ask("KV/DeleteRange", request, DeleteRangeResponse, CALL_SECONDS, wait=False)
    operation.revision, operation.changed = answer.header.revision, bool(answer.deleted)


def _swap(member: Member, operation: Operation) -> None:
    key = operation.key
    guard = Compare(key=key, target=Compare.MOD, result=Compare.EQUAL, mod_revision=operation.expected)
    put = RequestOp(request_put=PutRequest(key=key, value=operation.value))
    read = RequestOp(request_range=RangeRequest(key=key))
    request = TxnRequest(compare=[guard], success=[put], failure=[read])
    answer = member.client.ask("KV/Txn", request, TxnResponse, CALL_SECONDS, wait=False)
    operation.revision, operation.changed = answer.header.revision, answer.succeeded
    if not answer.succeeded:
        operation.found = _states(answer.responses[0].response_range.kvs)


def _read(member: Member, operation: Operation) -> None:
    request = RangeRequest(
        key=operation.key,
        range_end=END.get(operation.key, b""),
        serializable=operation.kind is Kind.STALE_READ,
    )
    answer = member.client.ask("KV/Range", request, RangeResponse, CALL_SECONDS, wait=False)
    operation.revision, operation.found = answer.header.revision, _states(answer.kvs)


ASK = {
    Kind.PUT: _put,
    Kind.DELETE: _delete,
    Kind.SWAP: _swap,
    Kind.READ: _read,
    Kind.READ_ALL: _read,
    Kind.STALE_READ: _read,
}


class Watcher(threading.Thread):
    """Watches all keys at one member; goes on behind the last revision it saw whenever the stream ends."""

    def __init__(self, member: Member, first: int) -> None:
        super().__init__(daemon=True)
        self.member = member
        self.last = first
        self.seen: list[tuple[int, Changes]] = []
        self.trouble = ""
        self._stopping = threading.Event()
        self._call: grpc.Call | None = None

    def stop(self) -> None:
        self._stopping.set()
        if self._call is not None:
            self._call.cancel()
        self.join(10)

    def run(self) -> None:
        while not self._stopping.wait(0.05):
            try:
                self._watch()
            except (grpc.RpcError, ValueError) as error:  # ValueError: our own side closed the channel
                self.trouble = str(error)

    def _watch(self) -> None:
        create = WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=self.last + 1)

        def requests() -> Iterator[Message]:
            yield WatchRequest(create_request=create)
            self._stopping.wait()

        self._call = call = self.member.client.stream("Watch/Watch", requests(), WatchResponse)
        for answer in call:
            if answer.canceled:
                self.trouble = f"cancelled: {answer.cancel_reason}"
                call.cancel()
                return
            for revision, changes in _revisions(answer.events):
                self.seen.append((revision, changes))
                self.last = max(self.last, revision)


def _revisions(events: object) -> Iterator[tuple[int, Changes]]:
    """Events by revision. One that comes in two answers is told twice, and `merge` will say so."""
    last: tuple[int, Changes] | None = None
    for event in events:  # type: ignore[attr-defined]
        kv: KeyValue = event.kv
        if last is None or last[0] != kv.mod_revision:
            if last is not None:
                yield last
            last = kv.mod_revision, {}
        last[1][kv.key] = None if event.type == Event.DELETE else kv.value
    if last is not None:
        yield last
