"""`snapshot save`: the database of one member, as it is at this moment, in a file.

The file appears under its name only when all of it is on disk: until then it is `<name>.part`, which is taken
away when something fails. The stream ends with the SHA-256 of the database. etcdctl looks only whether one
seems to be there; here it is compared, since a backup is read again only when it is too late.
"""

from __future__ import annotations

import os
import time

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl import notes
from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.settings import Settings
from pyetcd.cli.etcdctl.streams import messages
from pyetcd.cli.exits import BAD_ARGS, INTERRUPTED, Exit
from pyetcd.proto import lite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation

SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"
HASH_BYTES = 32
SECTOR_BYTES = 512  # a database is a multiple of it, so a hash behind one shows in the length
SAVER = "snapshot/v3_snapshot.go"
READER = "v3/maintenance.go"


def save(call: Invocation) -> None:
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, "snapshot save expects one argument <filename>")
    settings = Settings(call)
    deadline = Deadline(settings.command_timeout if call.flags["command-timeout"].changed else None)
    path = call.args[0]
    if len(settings.endpoints) != 1:
        named = " ".join(settings.endpoints)
        raise Exit(INTERRUPTED, f"snapshot must be requested to one selected node, not multiple [{named}]")
    try:
        client = Client(settings, logger="client")
    except Exit as unusable:
        raise Exit(INTERRUPTED, unusable.message) from None
    part = f"{path}.part"
    try:
        version = _fetch(client, settings.endpoints[0], part, deadline)
        _rename(part, path)
    finally:
        client.close()
        if os.path.lexists(part):
            os.unlink(part)
    notes.info("saved", {"path": path}, caller=f"{SAVER}:121")
    emit(f"Snapshot saved at {path}\n")
    if version:
        emit(f"Server version {version}\n")


def _fetch(client: Client, endpoint: str, part: str, deadline: Deadline) -> str:
    """Fetch the database into the file `part`; returns the server's version, empty before 3.6. Exit."""
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Exit(INTERRUPTED, f"could not open {part} (open {part}: {_reason(error)})") from None
    try:
        notes.info("created temporary db file", {"path": part}, caller=f"{SAVER}:83")
        started = time.monotonic_ns()
        size, version = _receive(client, endpoint, fd, deadline)
        try:
            os.fsync(fd)
        except OSError as error:
            raise Exit(INTERRUPTED, f"could not fsync snapshot: {_reason(error)}") from None
    finally:
        os.close(fd)
    fields: dict[str, str | int] = {
        "endpoint": endpoint,
        "size": gotext.bytes_size(size),
        "took": gotext.duration(time.monotonic_ns() - started),
        "etcd-version": version,
    }
    notes.info("fetched snapshot", fields, caller=f"{SAVER}:111")
    return version


def _receive(client: Client, endpoint: str, fd: int, deadline: Deadline) -> tuple[int, str]:
    """Write the stream's blobs to `fd`; returns how many bytes came, and the server's version. Exit."""
    from hashlib import sha256

    from pyetcd.cli.progress_bar import ProgressBar

    bar = ProgressBar(0, in_bytes=True)
    digest, tail = sha256(), b""  # the last bytes, which may be the hash, are not hashed yet
    size, version, first = 0, "", True
    try:
        for message in messages(client, SNAPSHOT, lite.Message("etcdserverpb.SnapshotRequest"), deadline):
            answer = lite.decode("etcdserverpb.SnapshotResponse", message)
            if first:
                first, version = False, answer.text("version")
                notes.info(
                    "opened snapshot stream; downloading", {}, caller=f"{READER}:236", logger="client"
                )
                notes.info("fetching snapshot", {"endpoint": endpoint}, caller=f"{SAVER}:96")
            blob = answer.data("blob")
            _write_all(fd, blob)
            size += len(blob)
            held = tail + blob
            digest.update(held[:-HASH_BYTES])
            tail = held[-HASH_BYTES:]
            bar.expect(size + answer.number("remaining_bytes"))
            bar.advance(len(blob))
    except CallError as error:
        note: dict[str, str | int] = {"error": error.as_grpc()}
        failed = "failed to receive from snapshot stream; closing"
        notes.warn(failed, note, caller=f"{READER}:304", logger="client")
        late = error.message == "context deadline exceeded"
        words = str(error) if late else error.as_grpc()
        raise Exit(INTERRUPTED, words if first else f"could not write snapshot: {words}") from None
    finally:
        bar.close()
    notes.info("completed snapshot read; closing", {}, caller=f"{READER}:302", logger="client")
    if size % SECTOR_BYTES != HASH_BYTES:
        raise Exit(INTERRUPTED, f"sha256 checksum not found [bytes: {size}]")
    if digest.digest() != tail:
        raise Exit(INTERRUPTED, f"expected sha256 {tail.hex()}, got {digest.hexdigest()}")
    return size, version


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            written = os.write(fd, rest)
        except OSError as error:
            raise Exit(INTERRUPTED, f"could not write snapshot: {_reason(error)}") from None
        rest = rest[written:]


def _rename(part: str, path: str) -> None:
    try:
        os.rename(part, path)
    except OSError as error:
        # A directory is one more file that exists, to Go.
        words = "file exists" if isinstance(error, IsADirectoryError) else _reason(error)
        reason = f"rename {part} {path}: {words}"
        raise Exit(INTERRUPTED, f"could not rename {part} to {path} ({reason})") from None
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
