"""The lessor: which leases there are, which keys hang on them, and when they run out.

Every member applies grants, revocations and checkpoints alike, in log order. Only the **primary**, which is
the raft leader, lets leases run out and renews them: it alone has deadlines, and it ends a lease by
proposing its revocation like any client. So a lease's end is an entry in the log, and no two members ever
disagree on it however their clocks run.

A member that becomes primary gives every lease its time to live anew, since it cannot know what is left of
it, or what was left at the last checkpoint; and an election timeout on top, in which clients find it. With a
million leases that would hold up the loop, so `promote` only notes the time: a lease whose `epoch` is not
the lessor's has not been touched since, and its expiry is worked out from that time. A job then puts them
all in the queue, in slices.

Rules that hold here:

* What members must agree on (`_leases`, `_lease_of`, the bucket) changes in `grant`, `revoke`,
  `checkpoint`, `attach` and `detach` alone, and never because of the time.
* A renewal changes one lease's expiry and nothing else: no entry in the log, no place in the queue.
* A key hangs on one lease at most. The keys of a revoked lease are detached as the store deletes them,
  which may be later: then `_lease_of` names a lease that is gone until they are.

Source: etcd's server/lease/lessor.go.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from enum import Enum
from itertools import islice
from typing import Protocol, TypeAlias

from pyetcd.lease.deadlines import TICK_SECONDS, Deadlines
from pyetcd.lease.lease import MAX_TTL_SECONDS, NO_LEASE, NOT_QUEUED, Lease, from_record
from pyetcd.proto import errors
from pyetcd.proto.rpc_pb2 import LeaseCheckpoint
from pyetcd.storage import schema

CHECKPOINT_INTERVAL_SECONDS = 300
SLICE_LEASES = 1000  # about 1 ms
SCAN_MAX = 2000  # queue entries looked at in one turn

Job: TypeAlias = Generator[None, None, None]


class Backend(Protocol):
    """The part of `storage.backend.Backend` that is used here."""

    def scan(
        self, bucket: bytes, start: bytes, end: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]: ...
    def put(self, bucket: bytes, key: bytes, value: bytes) -> None: ...
    def delete(self, bucket: bytes, key: bytes) -> None: ...


class NotRenewed(Enum):
    """Why a lease was not renewed on the spot."""

    NOT_PRIMARY = 1  # ask the leader
    UNKNOWN = 2  # there is no such lease, as far as the log is applied
    EXPIRED = 3  # it has run out, and its revocation is on its way: ask again `when_ended`
    CHECKPOINTED = 4  # its checkpoint must be taken back first, through the log


class Lessor:
    """All leases of one member. Every method from the loop.

    `delete_keys(keys)` deletes keys under one revision (`Store.delete_keys`). `persists_checkpoints()`: from
    cluster version 3.6 on, or where it was asked for. `on_deadline(time)` is told when a lease is to be
    looked at, `on_checkpoint(time)` when one is due.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Callable[[], float],
        delete_keys: Callable[[Sequence[bytes]], object],
        *,
        min_ttl: int,
        checkpoints: bool,
        persists_checkpoints: Callable[[], bool],
    ) -> None:
        self.is_primary = False
        self.granted = 0
        self.revoked = 0
        self.renewed = 0
        self.on_grant: Callable[[int], object] = lambda ttl: None
        self.on_deadline: Callable[[float], object] = lambda when: None
        self.on_checkpoint: Callable[[float], object] = lambda when: None
        self._backend = backend
        self._clock = clock
        self._delete_keys = delete_keys
        self._min_ttl = min_ttl
        self._checkpoints = checkpoints
        self._persists_checkpoints = persists_checkpoints
        self._leases: dict[int, Lease] = {}
        self._lease_of: dict[bytes, int] = {}
        self._epoch = 0
        self._refreshed_at = 0.0  # when this epoch began, in effect
        self._expiries = Deadlines()
        self._checkpoint_times = Deadlines()
        self._waiting: dict[int, list[Callable[[], object]]] = {}

    def load(self) -> None:
        """Read the leases of the database, at the start or when another one has taken its place; their keys
        follow with `attach_all`. Raises BadLease.
        """
        assert not self.is_primary, "a leader's database is not replaced"
        self._leases.clear()
        self._lease_of.clear()
        start = b""
        while rows := self._backend.scan(schema.LEASE, start, None, SLICE_LEASES):
            for key, record in rows:
                lease = from_record(key, record)
                lease.ttl = max(lease.ttl, self._min_ttl)
                self._leases[lease.id] = lease
            start = rows[-1][0] + b"\0"

    # The book that the store keeps (`mvcc.seams.LeaseBook`)

    def __len__(self) -> int:
        return len(self._leases)

    def exists(self, lease: int) -> bool:
        return lease in self._leases

    def lease_of(self, key: bytes) -> int:
        return self._lease_of.get(key, NO_LEASE)

    def attach(self, lease: int, key: bytes) -> None:
        """Raises LEASE_NOT_FOUND."""
        found = self._leases.get(lease)
        if found is None:
            raise errors.LEASE_NOT_FOUND
        found.attach(key)
        self._lease_of[key] = lease

    def detach(self, lease: int, key: bytes) -> None:
        found = self._leases.get(lease)
        if found is not None:
            found.detach(key)
        self._lease_of.pop(key, None)

    def attach_all(self, leases: Mapping[bytes, int]) -> None:
        """Attach the keys of a restored store; those whose lease is gone hang on none."""
        for key, lease in leases.items():
            found = self._leases.get(lease)
            if found is not None:
                found.attach(key)
                self._lease_of[key] = lease

    # Entries of the log

    def grant(self, lease_id: int, ttl: int) -> Lease:
        """Raises LEASE_NOT_FOUND (ID 0), LEASE_TTL_TOO_LARGE or LEASE_EXISTS, in that order, as etcd does."""
        if lease_id == NO_LEASE:
            raise errors.LEASE_NOT_FOUND
        if ttl > MAX_TTL_SECONDS:
            raise errors.LEASE_TTL_TOO_LARGE
        if lease_id in self._leases:
            raise errors.LEASE_EXISTS
        lease = self._leases[lease_id] = Lease(lease_id, max(ttl, self._min_ttl))
        self._backend.put(schema.LEASE, schema.lease_key(lease_id), lease.record())
        self.granted += 1
        self.on_grant(lease.ttl)
        if self.is_primary:
            self._refresh(lease)
        return lease

    def revoke(self, lease_id: int) -> None:
        """End a lease; its keys are deleted under one revision, if it has any. Raises LEASE_NOT_FOUND."""
        lease = self._leases.get(lease_id)
        if lease is None:
            raise errors.LEASE_NOT_FOUND
        if lease.keys:
            self._delete_keys(list(lease.keys))
        del self._leases[lease_id]
        self._backend.delete(schema.LEASE, schema.lease_key(lease_id))
        self.revoked += 1
        if lease.epoch == self._epoch:
            self._expiries.discard(lease.expiry_tick, lease_id)
            self._checkpoint_times.discard(lease.checkpoint_tick, lease_id)
        for run in self._waiting.pop(lease_id, ()):
            run()

    def checkpoint(self, lease_id: int, remaining_ttl: int) -> None:
        """Note what is left of a lease, for the next primary; 0 takes that back. No such lease: nothing."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return
        if self.is_primary:
            self._adopt(lease)
        lease.remaining_ttl = remaining_ttl
        if self._persists_checkpoints():
            self._backend.put(schema.LEASE, schema.lease_key(lease_id), lease.record())
        if self.is_primary:
            self._schedule_checkpoint(lease)

    # The primary

    def promote(self, extend_seconds: float) -> Job:
        """Become primary: every lease lives anew, `extend_seconds` more than it has left. The job, to be
        run soon, queues their expiries.
        """
        self._end_epoch()
        self.is_primary = True
        self._refreshed_at = self._clock() + extend_seconds
        return self._queue_all(list(self._leases.values()))

    def _queue_all(self, leases: list[Lease]) -> Job:
        epoch = self._epoch
        for start in range(0, len(leases), SLICE_LEASES):
            for lease in leases[start : start + SLICE_LEASES]:
                if self._leases.get(lease.id) is lease:
                    self._adopt(lease)
            yield
            if self._epoch != epoch:
                return

    def demote(self) -> None:
        """No longer primary: no lease runs out here. Who waits for one to end is woken, to ask elsewhere."""
        if not self.is_primary:
            return
        self._end_epoch()
        self.is_primary = False
        waiting, self._waiting = self._waiting, {}
        for runs in waiting.values():
            for run in runs:
                run()

    def _end_epoch(self) -> None:
        self._epoch += 1
        self._expiries.clear()
        self._checkpoint_times.clear()

    def renew(self, lease_id: int, *, keep_checkpoint: bool = False) -> int | NotRenewed:
        """Let a lease live anew; its TTL in seconds (0.5 us). `keep_checkpoint`: its checkpoint could not be
        taken back, so it lives for what that left it.
        """
        if not self.is_primary:
            return NotRenewed.NOT_PRIMARY
        lease = self._leases.get(lease_id)
        if lease is None:
            return NotRenewed.UNKNOWN
        now = self._clock()
        if (lease.expiry if lease.epoch == self._epoch else self._expiry(lease)) <= now:
            return NotRenewed.EXPIRED
        if lease.remaining_ttl > 0 and self._checkpoints and not keep_checkpoint:
            return NotRenewed.CHECKPOINTED
        if lease.epoch != self._epoch or lease.remaining_ttl:
            self._refresh(lease)
        else:
            lease.expiry = now + lease.ttl  # never earlier than before: its place in the queue will do
        self.renewed += 1
        return lease.ttl

    def when_ended(self, lease_id: int, run: Callable[[], object]) -> None:
        """Call `run` when an expired lease is revoked, or cannot be by us: then ask again. Of a lease that
        is gone, or on a member that is not primary, it is called at once.
        """
        if self.is_primary and lease_id in self._leases:
            self._waiting.setdefault(lease_id, []).append(run)
        else:
            run()

    def take_expired(self, cost_max: int) -> list[Lease]:
        """Leases that have run out and are not being revoked yet, of about `cost_max` together and at least
        one; they count as being revoked from now on. Looks no longer than a turn may take: while
        `next_expiry` is not after now, there may be more.
        """
        now = self._clock()
        taken: list[Lease] = []
        cost = 0
        for _ in range(SCAN_MAX):
            if cost >= cost_max or (lease_id := self._expiries.take_due(now)) is None:
                break
            lease = self._leases[lease_id]
            lease.expiry_tick = NOT_QUEUED
            if lease.expiry > now:  # renewed since it was queued
                lease.expiry_tick = self._expiries.add(lease.expiry, lease_id)
            elif not lease.revoking:
                lease.revoking = lease.cost
                taken.append(lease)
                cost += lease.revoking
        return taken

    def take(self, lease_id: int) -> Lease | None:
        """This lease, if it has run out and is not being revoked yet; it counts as being revoked now."""
        lease = self._leases.get(lease_id)
        if lease is None or lease.revoking or self._expiry(lease) > self._clock():
            return None
        lease.revoking = lease.cost
        return lease

    def not_revoked(self, lease: Lease, retry_at: float) -> None:
        """The revocation of a lease got lost: let it be taken again at `retry_at`."""
        lease.revoking = 0
        if self.is_primary and self._leases.get(lease.id) is lease:
            self._adopt(lease)
            self._expiries.discard(lease.expiry_tick, lease.id)
            lease.expiry_tick = self._expiries.add(retry_at, lease.id)
            self.on_deadline(retry_at)

    @property
    def next_expiry(self) -> float | None:
        """When `take_expired` may next find one; loop time."""
        return self._expiries.first

    @property
    def next_checkpoint(self) -> float | None:
        return self._checkpoint_times.first

    def take_checkpoints(self, limit: int) -> list[LeaseCheckpoint]:
        """Checkpoints that are due, up to `limit`. A lease that is just renewed has nothing to note: it
        comes again an interval later.
        """
        now = self._clock()
        taken: list[LeaseCheckpoint] = []
        for _ in range(SCAN_MAX):
            if len(taken) == limit or (lease_id := self._checkpoint_times.take_due(now)) is None:
                break
            lease = self._leases[lease_id]
            lease.checkpoint_tick = NOT_QUEUED
            remaining = math.ceil(lease.expiry - now)
            if remaining >= lease.ttl:
                self._schedule_checkpoint(lease)
            elif remaining > 0:
                taken.append(LeaseCheckpoint(ID=lease_id, remaining_TTL=remaining))
        return taken

    # Looking

    def lookup(self, lease_id: int) -> Lease | None:
        return self._leases.get(lease_id)

    def remaining_seconds(self, lease: Lease) -> float:
        """Until it runs out, negative once it has; infinite on a member that is not primary."""
        return self._expiry(lease) - self._clock() if self.is_primary else math.inf

    def ids_by_expiry(self) -> Generator[None, None, list[int]]:
        """The IDs of all leases, those that run out first in front. At most a slice of them: one step."""
        leases = list(self._leases.values())
        runs: list[list[tuple[float, int]]] = []
        for start in range(0, len(leases), SLICE_LEASES):
            run = [(self._expiry(lease), lease.id) for lease in leases[start : start + SLICE_LEASES]]
            run.sort()
            runs.append(run)
            if len(leases) > SLICE_LEASES:
                yield
        ids: list[int] = []
        merged = heapq.merge(*runs)
        while part := [lease_id for _, lease_id in islice(merged, SLICE_LEASES)]:
            ids += part
            if len(leases) > SLICE_LEASES:
                yield
        return ids

    # When a lease runs out

    def _expiry(self, lease: Lease) -> float:
        if not self.is_primary:
            return math.inf
        return lease.expiry if lease.epoch == self._epoch else self._refreshed_at + lease.left_ttl

    def _adopt(self, lease: Lease) -> None:
        """Make a lease one of this epoch, if it is not."""
        if lease.epoch != self._epoch:
            self._live_until(lease, self._refreshed_at + lease.left_ttl)

    def _refresh(self, lease: Lease) -> None:
        """Let a lease live anew from now on."""
        self._live_until(lease, self._clock() + lease.left_ttl)

    def _live_until(self, lease: Lease, expiry: float) -> None:
        lease.expiry = expiry
        if lease.epoch != self._epoch:
            lease.epoch = self._epoch
            lease.expiry_tick = lease.checkpoint_tick = NOT_QUEUED
            self._schedule_checkpoint(lease)
        elif expiry < lease.expiry_tick * TICK_SECONDS:
            self._expiries.discard(lease.expiry_tick, lease.id)
            lease.expiry_tick = NOT_QUEUED
        if lease.expiry_tick == NOT_QUEUED:
            lease.expiry_tick = self._expiries.add(expiry, lease.id)
            self.on_deadline(lease.expiry_tick * TICK_SECONDS)

    def _schedule_checkpoint(self, lease: Lease) -> None:
        """Only what lives longer than the interval is worth a checkpoint."""
        if not self._checkpoints or lease.left_ttl <= CHECKPOINT_INTERVAL_SECONDS:
            return
        self._checkpoint_times.discard(lease.checkpoint_tick, lease.id)
        when = self._clock() + CHECKPOINT_INTERVAL_SECONDS
        lease.checkpoint_tick = self._checkpoint_times.add(when, lease.id)
        self.on_checkpoint(lease.checkpoint_tick * TICK_SECONDS)
