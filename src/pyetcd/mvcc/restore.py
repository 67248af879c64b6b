"""From the `key` bucket back to the index: what happens at every start.

All stored revisions are read in order; of each only the key, the revision and the lease are looked at,
without building any message. A record whose last byte but one cannot belong to a lease field is not parsed
further: that spares most of the work (0.8 us a revision beside the scan). A tombstone whose puts are
compacted away still makes a dead key.

The current revision is the highest one stored, or the compacted one, or the scheduled one: a compaction may
have removed a tombstone that was the last revision there was.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass

from pyetcd import logs
from pyetcd.mvcc.answer import Job
from pyetcd.mvcc.index import History, KeyIndex
from pyetcd.mvcc.record import key_of
from pyetcd.mvcc.revision import (
    REVISION_BYTES,
    SHIFT,
    TOMBSTONE,
    bound_of,
    bucket_key,
    main_of,
    parse_bucket_key,
    revision_of,
)
from pyetcd.mvcc.seams import Backend
from pyetcd.proto.splice import view
from pyetcd.storage import schema

CHUNK = 2000  # records between two yields: about 3 ms

_log = logs.get("mvcc")


@dataclass(frozen=True, slots=True)
class Restored:
    """What a database holds. `scheduled`: a compaction that was accepted and is not finished, or 0."""

    index: KeyIndex
    revision: int
    compact_revision: int
    scheduled: int
    leases: dict[bytes, int]


def restore(backend: Backend) -> Job[Restored]:
    """Read the whole `key` bucket."""
    live: dict[bytes, int] = {}
    history: History = {}
    leases: dict[bytes, int] = {}
    at = bucket_key(revision_of(1))
    number = 0
    collecting = gc.isenabled()
    gc.disable()  # a million short-lived tuples, and nothing in a cycle
    try:
        while True:
            rows = backend.scan(schema.KEY, at, None, CHUNK)
            number = _take(rows, live, history, leases) or number
            if len(rows) < CHUNK:
                break
            at = rows[-1][0] + b"\0"
            yield
        compacted = _revision_in(backend, schema.FINISHED_COMPACT)
        scheduled = _revision_in(backend, schema.SCHEDULED_COMPACT)
        revision = max(main_of(number), compacted, scheduled, 1)
        index = KeyIndex(live, history, bound_of(revision))
    finally:
        if collecting:
            gc.enable()
    if compacted >= 0:
        _log.info(
            "restored last compact revision",
            {
                "meta-bucket-name-key": schema.FINISHED_COMPACT.decode(),
                "restored-compact-revision": compacted,
            },
        )
    _log.info("kvstore restored", {"current-rev": revision})
    return Restored(index, revision, compacted, scheduled if scheduled > compacted else 0, leases)


def _revision_in(backend: Backend, key: bytes) -> int:
    stored = backend.get(schema.META, key)
    return -1 if stored is None else main_of(parse_bucket_key(stored))


def _take(
    rows: list[tuple[bytes, bytes]], live: dict[bytes, int], history: History, leases: dict[bytes, int]
) -> int:
    """Note one chunk of stored revisions; the number of the last one."""
    number = 0
    for bucket, record in rows:
        # The common case of parse_bucket_key, in place: a put whose sub revision is below 2**24.
        if len(bucket) == REVISION_BYTES and bucket[8:14] == b"_\0\0\0\0\0":
            number = int.from_bytes(bucket[:8], "big") << SHIFT | int.from_bytes(bucket[14:], "big") << 1
        else:
            number = parse_bucket_key(bucket)
        length = record[1] if len(record) > 1 else 0x80
        key = record[2 : 2 + length] if length < 0x80 and record[0] == 0x0A else key_of(record)
        if number & TOMBSTONE:
            _note_tombstone(key, number, live, history)
            leases.pop(key, None)
            continue
        old = live.get(key)
        live[key] = number
        if old is not None:
            _push(history, key, old)
        if not record:
            continue  # what `etcdutl snapshot restore --bump-revision` puts to raise the revision
        if record[-2] >= 0x80 or record[-2] == 0x30:  # may end in a lease field: tag 0x30 and a varint
            lease = view(record).lease
            if lease:
                leases[key] = lease
                continue
        if leases:
            leases.pop(key, None)
    return number


def _push(history: History, key: bytes, number: int) -> None:
    before = history.get(key)
    if before is None:
        history[key] = number
    elif isinstance(before, int):
        history[key] = [before, number]
    else:
        before.append(number)


def _note_tombstone(key: bytes, number: int, live: dict[bytes, int], history: History) -> None:
    old = live.pop(key, None)
    if old is not None:
        _push(history, key, old)
    _push(history, key, number)
