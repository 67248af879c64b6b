"""`defrag`: a stopped member's database without its free pages.

Everything is copied, bucket by bucket, into a new file beside the old one. Only when that is whole and
synced does it take the old one's name; renaming is atomic, so a crash leaves the one or the other. What a
crash leaves of the copy is called `db.tmp…`, which servers remove when they start and the next defrag does
as well. The database stays locked until the end.

The file beside it with the pages' checksums (`db.sum`) belongs to the old pages and no longer counts: the new
file's meta page has no seal that would tie it to them. The next server gathers new ones.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

from pyetcd import logs
from pyetcd.cli import gotext
from pyetcd.cli.command import Invocation
from pyetcd.cli.etcdutl import log_setup
from pyetcd.cli.etcdutl.places import check_is_there, database_in, open_to_write, said
from pyetcd.cli.etcdutl.progress import Progress
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.storage.backend import Backend, Pinned
from pyetcd.storage.bolt import Database, DatabaseError
from pyetcd.storage.bolt.rewrite import APPEND_FILL
from pyetcd.storage.files import Files, OsFiles

COPY = "db.tmp.defrag"
BATCH_ITEMS = 10_000

_log = logs.get("etcdutl")


def defrag(call: Invocation) -> None:
    directory = call.text("data-dir")
    failed = f"Failed to defragment etcd data[{directory}] ({{}})"
    files, path = OsFiles(), database_in(directory)
    missing = check_is_there(files, path)
    if missing is not None:
        raise Exit(ERROR, failed.format(missing))
    log_setup.to_console()
    backend = open_to_write(files, path, call)
    try:
        defragment(files, backend)
    except DatabaseError as error:
        raise Exit(ERROR, failed.format(error)) from None
    except OSError as error:
        raise Exit(ERROR, failed.format(said("open", error.filename or path, error))) from None
    finally:
        backend.discard()


def defragment(files: Files, backend: Backend) -> None:
    """Copy and swap. DatabaseError or OSError; the database is then as it was."""
    started = time.monotonic()
    path = backend.path
    directory = path.rpartition("/")[0] or "."
    before, in_use_before = backend.size_bytes, backend.size_in_use_bytes
    _log.info("defragmenting", {"path": path, **_sizes(before, in_use_before)})
    copy = f"{directory}/{COPY}"
    if files.exists(copy):
        files.unlink(copy)
    pin = backend.pin()
    try:
        after, in_use_after = _copy(files, pin, copy)
        files.rename(copy, path)
    except BaseException:
        if files.exists(copy):
            files.unlink(copy)
        raise
    finally:
        pin.close()
    files.fsync_dir(directory)
    sizes = _sizes(after, in_use_after)
    _log.info(
        "finished defragmenting directory",
        {
            "path": path,
            "current-db-size-bytes-diff": after - before,
            "current-db-size-bytes": sizes["current-db-size-bytes"],
            "current-db-size": sizes["current-db-size"],
            "current-db-size-in-use-bytes-diff": in_use_after - in_use_before,
            "current-db-size-in-use-bytes": sizes["current-db-size-in-use-bytes"],
            "current-db-size-in-use": sizes["current-db-size-in-use"],
            "took": timedelta(seconds=time.monotonic() - started),
        },
    )


def _copy(files: Files, pin: Pinned, path: str) -> tuple[int, int]:
    """A new database with all that is pinned, in one commit, durable when this returns. Its size and its size
    in use."""
    target = Database.open(files, path, checksums=False, grow_bytes=0)
    progress = Progress("copying the database", pin.size)
    copied = 0
    try:
        commit = target.begin()
        for bucket in pin.buckets():
            commit.create_bucket(bucket)
            for batch in _batches(pin, bucket):
                for _ in commit.apply(bucket, list(batch), batch, APPEND_FILL):
                    pass
                if commit.unwritten_bytes:
                    target.write(commit.take())
                copied += sum(map(len, batch)) + sum(len(value or b"") for value in batch.values())
                progress.reached(copied)
        target.commit(commit)
        return target.size_bytes, target.size_in_use_bytes
    finally:
        target.close()


def _batches(pin: Pinned, bucket: bytes) -> Iterator[dict[bytes, bytes | None]]:
    """What a bucket holds, in order, so much at a time that few pages at the right edge are written twice."""
    batch: dict[bytes, bytes | None] = {}
    for keys, values in pin.leaves(bucket):
        batch.update(zip(keys, values, strict=True))
        if len(batch) >= BATCH_ITEMS:
            yield batch
            batch = {}
    yield batch


def _sizes(size: int, in_use: int) -> dict[str, object]:
    return {
        "current-db-size-bytes": size,
        "current-db-size": gotext.bytes_size(size),
        "current-db-size-in-use-bytes": in_use,
        "current-db-size-in-use": gotext.bytes_size(in_use),
    }
