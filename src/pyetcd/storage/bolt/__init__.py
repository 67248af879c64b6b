"""bbolt's file format (version 2) as one small engine: what Go's bbolt writes we read, what we write it
opens and checks.

A database is a file of equal pages. Pages 0 and 1 are **meta pages**, written in turn; the valid one with
the higher transaction id says where the tree begins. **Branch** and **leaf** pages make one B+tree of
buckets, whose leaves hold for each bucket the root page of its own B+tree, or, for a small bucket, its
whole content inline. Nothing that a durable meta page can reach is ever overwritten: a commit writes new
pages beside the old ones (copy on write), syncs them, then writes and syncs the other meta page. So a crash
at any point leaves the state before or after it.

* `page` and `meta` turn bytes into values and back; `free_pages` knows which pages may be written.
* `tree` reads; `rewrite` builds the pages of a changed tree; `walk` visits and proves every page at opening.
* `database` opens, pins, and commits; `pyetcd.storage.backend` puts a write buffer and the clock above it.

Writers live on one thread. Only writing and syncing of finished pages may happen elsewhere.
"""

from pyetcd.storage.bolt.database import Commit, Database, Pin
from pyetcd.storage.bolt.errors import DatabaseCorrupt, DatabaseError, DatabaseLocked, NotADatabase

__all__ = ["Commit", "Database", "DatabaseCorrupt", "DatabaseError", "DatabaseLocked", "NotADatabase", "Pin"]
