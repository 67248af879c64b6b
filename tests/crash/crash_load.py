"""A load of several concurrent clients, and the ledger that says what must be found after a crash.

Every client works on keys of its own and has one request under way, so after a crash at most one request a
client is of unknown outcome. Each write makes exactly one revision, whose number its answer carries. So the
ledger can be complete: for every revision up to the current one it knows what happened there. What is found
after a crash must be that, and for each unknown request either all of it or nothing (`crash_check`).
"""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc
from crash_member import Crashable
from google.protobuf.message import Message

from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)

SUM = 2000
LEASE_SECONDS = 3600
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN)
Effect = dict[bytes, bytes | None]  # of one revision: values put, None for keys deleted


@dataclass
class Ledger:
    """What is known over all starts of one member."""

    effects: dict[int, Effect] = field(default_factory=dict)  # by revision
    leases: set[int] = field(default_factory=set)
    seen: int = 1  # the highest revision any answer told
    compacted: int = 0  # the highest revision of an acknowledged compaction
    # Of each client the request whose outcome is not known.
    unknown_effects: list[Effect] = field(default_factory=list)
    unknown_grants: set[int] = field(default_factory=set)
    unknown_revokes: set[int] = field(default_factory=set)
    unknown_compaction: int = 0

    def state(self, revision: int) -> dict[bytes, bytes]:
        """All keys as they are at a revision."""
        state: dict[bytes, bytes] = {}
        for number in range(2, revision + 1):
            for key, value in self.effects[number].items():
                if value is None:
                    del state[key]
                else:
                    state[key] = value
        return state


class Client(ABC):
    """Requests one after the other until the server is gone."""

    def __init__(self, name: str, member: Crashable, ledger: Ledger, lock: threading.Lock, seed: int) -> None:
        self.name = name.encode()
        self.ledger = ledger
        self.lock = lock
        self.chance = random.Random(seed)
        self.answers = 0
        self._channel = grpc.insecure_channel(f"127.0.0.1:{member.port}", [("grpc.enable_retries", 0)])

    @abstractmethod
    def requests(self) -> Iterator[None]:
        """Do one request after the other; yields between them."""

    def run(self) -> None:
        try:
            for _ in self.requests():
                self.answers += 1
        except grpc.RpcError as error:
            if error.code() not in GONE:
                raise
        finally:
            self._channel.close()

    def call(self, path: str, request: Message, response: type[Message]) -> Message:
        method = self._channel.unary_unary(
            f"/etcdserverpb.{path}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        answer: Message = method(request, timeout=30)
        revision = answer.header.revision  # type: ignore[attr-defined]
        with self.lock:
            self.ledger.seen = max(self.ledger.seen, revision)
        return answer

    def write(self, path: str, request: Message, response: type[Message], effect: Effect) -> Message:
        """A request that makes one revision."""
        with self.lock:
            self.ledger.unknown_effects.append(effect)
        answer = self.call(path, request, response)
        revision = answer.header.revision  # type: ignore[attr-defined]
        with self.lock:
            self.ledger.unknown_effects.remove(effect)
            assert revision not in self.ledger.effects, "two writes were told the same revision"
            self.ledger.effects[revision] = effect
        return answer

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        self.write("KV/Put", PutRequest(key=key, value=value, lease=lease), PutResponse, {key: value})


class Putter(Client):
    """Counts up on 20 keys."""

    def requests(self) -> Iterator[None]:
        size = self.chance.choice([10, 300, 3000])
        for number in range(1 << 30):
            key = b"%b/%02d" % (self.name, self.chance.randrange(20))
            self.put(key, b"%b %d " % (self.name, number) + self.chance.randbytes(size))
            yield


class Mover(Client):
    """Moves amounts between two keys, whose sum stays."""

    def requests(self) -> Iterator[None]:
        left, right = self.name + b"/left", self.name + b"/right"
        while True:
            found = self.call("KV/Range", RangeRequest(key=left, range_end=right + b"\0"), RangeResponse)
            assert isinstance(found, RangeResponse)
            amounts = {kv.key: int(kv.value) for kv in found.kvs} or {left: SUM, right: 0}
            assert sum(amounts.values()) == SUM
            moved = self.chance.randrange(-SUM, SUM)
            new = {left: b"%d" % (amounts[left] - moved), right: b"%d" % (amounts[right] + moved)}
            puts = [RequestOp(request_put=PutRequest(key=key, value=value)) for key, value in new.items()]
            guard = [
                Compare(key=kv.key, target=Compare.MOD, mod_revision=kv.mod_revision) for kv in found.kvs
            ]
            answer = self.write("KV/Txn", TxnRequest(compare=guard, success=puts), TxnResponse, {**new})
            assert isinstance(answer, TxnResponse)
            assert answer.succeeded
            yield


class Deleter(Client):
    """Puts a few keys and deletes them by a range."""

    def requests(self) -> Iterator[None]:
        prefix = self.name + b"/"
        found = self.call("KV/Range", RangeRequest(key=prefix, range_end=self.name + b"0"), RangeResponse)
        assert isinstance(found, RangeResponse)
        keys = [kv.key for kv in found.kvs]  # left by an earlier crash
        while True:
            if keys:
                gone = DeleteRangeRequest(key=prefix, range_end=self.name + b"0")
                effect: Effect = dict.fromkeys(keys)
                answer = self.write("KV/DeleteRange", gone, DeleteRangeResponse, effect)
                assert isinstance(answer, DeleteRangeResponse)
                assert answer.deleted == len(keys)
                yield
            keys = [prefix + b"%d" % number for number in range(self.chance.randrange(1, 6))]
            for key in keys:
                self.put(key, b"to be deleted")
                yield


class Leaser(Client):
    """Grants leases, attaches keys, revokes most of them."""

    def requests(self) -> Iterator[None]:
        for _ in range(1 << 30):
            id = self.chance.randrange(1, 1 << 60)
            with self.lock:
                self.ledger.unknown_grants.add(id)
            self.call("Lease/LeaseGrant", LeaseGrantRequest(ID=id, TTL=LEASE_SECONDS), LeaseGrantResponse)
            with self.lock:
                self.ledger.unknown_grants.remove(id)
                self.ledger.leases.add(id)
            yield
            keys = [b"%b/%x/%d" % (self.name, id, number) for number in range(self.chance.randrange(1, 4))]
            for key in keys:
                self.put(key, b"leased", id)
                yield
            if self.chance.random() < 0.8:
                effect: Effect = dict.fromkeys(keys)
                with self.lock:
                    self.ledger.unknown_revokes.add(id)
                self.write("Lease/LeaseRevoke", LeaseRevokeRequest(ID=id), LeaseRevokeResponse, effect)
                with self.lock:
                    self.ledger.unknown_revokes.remove(id)
                    self.ledger.leases.remove(id)
                yield


class Ranger(Client):
    """Reads; what it is told of the revision never goes back."""

    def requests(self) -> Iterator[None]:
        last = 0
        while True:
            prefix = self.chance.choice([b"\0", b"p", b"m"])
            found = self.call("KV/Range", RangeRequest(key=prefix, range_end=b"\0", limit=50), RangeResponse)
            assert isinstance(found, RangeResponse)
            assert found.header.revision >= last
            last = found.header.revision
            yield


class Compactor(Client):
    """Compacts what is a hundred revisions old."""

    def requests(self) -> Iterator[None]:
        pause = threading.Event()
        while True:
            pause.wait(self.chance.uniform(0.05, 0.3))
            with self.lock:
                revision = max(self.ledger.effects, default=0) - 100
            if revision > self.ledger.compacted:
                self.ledger.unknown_compaction = revision
                self.call("KV/Compact", CompactionRequest(revision=revision), CompactionResponse)
                self.ledger.compacted = revision
                self.ledger.unknown_compaction = 0
            else:  # with nothing to ask for it would never hear of the server's end
                self.call("KV/Range", RangeRequest(key=b"c"), RangeResponse)
            yield


class Load:
    """All clients at once, each in a thread."""

    def __init__(self, member: Crashable, ledger: Ledger, seed: int) -> None:
        lock = threading.Lock()
        kinds: list[tuple[str, type[Client]]] = [
            ("p1", Putter),
            ("p2", Putter),
            ("m1", Mover),
            ("m2", Mover),
            ("d1", Deleter),
            ("l1", Leaser),
            ("r1", Ranger),
            ("c1", Compactor),
        ]
        self.clients = [
            kind(name, member, ledger, lock, seed * 100 + at) for at, (name, kind) in enumerate(kinds)
        ]
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(client,)) for client in self.clients]
        for thread in self._threads:
            thread.start()

    def _run(self, client: Client) -> None:
        try:
            client.run()
        except BaseException as failure:
            self._failures.append(failure)

    def end(self) -> int:
        """The server is gone; wait for all clients. How many requests were answered."""
        for thread in self._threads:
            thread.join(40)
            assert not thread.is_alive(), "a client hangs"
        if self._failures:
            raise self._failures[0]
        return sum(client.answers for client in self.clients)
