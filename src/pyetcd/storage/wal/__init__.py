"""The write-ahead log, in etcd's own file format: every entry is here, on disk, before anybody is told of it.

`frames` the bytes, `segments` the files, `scan` reading one of them, `tail` a torn end or damage, `replay`
from files back to state, `log` the log itself.
"""

from pyetcd.storage.wal.errors import WalCorrupt, WalError, WalLocked, WalMissing
from pyetcd.storage.wal.frames import EntryLike, HardState, HardStateLike, Marker
from pyetcd.storage.wal.log import AppenderLike, LogEntry, Wal
from pyetcd.storage.wal.replay import Replay, read_only
from pyetcd.storage.wal.segments import SEGMENT_BYTES, exists

__all__ = [
    "SEGMENT_BYTES",
    "AppenderLike",
    "EntryLike",
    "HardState",
    "HardStateLike",
    "LogEntry",
    "Marker",
    "Replay",
    "Wal",
    "WalCorrupt",
    "WalError",
    "WalLocked",
    "WalMissing",
    "exists",
    "read_only",
]
