"""Why a database file cannot be used. Every message names the file, and where it can, page and offset."""

from __future__ import annotations

CHANGED = "its bytes are not those that were written (checksum mismatch); the page has changed on disk"


class DatabaseError(Exception):
    """Base of everything here; `path` is the database file."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class NotADatabase(DatabaseError):
    """No meta page is valid: another kind of file, or both meta pages are damaged."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, f"{path}: not a bbolt database: {reason}")


class DatabaseLocked(DatabaseError):
    """Another process has the database open."""

    def __init__(self, path: str) -> None:
        super().__init__(path, f"{path}: another process holds the file lock of this database")


class DatabaseCorrupt(DatabaseError):
    """What a page says cannot be true, or its bytes are not those that were written."""

    def __init__(self, path: str, page: int, page_size: int, reason: str) -> None:
        super().__init__(path, f"{path}: page {page} at offset {page * page_size}: {reason}")
        self.page = page
        self.offset = page * page_size
        self.reason = reason
