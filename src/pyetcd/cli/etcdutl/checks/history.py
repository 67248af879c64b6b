"""The `key` bucket: whether every revision is one, and the revisions of each key follow on each other.

What a member builds its index from at a start is looked at here with more care: a put counts versions up and
keeps the revision that created the key, a tombstone ends that, a compaction has left at most one revision of
each key behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import DecodeError

from pyetcd.cli import gotext
from pyetcd.cli.etcdutl.checks.findings import Report
from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.storage import schema
from pyetcd.storage.bolt import Pin

WHERE: Final = "bucket key"
ADVICE: Final = (
    "Members that hold the same data agree on this: compare etcdutl hashkv of each. Remove the one that "
    "differs and add it again with an empty directory, or restore a snapshot."
)
_COMPACTIONS: Final = (schema.FINISHED_COMPACT, schema.SCHEDULED_COMPACT)


class History:
    """Goes through the bucket in order."""

    def __init__(self, report: Report, compacted: int, scheduled: int, leases: Iterable[int]) -> None:
        self._report = report
        self._compacted = compacted
        self._settled = max(compacted, scheduled)  # up to here, revisions may be gone
        self._leases = frozenset(leases)
        # Of each key: main revision, creation and version of its last revision; 0, 0 behind a tombstone.
        self._last: dict[bytes, tuple[int, int, int]] = {}
        self._attached: dict[bytes, int] = {}
        self._superseded = 0
        self.revision = 0
        self.revisions = 0

    @property
    def keys(self) -> int:
        return sum(1 for _, created, _ in self._last.values() if created)

    def take(self, stored: bytes, record: bytes) -> None:
        try:
            main, _, is_tombstone = schema.parse_revision_key(stored)
        except ValueError as error:
            self._bad(str(error), "keys that are no revision")
            return
        self.revisions += 1
        self.revision = main
        if not record:
            return  # as `snapshot restore --bump-revision` leaves one
        try:
            kv = KeyValue.FromString(record)
        except DecodeError:
            self._bad(f"revision {main}: its record cannot be read", "records that cannot be read")
            return
        before = self._last.get(kv.key)
        if is_tombstone:
            self._take_tombstone(main, kv, before)
        else:
            self._take_put(main, kv, before)

    def _take_tombstone(self, main: int, kv: KeyValue, before: tuple[int, int, int] | None) -> None:
        if (before is None or not before[1]) and main > self._settled:
            shown = gotext.quote(kv.key)
            self._bad(f"revision {main} deletes {shown}, which is not there", "deletions of keys not there")
        self._note_superseded(before, main)
        self._last[kv.key] = (main, 0, 0)
        self._attached.pop(kv.key, None)

    def _take_put(self, main: int, kv: KeyValue, before: tuple[int, int, int] | None) -> None:
        why = self._why_not(main, kv, before)
        if why:
            self._bad(f"revision {main}: {gotext.quote(kv.key)} {why}", "revisions that do not fit")
        self._note_superseded(before, main)
        self._last[kv.key] = (main, kv.create_revision, kv.version)
        if kv.lease:
            self._attached[kv.key] = kv.lease
        else:
            self._attached.pop(kv.key, None)

    def _why_not(self, main: int, kv: KeyValue, before: tuple[int, int, int] | None) -> str:
        """What is wrong with a put behind what the key was before; empty where nothing is."""
        if kv.mod_revision != main:
            return f"says that it is of revision {kv.mod_revision}"
        created, version = kv.create_revision, kv.version
        is_of = f"is version {version} of what revision {created} created"
        if not 1 <= created <= main or version < 1:
            return is_of
        if main <= self._settled:
            return ""  # a compaction may have taken any of those before it
        if before is None or not before[1]:
            return "" if (created, version) == (main, 1) else f"{is_of}, and that is not there"
        if (created, version) != (before[1], before[2] + 1):
            return f"{is_of}, behind version {before[2]} of what {before[1]} created"
        return ""

    def _note_superseded(self, before: tuple[int, int, int] | None, main: int) -> None:
        if before is not None and before[1] and main <= self._compacted:
            self._superseded += 1

    def close(self) -> None:
        """Say what can be said of the whole."""
        lost = {lease for lease in self._attached.values() if lease not in self._leases}
        if lost:
            keys = sum(1 for lease in self._attached.values() if lease in lost)
            shown = ", ".join(f"{lease & (1 << 64) - 1:x}" for lease in sorted(lost)[:3])
            self._report.warn(
                WHERE,
                f"{keys} keys are attached to {len(lost)} leases that do not exist ({shown})",
                "They never expire: put them again with a lease, or delete them.",
            )
        if self._superseded:
            self._report.warn(
                WHERE,
                f"{self._superseded} superseded revisions are behind the compaction to {self._compacted}",
                "HashKV leaves them out, and the next compaction takes them away.",
            )
        self._last.clear()
        self._attached.clear()

    def _bad(self, problem: str, kind: str) -> None:
        self._report.damage(WHERE, problem, ADVICE, kind)


def check_history(report: Report, pin: Pin, leases: Iterable[int]) -> None:
    compacted, scheduled = (_compaction(report, pin, key) for key in _COMPACTIONS)
    if scheduled > compacted:
        report.note(WHERE, f"a compaction to {scheduled} is not finished", "The next start goes on with it.")
    history = History(report, compacted, scheduled, leases)
    for keys, values in pin.leaves(schema.KEY):
        for stored, record in zip(keys, values, strict=True):
            history.take(stored, record)
    report.fact("history", "revision", max(history.revision, compacted, scheduled, 1))
    report.fact("history", "compacted revision", max(compacted, scheduled))
    report.fact("history", "revisions", history.revisions)
    report.fact("history", "keys", history.keys)
    history.close()


def _compaction(report: Report, pin: Pin, key: bytes) -> int:
    """A compaction's revision; 0: there was none."""
    stored = pin.get(schema.META, key)
    try:
        return 0 if stored is None else schema.parse_revision_key(stored)[0]
    except ValueError as error:
        report.damage("bucket meta", f"{key.decode()}: {error}", ADVICE)
        return 0
