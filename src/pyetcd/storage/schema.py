"""What an etcd 3.7 database holds: names of buckets and keys, and how values are encoded.

| bucket | key | value |
| --- | --- | --- |
| `key` | revision: main (8, big-endian), `_`, sub (8), and `t` for a tombstone | mvccpb.KeyValue |
| `meta` | `consistent_index`, `term` | 8 bytes, big-endian: the last applied entry |
| | `confState` | raftpb.ConfState as JSON |
| | `scheduledCompactRev`, `finishedCompactRev` | a revision, as in `key` |
| | `storageVersion` | `3.7.0` |
| `lease` | lease ID, 8 bytes, big-endian | leasepb.Lease |
| `alarm` | etcdserverpb.AlarmMember | empty |
| `cluster` | `clusterVersion`, `downgrade` | `3.7.0`; JSON |
| `members` | member ID, hexadecimal without leading zeros | member as JSON |
| `members_removed` | the same | `removed` |
| `auth` | `authEnabled`, `authRevision` | one byte, 0 or 1; 8 bytes, big-endian |
| `authUsers`, `authRoles` | name | authpb.User, authpb.Role |

Source: etcd's server/storage/schema. Every bucket is there from the first start on, also an empty one,
since the hash of a database covers the names of its buckets.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

KEY: Final = b"key"
META: Final = b"meta"
LEASE: Final = b"lease"
ALARM: Final = b"alarm"
CLUSTER: Final = b"cluster"
MEMBERS: Final = b"members"
MEMBERS_REMOVED: Final = b"members_removed"
AUTH: Final = b"auth"
AUTH_USERS: Final = b"authUsers"
AUTH_ROLES: Final = b"authRoles"

ALL_BUCKETS: Final = (
    KEY, META, LEASE, ALARM, CLUSTER, MEMBERS, MEMBERS_REMOVED, AUTH, AUTH_USERS, AUTH_ROLES,
)  # fmt: skip

CONSISTENT_INDEX: Final = b"consistent_index"
TERM: Final = b"term"
CONF_STATE: Final = b"confState"
SCHEDULED_COMPACT: Final = b"scheduledCompactRev"
FINISHED_COMPACT: Final = b"finishedCompactRev"
STORAGE_VERSION: Final = b"storageVersion"
CLUSTER_VERSION: Final = b"clusterVersion"
DOWNGRADE: Final = b"downgrade"
AUTH_ENABLED: Final = b"authEnabled"
AUTH_REVISION: Final = b"authRevision"
REMOVED: Final = b"removed"

# Keys of `meta` that the hash of a database leaves out: they may differ between members that agree.
NOT_HASHED: Final = frozenset({CONSISTENT_INDEX, TERM, STORAGE_VERSION})

_BEFORE_STORED: Final = (3, 5)  # the last version that did not write its own down
_VERSION: Final = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:[-+].*)?")


class Reader(Protocol):
    """What is read from: a `Backend` or a `Pinned`."""

    def get(self, bucket: bytes, key: bytes) -> bytes | None: ...


class Writer(Reader, Protocol):
    """A `Backend`."""

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None: ...
    def create_bucket(self, name: bytes) -> None: ...


def create_buckets(backend: Writer) -> None:
    """Make the buckets that are missing."""
    for name in ALL_BUCKETS:
        backend.create_bucket(name)


def revision_key(main: int, sub: int = 0, tombstone: bool = False) -> bytes:
    """The key of a revision in `key`, and the value of the compaction keys in `meta`."""
    return main.to_bytes(8, "big") + b"_" + sub.to_bytes(8, "big") + (b"t" if tombstone else b"")


def parse_revision_key(key: bytes) -> tuple[int, int, bool]:
    """Main, sub and whether it is a tombstone. ValueError when it is no revision."""
    if len(key) not in (17, 18) or key[8:9] != b"_" or (len(key) == 18 and key[17:] != b"t"):
        raise ValueError(f"{key!r} is not a revision")
    return int.from_bytes(key[:8], "big"), int.from_bytes(key[9:17], "big"), len(key) == 18


def uint64(value: bytes | None) -> int:
    """An 8-byte number; 0 when it is not there."""
    return int.from_bytes(value or b"", "big")


def lease_key(lease: int) -> bytes:
    """The key of a lease; IDs are signed 64-bit numbers."""
    return lease.to_bytes(8, "big", signed=True)


def parse_lease_key(key: bytes) -> int:
    return int.from_bytes(key, "big", signed=True)


def member_key(member: int) -> bytes:
    """The key of a member in `members` and `members_removed`."""
    return b"%x" % member


def position(backend: Reader) -> tuple[int, int]:
    """Consistent index and term: the last entry whose effect the database holds. 0, 0 when it is new."""
    return uint64(backend.get(META, CONSISTENT_INDEX)), uint64(backend.get(META, TERM))


def storage_version(backend: Reader) -> tuple[int, int] | None:
    """Major and minor version of the schema. 3.6 and later write it down; a database of 3.5 shows itself by
    its term; None: older, or new and empty."""
    stored = (backend.get(META, STORAGE_VERSION) or b"").decode("ascii", "replace")
    match = _VERSION.fullmatch(stored)
    if match is not None:
        return int(match[1]), int(match[2])
    return _BEFORE_STORED if uint64(backend.get(META, TERM)) else None
