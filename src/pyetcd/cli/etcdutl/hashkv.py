"""`hashkv`: HashKV of the key history in a database file, equal to what servers compare.

Unlike etcd's own etcdutl, which opens the file for writing and so changes it, this only reads. A compaction
that was accepted and is not finished counts as finished, as on a server: the hash leaves out what it removes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from pyetcd.cli.command import Invocation
from pyetcd.cli.etcdutl import log_setup
from pyetcd.cli.etcdutl.output import Column, chosen_format, show
from pyetcd.cli.etcdutl.places import check_is_there, open_to_read
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.mvcc.answer import finish
from pyetcd.mvcc.hash import KeyValueHash
from pyetcd.mvcc.restore import restore
from pyetcd.mvcc.seams import NoLeases
from pyetcd.mvcc.store import Store
from pyetcd.proto.errors import EtcdError
from pyetcd.storage.bolt import DatabaseError, Pin
from pyetcd.storage.files import OsFiles


def hash_kv(call: Invocation) -> None:
    output = chosen_format(call)
    files, path = OsFiles(), call.args[0]
    missing = check_is_there(files, path)
    if missing is not None:
        raise Exit(ERROR, missing)
    log_setup.to_nowhere()
    database = open_to_read(files, path, call)
    pin = database.pin()
    try:
        found = hash_of(pin, call.number("rev"))
    except EtcdError as error:
        raise Exit(ERROR, error.message.removeprefix("etcdserver: ")) from None
    except (DatabaseError, ValueError) as error:
        raise Exit(ERROR, str(error)) from None
    finally:
        pin.close()
        database.close()
    show(
        [
            Column("hash", "Hash", "hash", found.hash, str(found.hash)),
            Column("hash revision", "Hash revision", "hashRevision", found.revision, str(found.revision)),
            Column(
                "compact revision",
                "Compact revision",
                "compactRevision",
                found.compact_revision,
                str(found.compact_revision),
            ),
        ],
        output,
    )


def hash_of(pin: Pin, revision: int) -> KeyValueHash:
    """HashKV up to `revision`, 0: the latest. EtcdError when it is compacted or in the future."""
    backend = _ReadOnly(pin)
    restored = finish(restore(backend))
    if restored.scheduled:
        restored = replace(restored, compact_revision=restored.scheduled, scheduled=0)
    store = Store(backend, NoLeases(), _run_now, restored)
    return finish(store.hash_kv(revision))


def _run_now(job: Generator[None, None, None]) -> None:
    for _ in job:
        pass


class _ReadOnly:
    """A pinned state as the store's backend. Whatever would write is a mistake here."""

    full = False

    def __init__(self, pin: Pin) -> None:
        self._pin = pin

    @property
    def size_bytes(self) -> int:
        return self._pin.size

    size_in_use_bytes = size_bytes

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self._pin.get(bucket, key)

    def get_many(self, bucket: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._pin.get(bucket, key) for key in keys]

    def scan(
        self, bucket: bytes, start: bytes, end: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]:
        return self._pin.scan(bucket, start, end, limit)

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        raise AssertionError("hashkv does not write")

    def append(self, key: bytes, value: bytes) -> None:
        raise AssertionError("hashkv does not write")

    def delete(self, bucket: bytes, key: bytes) -> None:
        raise AssertionError("hashkv does not write")

    def hold(self) -> None:
        return

    def release(self) -> None:
        return

    async def drained(self) -> None:
        return
