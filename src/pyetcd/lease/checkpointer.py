"""Checkpoints: what is left of long leases goes through the log now and then, so that a new primary does not
give all of them their whole time again.

Only with the feature gate LeaseCheckpoint, as in etcd. A lease that lives longer than five minutes is noted
every five minutes; many are noted in one entry. A renewal takes the note back, also through the log, before
it is answered; there is at most one note and one taking back for each lease in an interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from pyetcd.lease.deadlines import TICK_SECONDS, Loop, WakeUp
from pyetcd.lease.lessor import Lessor
from pyetcd.proto import errors
from pyetcd.proto.rpc_pb2 import LeaseCheckpoint, LeaseCheckpointRequest

BATCH_MAX = 1000  # checkpoints in one entry, as etcd's maxLeaseCheckpointBatchSize

Done: TypeAlias = Callable[[Exception | None], object]
Propose: TypeAlias = Callable[[LeaseCheckpointRequest, Done], None]
"""`(request, done)`: `done` is called once, with the error if the request is not applied. Raises EtcdError
when it is refused on the spot, and `done` is not called then.
"""


class Checkpointer:
    """Runs by itself once the lessor is primary; one entry is under way at a time."""

    def __init__(self, lessor: Lessor, loop: Loop, propose: Propose) -> None:
        self._lessor = lessor
        self._loop = loop
        self._propose = propose
        self._wake_up = WakeUp(loop, self._pump)
        self._under_way = False
        lessor.on_checkpoint = self._wake_up.at

    def take_back(self, lease_id: int, done: Done) -> None:
        """Let a lease live for its whole time again; `done` is called once that is applied, or with the
        error.
        """
        request = LeaseCheckpointRequest(checkpoints=[LeaseCheckpoint(ID=lease_id, remaining_TTL=0)])
        try:
            self._propose(request, done)
        except errors.EtcdError as error:
            done(error)

    def stop(self) -> None:
        self._wake_up.stop()

    def _pump(self) -> None:
        if self._under_way or not self._lessor.is_primary:
            return
        checkpoints = self._lessor.take_checkpoints(BATCH_MAX)
        if not checkpoints:
            self._wake_up.at(self._lessor.next_checkpoint)
            return
        self._under_way = True
        try:
            self._propose(LeaseCheckpointRequest(checkpoints=checkpoints), self._done)
        except errors.EtcdError as error:
            self._done(error)

    def _done(self, error: Exception | None) -> None:
        """Applied, or lost: then these leases are noted when there is a new primary, as in etcd."""
        self._under_way = False
        pause = TICK_SECONDS if error is not None else 0.0
        if self._lessor.next_checkpoint is not None:
            self._wake_up.at(max(self._lessor.next_checkpoint, self._loop.time() + pause))
