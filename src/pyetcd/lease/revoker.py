"""Leases that have run out are revoked: proposed by the primary, as many at once as everybody can bear.

Go etcd proposes 1,000 a second. Here the bound is not a rate but what is under way: a window of proposals
fills one batch of the log, the next window goes out when it is applied, and requests of clients take their
places in the same batches. So 50,000 leases that expire together are gone within seconds, and nobody waits
longer than a batch.

Rules that hold here:

* Two batches are under way, so that one is written while the other is applied. Each costs about `BATCH_MIN`,
  counted in keys, which takes a few milliseconds of the loop. (Of a lease with many keys the store settles
  most behind the batch.)
* Where batches take long, because the disk does or the machine has other work, they grow: as many as make
  `RATE` a second, up to `BATCH_MAX`. Whoever waits for a batch there waits for the disk anyway.
* Between two commits of the backend about `COMMIT_WINDOW` is written to it, one write for each key and each
  lease: enough to start the next commit, and far from filling the buffer, which would refuse clients.
* A revocation that got lost is tried again after `retry_seconds`; the lease stays expired meanwhile.
* Somebody who waits for a lease to end does not wait for its turn: `hurry`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pyetcd import logs
from pyetcd.lease.deadlines import TICK_SECONDS, Loop, WakeUp
from pyetcd.lease.lease import Lease
from pyetcd.lease.lessor import Lessor
from pyetcd.proto import errors

BATCH_MIN = 256
BATCH_MAX = 1024
RATE = 24_000  # 50,000 leases of a key each in some 4 s
COMMIT_WINDOW = 12_000

Propose: TypeAlias = Callable[[Lease], None]
"""Propose the revocation of a lease; `Revoker.done` is to be called once, when it is applied or lost. Raises
EtcdError when it is refused on the spot, and `done` is not called then.
"""

_log = logs.get("lease")


class Revoker:
    """Runs by itself once the lessor is primary. `expired` counts the leases that ran out and were revoked.

    `commits()`: how many commits the backend has done so far.
    """

    def __init__(
        self,
        lessor: Lessor,
        loop: Loop,
        propose: Propose,
        commits: Callable[[], int],
        retry_seconds: float,
    ) -> None:
        self.expired = 0
        self._lessor = lessor
        self._loop = loop
        self._propose = propose
        self._commits = commits
        self._retry_seconds = retry_seconds
        self._wake_up = WakeUp(loop, self._pump)
        self._under_way = 0  # cost of what is proposed
        self._batch = BATCH_MIN
        self._applied_at = 0.0  # when a batch was applied last, or the first was proposed; loop time
        self._commits_seen = 0
        self._uncommitted = 0  # cost of what was proposed since the last commit
        self._scheduled = False
        self._stopped = False
        lessor.on_deadline = self._wake_up.at

    def hurry(self, lease_id: int) -> None:
        """Revoke this lease now, if it has run out."""
        lease = self._lessor.take(lease_id)
        if lease is not None:
            self._revoke(lease)

    def stop(self) -> None:
        self._stopped = True
        self._wake_up.stop()

    def _pump(self) -> None:
        """Propose the next batch if there is room for it."""
        if self._stopped or not self._lessor.is_primary:
            return
        room = min(self._batch, 2 * self._batch - self._under_way, self._commit_room())
        if room > 0:
            for lease in self._lessor.take_expired(room):
                self._revoke(lease)
        if self._under_way < 2 * self._batch:
            self._wait()

    def _applied(self) -> None:
        """A batch was applied, whole or in part."""
        self._scheduled = False
        now = self._loop.time()
        self._batch = min(max(BATCH_MIN, int((now - self._applied_at) * RATE)), BATCH_MAX)
        self._applied_at = now
        self._pump()

    def _commit_room(self) -> int:
        commits = self._commits()
        if commits != self._commits_seen:
            self._commits_seen, self._uncommitted = commits, 0
        return COMMIT_WINDOW - self._uncommitted

    def _wait(self) -> None:
        """Nothing more can be proposed now, or there is nothing: come again when there may be."""
        next_expiry = self._lessor.next_expiry
        if next_expiry is not None and self._commit_room() <= 0:
            next_expiry = max(next_expiry, self._loop.time() + TICK_SECONDS / 8)
        self._wake_up.at(next_expiry)

    def _revoke(self, lease: Lease) -> None:
        try:
            self._propose(lease)
        except errors.EtcdError as error:
            self._lost(lease, error, TICK_SECONDS)
            return
        if not self._under_way:
            self._applied_at = self._loop.time()
        self._under_way += lease.revoking
        self._uncommitted += lease.revoking

    def done(self, lease: Lease, error: Exception | None) -> None:
        """The revocation of a lease was applied, or failed with `error`."""
        self._under_way -= lease.revoking
        if error is None:
            self.expired += 1
        else:
            self._lost(lease, error, self._retry_seconds)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._applied)

    def _lost(self, lease: Lease, error: Exception, retry_seconds: float) -> None:
        if self._stopped:
            return
        _log.warn("failed to revoke lease", {"lease-id": f"{lease.id:016x}", "error": str(error)})
        self._lessor.not_revoked(lease, self._loop.time() + retry_seconds)
