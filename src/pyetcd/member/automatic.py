"""What a member does unasked, where the operator wants it so: `--auto-disarm` and `--auto-promote-learners`.
etcd leaves both to people.

The alarm NOSPACE outlives the lack of space: somebody compacts, defragments and disarms. With `--auto-disarm`
every member gives the space of free pages back while the alarm is raised, once compactions have made room,
lest it be the next to raise it; and who has raised it clears it. The alarms of others are theirs.

A learner stays one until somebody promotes it. With `--auto-promote-learners` the leader does, as soon as it
may by the rules that hold for anybody's request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pyetcd import logs
from pyetcd.member.alarms import Alarms
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.rpc_pb2 import NOSPACE, AlarmRequest
from pyetcd.storage.backend import BackendFailed
from pyetcd.storage.bolt import DatabaseError

DISARM_CHECK_SECONDS = 1.0
ROOM_SHARE = 0.9  # of the quota; above it, the alarm would soon be raised again
DEFRAGMENT_SECONDS = 300.0  # between two defragmentations at least
PROMOTE_CHECK_SECONDS = 1.0

_log = logs.get("member")


class Sizes(Protocol):
    """The part of the backend that is needed here."""

    @property
    def size_bytes(self) -> int: ...
    @property
    def size_in_use_bytes(self) -> int: ...


class Disarming:
    """Clears this member's alarm NOSPACE when there is room again. Run `for_ever`."""

    def __init__(
        self,
        member_id: int,
        quota_bytes: int,
        alarms: Alarms,
        backend: Sizes,
        defragment: Callable[[], Awaitable[None]],
        send: Callable[[AlarmRequest], Awaitable[object]],
        clock: Callable[[], float],
    ) -> None:
        """`send`: a request through the log."""
        self._member_id = member_id
        self._room_bytes = quota_bytes * ROOM_SHARE
        self._alarms = alarms
        self._backend = backend
        self._defragment = defragment
        self._send = send
        self._clock = clock
        self._defragmented_at = -DEFRAGMENT_SECONDS

    async def for_ever(self) -> None:
        while True:
            await asyncio.sleep(DISARM_CHECK_SECONDS)
            alarms = self._alarms.active(NOSPACE)
            if not alarms or self._backend.size_in_use_bytes > self._room_bytes:
                continue
            try:
                if self._backend.size_bytes > self._room_bytes:
                    await self._give_back()
                elif any(alarm.memberID == self._member_id for alarm in alarms):
                    await self._disarm()
            except (EtcdError, DatabaseError, BackendFailed, OSError) as error:  # tried again
                text = error.message if isinstance(error, EtcdError) else str(error)
                _log.warn("failed to clear the alarm NOSPACE", {"error": text})

    async def _give_back(self) -> None:
        if self._clock() - self._defragmented_at >= DEFRAGMENT_SECONDS:
            self._defragmented_at = self._clock()
            await self._defragment()

    async def _disarm(self) -> None:
        request = AlarmRequest(memberID=self._member_id, action=AlarmRequest.DEACTIVATE, alarm=NOSPACE)
        await self._send(request)
        fields = {
            "member-id": f"{self._member_id:x}",
            "current-db-size-bytes": self._backend.size_bytes,
            "current-db-size-in-use-bytes": self._backend.size_in_use_bytes,
        }
        _log.info("cleared the alarm NOSPACE, since there is room again", fields)


async def promote_learners(
    ready: Callable[[], Sequence[int]], promote: Callable[[int], Awaitable[object]]
) -> None:
    """For ever: promote the learners that are `ready` as the leader sees it, which is nobody elsewhere."""
    while True:
        await asyncio.sleep(PROMOTE_CHECK_SECONDS)
        for id in ready():
            fields = {"member-id": f"{id:x}"}
            try:
                await promote(id)
            except EtcdError as error:  # tried again
                _log.warn("failed to promote a learner unasked", {**fields, "error": error.message})
            else:
                _log.info("promoted a learner unasked, since it is in sync", fields)
