"""The steps between versions of the storage, and what is in their way.

They are etcd's (server/storage/schema): 3.6 began to write the version down, so going up to it sets the key
and going down from it removes the key; nothing else has changed up to 3.7. Going down is refused while the
log behind the last snapshot has entries that the older version does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from pyetcd import logs
from pyetcd.cluster.versions import STORAGE_FIRST, STORAGE_LAST, Version
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.version_pb2 import etcd_version_field, etcd_version_msg
from pyetcd.storage.schema import META, STORAGE_VERSION

# Entry types of raft beside requests, and the version that began with them.
CONF_CHANGES: Final = {1: Version(3, 0), 2: Version(3, 4)}

_log = logs.get("cluster")

_known: dict[str, Version | None] = {}  # by full names, of which there are some hundreds


class CannotMigrate(Exception):
    """The text is etcd's."""


class Target(Protocol):
    """The part of the backend that is needed here."""

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None: ...
    def delete(self, bucket: bytes, key: bytes) -> None: ...


class LogEntry(Protocol):
    """The part of an entry of the log that is needed here."""

    @property
    def index(self) -> int: ...
    @property
    def type(self) -> int: ...
    @property
    def data(self) -> bytes: ...


class Described(Protocol):
    """A message or field as protobuf describes it."""

    @property
    def full_name(self) -> str: ...
    def GetOptions(self) -> Any: ...


def change_version(backend: Target, current: Version, target: Version, entries: Iterable[LogEntry]) -> None:
    """Go from version to version. CannotMigrate, with nothing changed, when there is no way."""
    steps = plan(current, target)
    if target < current:
        check_log(target, needed_version(entries))
    take(backend, steps)


def check_log(target: Version, needed: Version | None) -> None:
    """Whether `target` knows what the log needs. CannotMigrate if not."""
    if needed is not None and target < needed:
        raise CannotMigrate(
            "cannot downgrade storage, WAL contains newer entries, as the target version"
            f" ({target}) is lower than the version ({needed}) detected from WAL logs"
        )


def take(backend: Target, steps: Iterable[Version]) -> None:
    for version in steps:
        set_version(backend, version)
        _log.info("updated storage version", {"new-storage-version": str(version)})


def plan(current: Version, target: Version) -> list[Version]:
    """Every version on the way, the target last. CannotMigrate when there is no way."""
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


def set_version(backend: Target, version: Version) -> None:
    """Write it down, which versions before 3.6 do not."""
    if version < STORAGE_FIRST:
        backend.delete(META, STORAGE_VERSION)
    else:
        backend.put(META, STORAGE_VERSION, str(version).encode())


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
    named = [_begun(message.DESCRIPTOR, etcd_version_msg)]
    found: list[Version] = []
    for field, value in message.ListFields():
        named.append(_begun(field, etcd_version_field))
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in value if isinstance(value, Iterable) else [value]:
                found += _versions_in(each)
    return found + [version for version in named if version is not None]


def _begun(what: Described, extension: FieldDescriptor) -> Version | None:
    """The version with which a message or field began, where the `.proto` files give one. Kept, since to ask
    protobuf takes 20 times as long."""
    name = what.full_name
    if name not in _known:
        text: str = what.GetOptions().Extensions[extension]
        _known[name] = Version.parse(f"{text}.0") if text else None
    return _known[name]
