"""`migrate`: the storage version of a stopped member's database, so that another version of etcd may start on
it.

The steps are etcd's (server/storage/schema): 3.6 began to write the version down, so going up to it sets the
key and going down from it removes the key; nothing else has changed up to 3.7. Going down is refused while
the log behind the last snapshot has entries that the older version does not know. `--force` sets the version
in any case.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from pyetcd import logs
from pyetcd.cli import gotext
from pyetcd.cli.command import Invocation
from pyetcd.cli.etcdutl import log_setup
from pyetcd.cli.etcdutl.places import check_is_there, database_in, join, open_to_write, said
from pyetcd.cli.exits import BAD_ARGS, ERROR, Exit
from pyetcd.cluster.versions import STORAGE_FIRST, STORAGE_LAST, Version
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.version_pb2 import etcd_version_field, etcd_version_msg
from pyetcd.storage import schema
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles
from pyetcd.storage.wal import LogEntry, WalError, read_only

OLDEST: Final = Version(3, 5)
# Entry types of raft beside requests, and the version that began with them.
CONF_CHANGES: Final = {1: Version(3, 0), 2: Version(3, 4)}

_log = logs.get("etcdutl")


class CannotMigrate(Exception):
    """The text is etcd's."""


def migrate(call: Invocation) -> None:
    data_dir, target = call.text("data-dir"), _target(call.text("target-version"))
    files, path = OsFiles(), database_in(data_dir)
    missing = check_is_there(files, path)
    if missing is not None:
        raise Exit(ERROR, missing)
    log_setup.to_console()
    backend = open_to_write(files, path, call)
    try:
        current = _current(backend)
        if current == target:
            _log.info("storage version up-to-date", {"storage-version": current.short})
            return
        entries = _entries(files, join(data_dir, "member", "wal"))
        try:
            change_version(backend, current, target, entries)
        except CannotMigrate as error:
            if not call.on("force"):
                raise
            _log.info("normal migrate failed, trying with force", {"error": error})
            _force(backend, target)
        backend.commit_now()
    except CannotMigrate as error:
        raise Exit(ERROR, str(error)) from None
    except OSError as error:
        raise Exit(ERROR, said("write", error.filename or path, error)) from None
    finally:
        backend.discard()


def _target(text: str) -> Version:
    """The value of `--target-version`, which has two numbers."""
    if text.count(".") != 1:
        shown = gotext.quote(text)
        raise Exit(BAD_ARGS, f'wrong target version format, expected "X.Y", got {shown}')
    try:
        major, minor = (gotext.parse_int(part, 10) for part in text.split("."))
    except gotext.GoValueError as error:
        raise Exit(BAD_ARGS, f"failed to parse target version: {error}") from None
    version = Version(major, minor)
    if version < OLDEST:
        raise Exit(BAD_ARGS, f'target version "{version.short}" not supported. Minimal "3.5"')
    return version


def _current(backend: Backend) -> Version:
    found = schema.storage_version(backend)
    if found is None:
        hint = "Please make sure you are using data dir from etcd v3.5 and older"
        _log.error(f"failed to detect storage version. {hint}")
        raise CannotMigrate("missing term information")
    return Version(*found)


def _entries(files: OsFiles, wal_dir: str) -> list[LogEntry]:
    """The log behind its last snapshot."""
    try:
        return read_only(files, wal_dir, entry=LogEntry).entries
    except (WalError, OSError) as error:
        failure = CannotMigrate(f"failed to get the lastest snapshot: {error}")
        _log.error("Failed to finalize config", {"error": failure})
        raise failure from None


def change_version(backend: Backend, current: Version, target: Version, entries: Iterable[LogEntry]) -> None:
    """Go from version to version. CannotMigrate, with nothing changed, when there is no way."""
    steps = _steps(current, target)
    if target < current:
        needed = needed_version(entries)
        if needed is not None and target < needed:
            raise CannotMigrate(
                "cannot downgrade storage, WAL contains newer entries, as the target version"
                f" ({target}) is lower than the version ({needed}) detected from WAL logs"
            )
    for version in steps:
        _set_version(backend, version)
        _log.info("updated storage version", {"new-storage-version": str(version)})


def _steps(current: Version, target: Version) -> list[Version]:
    """Every version on the way, the target last."""
    if current.major != target.major:
        fields = {"storage-version": str(current), "target-storage-version": str(target)}
        _log.error("Changing major storage version is not supported", fields)
        raise CannotMigrate("cannot create migration plan: changing major storage version is not supported")
    way = 1 if current.minor < target.minor else -1
    steps = []
    for minor in range(current.minor, target.minor, way):
        # What has changed is written down at the higher of the two versions.
        higher = Version(current.major, max(minor, minor + way))
        if not STORAGE_FIRST <= higher <= STORAGE_LAST:
            raise CannotMigrate(f'cannot create migration plan: version "{higher}" is not supported')
        steps.append(Version(current.major, minor + way))
    return steps


def _set_version(backend: Backend, version: Version) -> None:
    """Versions before 3.6 do not write it down."""
    if version < STORAGE_FIRST:
        backend.delete(schema.META, schema.STORAGE_VERSION)
    else:
        backend.put(schema.META, schema.STORAGE_VERSION, str(version).encode())


def _force(backend: Backend, target: Version) -> None:
    _set_version(backend, target)
    if target < STORAGE_FIRST:
        _log.warn("forcefully cleared storage version")
    else:
        _log.warn("forcefully set storage version", {"storage-version": target.short})


def needed_version(entries: Iterable[LogEntry]) -> Version | None:
    """The oldest etcd that knows all there is in these entries, by the versions our `.proto` files give."""
    newest: Version | None = None
    for entry in entries:
        for version in _versions_in_entry(entry):
            if newest is None or newest < version:
                newest = version
    return newest


def _versions_in_entry(entry: LogEntry) -> Iterable[Version]:
    if entry.type in CONF_CHANGES:
        return [CONF_CHANGES[entry.type]]
    try:
        request = InternalRaftRequest.FromString(entry.data)
    except DecodeError as error:
        raise CannotMigrate(f"failed to read wal: entry {entry.index}: {error}") from None
    found = _versions_in(request)
    if request.HasField("downgrade_version_test"):
        try:
            found.append(Version.parse(request.downgrade_version_test.ver))
        except ValueError as error:
            raise CannotMigrate(f"failed to read wal: entry {entry.index}: {error}") from None
    return found


def _versions_in(message: Message) -> list[Version]:
    """The versions that a message, its fields and what is in them name."""
    named = [_option(message.DESCRIPTOR.GetOptions(), etcd_version_msg)]
    found: list[Version] = []
    for field, value in message.ListFields():
        named.append(_option(field.GetOptions(), etcd_version_field))
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if isinstance(value, Iterable) else [value]:
                found += _versions_in(each)
    return found + [Version.parse(f"{text}.0") for text in named if text]


def _option(options: Any, extension: FieldDescriptor) -> str:
    """A text the `.proto` files attach to a message or field; empty without one."""
    text: str = options.Extensions[extension]
    return text
