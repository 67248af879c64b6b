"""Alarms: what the cluster has agreed is wrong with a member, kept in bucket `alarm`.

The key is the encoded `AlarmMember`, the value empty, as etcd keeps them. Changed only at apply, so equal
on all members.
"""

from __future__ import annotations

from pyetcd.cluster.membership import Buckets
from pyetcd.proto.rpc_pb2 import CORRUPT, NONE, NOSPACE, AlarmMember

BUCKET = b"alarm"
NAMES = {NONE: "NONE", NOSPACE: "NOSPACE", CORRUPT: "CORRUPT"}


def name_of(alarm: AlarmMember) -> str:
    """The name of an alarm's kind, as Go prints it: its number where etcd knows no such kind."""
    return NAMES.get(alarm.alarm, str(alarm.alarm))


class Alarms:
    """The alarm store."""

    def __init__(self, backend: Buckets) -> None:
        self._backend = backend
        self._active: dict[tuple[int, int], AlarmMember] = {}
        self.seen: dict[tuple[int, int], AlarmMember] = {}  # active now or since the start
        self.load()

    def load(self) -> None:
        """As the database has them: at the start, or when another one has taken its place."""
        self._active.clear()
        for key, _ in self._backend.scan(BUCKET, b""):
            member = AlarmMember.FromString(key)
            self._active[member.alarm, member.memberID] = member
            self.seen[member.alarm, member.memberID] = member
        self._refresh()

    def _refresh(self) -> None:
        kinds = {kind for kind, _ in self._active}
        self.no_space = NOSPACE in kinds
        self.corrupt = CORRUPT in kinds

    def activate(self, member_id: int, kind: int) -> AlarmMember:
        """Raise an alarm, or find it raised."""
        existing = self._active.get((kind, member_id))
        if existing is not None:
            return existing
        alarm = AlarmMember(memberID=member_id, alarm=kind)  # type: ignore[arg-type]
        self._active[kind, member_id] = alarm
        self.seen[kind, member_id] = alarm
        self._backend.put(BUCKET, alarm.SerializeToString(), b"")
        self._refresh()
        return alarm

    def deactivate(self, member_id: int, kind: int) -> AlarmMember | None:
        """Clear an alarm; None when it was not raised."""
        alarm = self._active.pop((kind, member_id), None)
        if alarm is not None:
            self._backend.delete(BUCKET, alarm.SerializeToString())
            self._refresh()
        return alarm

    def active(self, kind: int = NONE) -> list[AlarmMember]:
        """The alarms of one kind, or all of them."""
        return [alarm for (its_kind, _), alarm in sorted(self._active.items()) if kind in (NONE, its_kind)]
