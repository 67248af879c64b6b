"""`snapshot status`: what is in a database file. The file is opened for reading and stays as it is.

Every page in use is proved at opening. The hash is CRC-32C over the names of all buckets and all they hold,
as etcdutl computes it; it is neither HashKV nor the Maintenance service's Hash.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from pyetcd._native import crc32c
from pyetcd.cli import gotext
from pyetcd.cli.command import Invocation
from pyetcd.cli.etcdutl import log_setup
from pyetcd.cli.etcdutl.output import Column, chosen_format, show
from pyetcd.cli.etcdutl.places import check_is_there, open_to_read
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.cluster.versions import Version
from pyetcd.mvcc.record import key_of
from pyetcd.storage import schema
from pyetcd.storage.bolt import DatabaseCorrupt, Pin
from pyetcd.storage.files import OsFiles


@dataclass(frozen=True, slots=True)
class Status:
    """`revision` is the last one stored, `keys` how many exist after it; `version` is empty before 3.6."""

    hash: int
    revision: int
    keys: int
    size_bytes: int
    version: str


def status(call: Invocation) -> None:
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, "snapshot status requires exactly one argument")
    files, path = OsFiles(), call.args[0]
    missing = check_is_there(files, path)
    if missing is not None:
        raise Exit(ERROR, missing)
    output = chosen_format(call)
    log_setup.to_console()
    database = open_to_read(files, path, call)
    pin = database.pin()
    try:
        found = status_of(pin)
    except (DatabaseCorrupt, ValueError) as error:
        raise Exit(ERROR, str(error)) from None
    finally:
        pin.close()
        database.close()
    show(
        [
            Column("hash", "Hash", "hash", found.hash, f"{found.hash:x}"),
            Column("revision", "Revision", "revision", found.revision, str(found.revision)),
            Column("total keys", "Keys", "totalKey", found.keys, str(found.keys)),
            Column("total size", "Size", "totalSize", found.size_bytes, gotext.bytes_size(found.size_bytes)),
            Column("version", "Version", "version", found.version, found.version),
        ],
        output,
    )


def status_of(pin: Pin) -> Status:
    """Read everything. ValueError when a record or its key is none."""
    crc = 0
    revision = 0
    alive: set[bytes] = set()
    for bucket in pin.buckets():
        crc = crc32c(bucket, crc)
        for keys, values in pin.leaves(bucket):
            rows = zip(keys, values, strict=True)
            crc = crc32c(b"".join(chain.from_iterable(rows)), crc)
            if bucket != schema.KEY:
                continue
            for stored, record in zip(keys, values, strict=True):
                revision, tombstone = _revision_of(stored)
                if tombstone:
                    alive.discard(_key_of(stored, record))
                else:
                    alive.add(_key_of(stored, record))
    return Status(crc, revision, len(alive), pin.size, _version_of(pin))


def _revision_of(stored: bytes) -> tuple[int, bool]:
    try:
        main, _, tombstone = schema.parse_revision_key(stored)
    except ValueError as error:
        raise ValueError(f"cannot parse revision key: {gotext.quote(stored)} err: {error}") from None
    return main, tombstone


def _key_of(stored: bytes, record: bytes) -> bytes:
    try:
        return key_of(record)
    except ValueError as error:
        shown = gotext.quote(stored)
        raise ValueError(f"cannot unmarshal value, key: {shown} err: {error}") from None


def _version_of(pin: Pin) -> str:
    """The stored version, if it is one."""
    stored = (pin.get(schema.META, schema.STORAGE_VERSION) or b"").decode("utf-8", "replace")
    try:
        return str(Version.parse(stored))
    except ValueError:
        return ""
