"""Log files: appended to, created with permission 0600, rotated by size when asked.

Rotation follows the rules and names of the library etcd uses (lumberjack): a line that would make the file
larger than the limit first renames it to `name-2026-11-24T00-00-00.000.ext` beside it; backups beyond a
number or an age are removed; with `compress` a backup becomes `….gz`. Compressing is left to a gzip process,
so that no loop waits for it. A disk that is full or gone costs lines, never the process.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from typing import Final

from pyetcd.logs.sinks import WriterLoop

_MODE: Final = 0o600
_DAY_SECONDS: Final = 86_400
_STAMP: Final = "%Y-%m-%dT%H-%M-%S"
_STAMP_LENGTH: Final = len("2026-11-24T00-00-00.000")


@dataclass(frozen=True, slots=True)
class Rotation:
    """When to rotate and what to keep; 0 for age or backups means no bound."""

    max_megabytes: int = 100
    max_age_days: int = 0
    max_backups: int = 0
    local_time: bool = False
    compress: bool = False


class File:
    """A log file. OSError when it cannot be opened at the start."""

    def __init__(self, path: str, rotation: Rotation | None = None) -> None:
        self._path = path
        self._rotation = rotation
        self._limit_bytes = rotation.max_megabytes << 20 if rotation is not None else 0
        self._gzip: subprocess.Popen[bytes] | None = None
        self._fd = _open(path)
        self._size_bytes = os.fstat(self._fd).st_size

    def write(self, level: int, line: bytes) -> None:
        self.write_all(line)

    def write_all(self, data: bytes) -> bool:
        """Append whole lines; False when the disk has not taken all of it."""
        if (
            self._rotation is not None
            and self._size_bytes + len(data) > self._limit_bytes
            and self._size_bytes
        ):
            self._rotate(self._rotation)
        try:
            written = os.write(self._fd, data)
        except OSError:
            return False
        self._size_bytes += written
        return written == len(data)

    def attach(self, loop: WriterLoop | None) -> None:
        """A file is always ready to take a line."""

    def flush(self, timeout_seconds: float) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        os.close(self._fd)
        if self._gzip is not None:
            self._gzip.wait()

    def _rotate(self, rotation: Rotation) -> None:
        try:
            backup = self._backup_name(rotation)
            os.rename(self._path, backup)
            fd = _open(self._path)
        except OSError:
            return  # keep writing to the old file rather than losing lines
        os.close(self._fd)
        self._fd = fd
        self._size_bytes = 0
        self._tidy(rotation)

    def _backup_name(self, rotation: Rotation) -> str:
        now = time.time()
        when = time.localtime(now) if rotation.local_time else time.gmtime(now)
        stamp = f"{time.strftime(_STAMP, when)}.{int(now * 1000) % 1000:03d}"
        stem, extension = os.path.splitext(self._path)
        return f"{stem}-{stamp}{extension}"

    def _backups(self) -> list[tuple[str, str]]:
        """`(stamp, path)` of the rotated files, oldest first."""
        folder, name = os.path.split(self._path)
        stem, extension = os.path.splitext(name)
        found: list[tuple[str, str]] = []
        for entry in os.listdir(folder or "."):
            bare = entry.removesuffix(".gz")
            stamp = bare[len(stem) + 1 : len(bare) - len(extension)]
            if bare == f"{stem}-{stamp}{extension}" and len(stamp) == _STAMP_LENGTH:
                found.append((stamp, os.path.join(folder, entry)))
        return sorted(found)

    def _tidy(self, rotation: Rotation) -> None:
        try:
            backups = self._backups()
            excess = len(backups) - rotation.max_backups if rotation.max_backups else 0
            oldest = time.strftime(_STAMP, time.gmtime(time.time() - rotation.max_age_days * _DAY_SECONDS))
            for number, (stamp, path) in enumerate(backups):
                if number < excess or (rotation.max_age_days and stamp < oldest):
                    os.unlink(path)
                elif rotation.compress and not path.endswith(".gz"):
                    self._compress(path)
        except OSError:
            pass

    def _compress(self, path: str) -> None:
        if self._gzip is not None and self._gzip.poll() is None:
            return  # one at a time; the next rotation comes back to this file
        self._gzip = subprocess.Popen(
            ["gzip", "-f", "--", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)
