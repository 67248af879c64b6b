"""Random requests to the KV and Lease services: mostly sensible, often odd, of few keys, so that they meet.

Everything is drawn from one `random.Random`, so a seed names a sequence. What a request may refer to (the
current and compacted revision) is kept in `History`, fed with the answers.

Left out are the requests that end real etcd 3.7.1 itself; `ends_go` says which.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from google.protobuf.message import Message

from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    HashKVRequest,
    LeaseGrantRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

MAX_INT64 = (1 << 63) - 1
MIN_INT64 = -(1 << 63)
MAX_TXN_OPS = 128

Bounds: TypeAlias = tuple[bytes, bytes]

SMALL_KEYS = (b"a", b"b", b"c", b"a\0", b"aa", b"b\xff")
ODD_KEYS = (b"\0", b"\xff", b"\xff\xff", b"\0\0", b"a" * 200)
LEASES = (1, 2, 3, 0x7587000000000001)
ODD_LEASES = (4, 987654321, -1, MAX_INT64, MIN_INT64)
MANY_KEYS = tuple(b"k%02d" % number for number in range(40))


@dataclass
class History:
    """What the answers so far tell: where revisions that are worth asking for lie."""

    current: int = 1
    compacted: int = -1
    first: int = 1  # the revision this sequence began at
    leases: set[int] = field(default_factory=set)
    reborn: set[int] = field(default_factory=set)
    """Revisions that may have deleted a key and written it again: real etcd 3.7.1 loses such a key, and ends
    when it is read, after a compaction at just this revision."""

    unsure: set[int] = field(default_factory=set)
    """Compacted revisions whose HashKV depends on when a compaction in the background ends."""
    is_compacting: bool = False  # perhaps, in the background

    def heard(self, request: Message, response: Message | None) -> None:
        """Learn from an answer."""
        if response is None:
            return
        header = getattr(response, "header", None)
        if header is not None and header.revision:
            self.current = header.revision
        if isinstance(request, TxnRequest) and _writes_again(request):
            self.reborn.add(self.current)
        if isinstance(request, CompactionRequest) and isinstance(response, CompactionResponse):
            self.compacted = request.revision
            if self.is_compacting or not request.physical:
                self.unsure.add(request.revision)
            self.is_compacting = not request.physical
        elif isinstance(request, LeaseGrantRequest):
            self.leases.add(request.ID)
        elif isinstance(request, LeaseRevokeRequest):
            self.leases.discard(request.ID)


class Requests:
    """Draws requests."""

    def __init__(self, chance: random.Random, history: History) -> None:
        self.chance = chance
        self.history = history
        # One sequence in three has so many keys that limits, sorting and chunks matter.
        self.keys: Sequence[bytes] = MANY_KEYS if chance.random() < 0.34 else SMALL_KEYS
        self._kinds: tuple[tuple[int, Callable[[], Message]], ...] = (
            (30, self.range),
            (26, self.put),
            (8, self.delete_range),
            (30, self.txn),
            (3, self.compact),
            (3, self.hash_kv),
            (3, self.grant),
            (2, self.revoke),
            (2, self.time_to_live),
            (1, LeaseLeasesRequest),
        )

    def one(self) -> Message:
        """Any request that real etcd survives."""
        weights = [weight for weight, _ in self._kinds]
        while True:
            [(_, make)] = self.chance.choices(self._kinds, weights)
            request = make()
            if isinstance(request, TxnRequest) and ends_go(request):
                continue
            if isinstance(request, CompactionRequest) and request.revision in self.history.reborn:
                continue
            return request

    # Parts

    def _once_in(self, count: int) -> bool:
        return self.chance.randrange(count) == 0

    def key(self) -> bytes:
        if self._once_in(60):
            return b""
        if self._once_in(15):
            return self.chance.choice(ODD_KEYS)
        return self.chance.choice(self.keys)

    def bounds(self) -> Bounds:
        """Key and range end."""
        chance = self.chance
        key = self.key()
        kind = chance.randrange(10)
        if kind < 4:
            return key, b""
        if kind < 5:
            return key, b"\0"
        if kind < 6:
            return b"\0", b"\0"
        if kind < 7:
            return key, key + chance.choice((b"", b"\0", b"\xff"))
        end = self.key()
        if kind < 9 and end < key:
            key, end = end, key
        return key, end

    def value(self) -> bytes:
        return self.chance.choice((b"", b"1", b"2", b"22", b"x" * 40, b"\0\xff"))

    def revision(self) -> int:
        chance, history = self.chance, self.history
        kind = chance.randrange(12)
        if kind < 4:
            return 0
        if kind < 8:
            return chance.randint(max(history.first, 1), max(history.current, 1))
        if kind < 9:
            return history.compacted + chance.choice((-1, 0, 1))
        if kind < 10:
            return history.current + chance.choice((0, 1, 2))
        return chance.choice((-1, -2, -7, MAX_INT64, MIN_INT64, 1))

    def limit(self) -> int:
        chance = self.chance
        if chance.random() < 0.4:
            return 0
        return chance.choice((1, 2, 3, 5, 12, 30, -1, MAX_INT64, MAX_INT64 - 1, MIN_INT64))

    def _filter_revision(self) -> int:
        if self.chance.random() < 0.85:
            return 0
        return self.revision()

    # Requests

    def range(self) -> RangeRequest:
        chance = self.chance
        key, end = self.bounds()
        request = RangeRequest(
            key=key,
            range_end=end,
            limit=self.limit(),
            revision=self.revision(),
            serializable=self._once_in(4),
            keys_only=self._once_in(5),
            count_only=self._once_in(8),
            min_mod_revision=self._filter_revision(),
            max_mod_revision=self._filter_revision(),
            min_create_revision=self._filter_revision(),
            max_create_revision=self._filter_revision(),
        )
        if chance.random() < 0.5:
            request.sort_order = chance.randrange(3)  # type: ignore[assignment]
            request.sort_target = chance.randrange(5)  # type: ignore[assignment]
        if self._once_in(50):
            request.sort_order = chance.choice((-1, 3, 99))  # type: ignore[assignment]
        if self._once_in(50):
            request.sort_target = chance.choice((-1, 5, 99))  # type: ignore[assignment]
        return request

    def stream(self) -> RangeRequest:
        """For RangeStream. A target other than the key with no order is left out: real etcd sorts each
        message by it and then goes on behind the last key of the sorted message, losing keys.
        """
        request = self.range()
        if request.sort_order == RangeRequest.NONE and 0 < request.sort_target < 5:
            request.sort_target = RangeRequest.KEY
        return request

    def put(self) -> PutRequest:
        request = PutRequest(
            key=self.key(), value=self.value(), lease=self.lease(), prev_kv=self.chance.random() < 0.3
        )
        if self._once_in(8):
            request.ignore_value = True
            if not self._once_in(4):
                request.value = b""
        if self._once_in(8):
            request.ignore_lease = True
            if not self._once_in(4):
                request.lease = 0
        return request

    def lease(self) -> int:
        chance = self.chance
        if chance.random() < 0.85:
            return 0
        if self.history.leases and chance.random() < 0.8:
            return chance.choice(sorted(self.history.leases))
        return chance.choice(ODD_LEASES)

    def delete_range(self) -> DeleteRangeRequest:
        key, end = self.bounds()
        return DeleteRangeRequest(key=key, range_end=end, prev_kv=self.chance.random() < 0.4)

    def compare(self) -> Compare:
        chance = self.chance
        key, end = self.bounds() if self._once_in(3) else (self.key(), b"")
        compare = Compare(
            key=key,
            range_end=end,
            target=chance.randrange(5) if not self._once_in(40) else chance.choice((5, -1, 77)),  # type: ignore[arg-type]
            result=chance.randrange(4) if not self._once_in(40) else chance.choice((4, -1, 77)),  # type: ignore[arg-type]
        )
        union = compare.target if not self._once_in(8) else chance.randrange(6)
        if union == Compare.VALUE:
            compare.value = self.value()
        elif union == Compare.MOD:
            compare.mod_revision = self.revision()
        elif union == Compare.CREATE:
            compare.create_revision = self.revision()
        elif union == Compare.LEASE:
            compare.lease = self.lease()
        elif union == Compare.VERSION:
            compare.version = chance.choice((0, 1, 2, 3, -1))
        return compare  # otherwise its oneof is unset

    def txn(self, depth: int = 0) -> TxnRequest:
        chance = self.chance
        request = TxnRequest(compare=[self.compare() for _ in range(chance.choice((0, 0, 1, 1, 2, 3)))])
        if depth == 0 and self._once_in(60):
            self._crowd(request)
            return request
        for branch in (request.success, request.failure):
            read_only = depth == 0 and self._once_in(4)
            for _ in range(chance.choice((0, 1, 1, 2, 3, 5))):
                branch.append(self._operation(depth, read_only))
        return request

    def _crowd(self, request: TxnRequest) -> None:
        """About as many operations or compares as are allowed."""
        count = self.chance.choice((MAX_TXN_OPS, MAX_TXN_OPS + 1))
        many = [self.compare() for _ in range(count)]
        ranges = [RequestOp(request_range=RangeRequest(key=b"a", limit=1)) for _ in range(count)]
        puts = [RequestOp(request_put=PutRequest(key=b"p%03d" % number)) for number in range(count)]
        where = self.chance.randrange(4)
        if where == 0:
            request.compare.extend(many)
        elif where == 1:
            request.success.extend(puts)
        elif where == 2:
            request.failure.extend(ranges)
        else:  # nested: the levels share the limit
            inner = TxnRequest(success=puts[: count - 1])
            request.success.append(RequestOp(request_txn=inner))
        if where == 1:
            del request.compare[:]

    def _operation(self, depth: int, read_only: bool) -> RequestOp:
        kind = self.chance.randrange(40)
        if read_only or kind < 14:
            return RequestOp(request_range=self.range())
        if kind < 27:
            return RequestOp(request_put=self.put())
        if kind < 34:
            return RequestOp(request_delete_range=self.delete_range())
        if kind < 39 and depth < 4:
            return RequestOp(request_txn=self.txn(depth + 1))
        if self._once_in(4):
            return RequestOp()
        return RequestOp(request_range=self.range())

    def compact(self) -> CompactionRequest:
        chance, history = self.chance, self.history
        kind = chance.randrange(8)
        if kind < 5:
            revision = chance.randint(max(history.compacted, 0), history.current)
        else:
            revision = chance.choice(
                (0, -1, MIN_INT64, MAX_INT64, history.compacted, history.current, history.current + 1)
            )
        return CompactionRequest(revision=revision, physical=self._once_in(2))

    def hash_kv(self) -> HashKVRequest:
        revision = self.revision()
        return HashKVRequest(revision=revision if revision not in self.history.unsure else 0)

    def grant(self) -> LeaseGrantRequest:
        """With an ID, and for so long that it stays until the end."""
        chance = self.chance
        lease = chance.choice(LEASES) if not self._once_in(8) else chance.choice(ODD_LEASES)
        seconds = chance.choice((3600, 100_000, 9_000_000_000, 9_000_000_001, MAX_INT64))
        return LeaseGrantRequest(ID=lease, TTL=seconds)

    def _known_lease(self) -> int:
        known = sorted(self.history.leases)
        if known and not self._once_in(4):
            return self.chance.choice(known)
        return self.chance.choice((0, *LEASES, *ODD_LEASES))

    def revoke(self) -> LeaseRevokeRequest:
        return LeaseRevokeRequest(ID=self._known_lease())

    def time_to_live(self) -> LeaseTimeToLiveRequest:
        return LeaseTimeToLiveRequest(ID=self._known_lease(), keys=self._once_in(2))

    def keep_alive(self) -> list[int]:
        return [self._known_lease() for _ in range(self.chance.randrange(4))]


def ends_go(request: TxnRequest) -> bool:
    """Would real etcd 3.7.1 panic applying it: a put that takes over a value or lease behind a from-key
    deletion of its key? Judged over all branches at once, so some harmless ones are called deadly too.
    """
    return _ends_go(request, [])


def _writes_again(request: TxnRequest) -> bool:
    """Is there a from-key deletion with a put behind it?"""
    text = str(request)
    return 'range_end: "\\000"' in text and "request_put" in text and "request_delete_range" in text


def _ends_go(request: TxnRequest, deleted_from: list[bytes]) -> bool:
    for operations in (request.success, request.failure):
        for operation in operations:
            kind = operation.WhichOneof("request")
            if kind == "request_delete_range" and operation.request_delete_range.range_end == b"\0":
                deleted_from.append(operation.request_delete_range.key)
            elif kind == "request_put":
                put = operation.request_put
                if (put.ignore_value or put.ignore_lease) and any(key <= put.key for key in deleted_from):
                    return True
            elif kind == "request_txn" and _ends_go(operation.request_txn, deleted_from):
                return True
    return False
