"""One lease, and how it lies in the database.

A lease is a time to live that keys can hang on. Its record (bucket `lease`, leasepb.Lease) holds what it was
granted with and, after a checkpoint, what was left of it; when it runs out is known to the leader alone and
never written down. Times are the loop's, in seconds.
"""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.message import DecodeError

from pyetcd.proto.lease_pb2 import Lease as Record
from pyetcd.storage.schema import lease_key

NO_LEASE = 0
MAX_TTL_SECONDS = 9_000_000_000  # as etcd's MaxLeaseTTL: more does not fit its nanoseconds
NOT_QUEUED = -1


class BadLease(Exception):
    """What lies in the bucket of leases is none."""

    def __init__(self, key: bytes) -> None:
        super().__init__(f"the record of lease {key.hex()} is damaged")


class Lease:
    """A lease as `Lessor` keeps it; nobody else changes it. `expiry` holds only while `epoch` is the
    lessor's: see `lessor`.
    """

    __slots__ = (
        "_keys",
        "checkpoint_tick",
        "epoch",
        "expiry",
        "expiry_tick",
        "id",
        "remaining_ttl",
        "revoking",
        "ttl",
    )

    def __init__(self, lease_id: int, ttl: int, remaining_ttl: int = 0) -> None:
        self.id = lease_id
        self.ttl = ttl  # granted, in seconds
        self.remaining_ttl = remaining_ttl  # at the last checkpoint, in seconds; 0: there was none
        self.epoch = 0
        self.expiry = 0.0
        self.expiry_tick = NOT_QUEUED  # where it lies in the queue of expiries
        self.checkpoint_tick = NOT_QUEUED  # where it lies in the queue of checkpoints
        self.revoking = 0  # the cost of its revocation while that is on its way through the log
        self._keys: dict[bytes, None] | None = None

    @property
    def left_ttl(self) -> int:
        """Seconds that it lives from a refresh on, the last checkpoint taken into account."""
        return self.remaining_ttl if self.remaining_ttl > 0 else self.ttl

    @property
    def keys(self) -> Collection[bytes]:
        """The keys that hang on it, in the order in which they were attached."""
        return self._keys or ()

    @property
    def cost(self) -> int:
        """About how much work its revocation is, in keys."""
        return 1 + len(self._keys or ())

    def attach(self, key: bytes) -> None:
        if self._keys is None:
            self._keys = {}
        self._keys[key] = None

    def detach(self, key: bytes) -> None:
        if self._keys is not None:
            self._keys.pop(key, None)

    def record(self) -> bytes:
        """As it is stored."""
        return Record(ID=self.id, TTL=self.ttl, RemainingTTL=self.remaining_ttl).SerializeToString()


def from_record(key: bytes, record: bytes) -> Lease:
    """A lease as it lies in the bucket. Raises BadLease."""
    try:
        stored = Record.FromString(record)
    except DecodeError:
        raise BadLease(key) from None
    if lease_key(stored.ID) != key:
        raise BadLease(key)
    return Lease(stored.ID, stored.TTL, stored.RemainingTTL)
