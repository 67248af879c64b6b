"""The buckets beside the key history: whether each entry can be read, and whether they fit each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from pyetcd.cli import gotext
from pyetcd.cli.etcdutl.checks.findings import Report
from pyetcd.cli.etcdutl.checks.history import ADVICE
from pyetcd.cluster.membership import BadMembership, Membership
from pyetcd.proto.auth_pb2 import Role, User
from pyetcd.proto.lease_pb2 import Lease
from pyetcd.proto.rpc_pb2 import AlarmMember, AlarmType
from pyetcd.storage import schema
from pyetcd.storage.bolt import Pin

META: Final = "bucket meta"
NUMBER_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Contents:
    """What the other parts go by. `members`: voters and learners; `removed`: who was one once."""

    leases: frozenset[int]
    members: frozenset[int]
    removed: frozenset[int]
    consistent_index: int
    term: int


def check_buckets(report: Report, pin: Pin) -> Contents:
    names = set(pin.buckets())
    for name in schema.ALL_BUCKETS:
        if name not in names:
            report.warn("database", f"the bucket {name.decode()} is missing", "A start makes it.")
    for name in sorted(names - set(schema.ALL_BUCKETS)):
        report.note("database", f"the bucket {gotext.quote(name)} is none of etcd 3.7's")
    members, removed = _members(report, pin)
    _auth(report, pin)
    _alarms(report, pin)
    index, term = _position(report, pin)
    _configuration(report, pin, members)
    return Contents(_leases(report, pin), members, removed, index, term)


def _rows(pin: Pin, bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
    for keys, values in pin.leaves(bucket):
        yield from zip(keys, values, strict=True)


def _leases(report: Report, pin: Pin) -> frozenset[int]:
    found: set[int] = set()
    for key, value in _rows(pin, schema.LEASE):
        shown = key.hex()
        try:
            lease = Lease.FromString(value)
        except DecodeError:
            report.damage(
                "bucket lease", f"lease {shown} cannot be read", ADVICE, "leases that cannot be read"
            )
            continue
        if len(key) != NUMBER_BYTES or schema.parse_lease_key(key) != lease.ID:
            report.damage("bucket lease", f"{shown} holds another lease", ADVICE, "leases under other names")
        found.add(lease.ID)
    report.fact("history", "leases", len(found))
    return frozenset(found)


def _members(report: Report, pin: Pin) -> tuple[frozenset[int], frozenset[int]]:
    membership = Membership(_ForReading(pin), 0, 0)
    try:
        membership.read()
    except BadMembership as error:
        report.damage("bucket members", str(error), ADVICE)
    report.fact("members", "members", [f"{member:x}" for member in sorted(membership.members)])
    if membership.version is not None:
        report.fact("members", "cluster version", str(membership.version))
    for member in sorted(membership.removed & membership.members.keys()):
        report.damage("bucket members", f"member {member:x} is there and removed", ADVICE)
    return frozenset(membership.members), frozenset(membership.removed)


def _auth(report: Report, pin: Pin) -> None:
    roles = {key for key, _ in _rows(pin, schema.AUTH_ROLES)}
    _read_all(report, pin, schema.AUTH_ROLES, lambda name, value: Role.FromString(value).name == name)

    def user_fits(name: bytes, value: bytes) -> bool:
        user = User.FromString(value)
        for role in user.roles:
            if role.encode("utf-8", "surrogateescape") not in roles:
                problem = f"user {gotext.quote(name)} has the role {gotext.quote(role)}, which is not there"
                report.warn("bucket authUsers", problem, "Revoke it from the user, or add the role.")
        return user.name == name

    _read_all(report, pin, schema.AUTH_USERS, user_fits)
    enabled = pin.get(schema.AUTH, schema.AUTH_ENABLED)
    if enabled not in (None, b"\0", b"\1"):
        report.damage("bucket auth", "whether authentication is on cannot be read", ADVICE)


def _read_all(report: Report, pin: Pin, bucket: bytes, fits: Callable[[bytes, bytes], bool]) -> None:
    where = f"bucket {bucket.decode()}"
    for name, value in _rows(pin, bucket):
        try:
            is_good = fits(name, value)
        except DecodeError:
            is_good = False
        if not is_good:
            report.damage(
                where, f"{gotext.quote(name)} cannot be read, or is of another name", ADVICE, "entries"
            )


def _alarms(report: Report, pin: Pin) -> None:
    for key, _ in _rows(pin, schema.ALARM):
        try:
            alarm = AlarmMember.FromString(key)
        except DecodeError:
            report.damage("bucket alarm", f"{gotext.quote(key)} is no alarm", ADVICE, "alarms")
            continue
        name = AlarmType.Name(alarm.alarm) if alarm.alarm in AlarmType.values() else str(alarm.alarm)
        advice = "Once its cause is gone: etcdctl alarm disarm."
        report.warn("bucket alarm", f"member {alarm.memberID:x} has raised the alarm {name}", advice)


def _position(report: Report, pin: Pin) -> tuple[int, int]:
    """Consistent index and term."""
    numbers: list[int] = []
    for key in (schema.CONSISTENT_INDEX, schema.TERM):
        value = pin.get(schema.META, key)
        if value is not None and len(value) != NUMBER_BYTES:
            report.damage(META, f"{key.decode()} has {len(value)} bytes, not {NUMBER_BYTES}", ADVICE)
            value = None
        numbers.append(schema.uint64(value))
    report.fact("database", "consistent index", numbers[0])
    report.fact("database", "term", numbers[1])
    version = schema.storage_version(pin)
    if version is not None:
        report.fact("database", "storage version", f"{version[0]}.{version[1]}")
    return numbers[0], numbers[1]


def _configuration(report: Report, pin: Pin, members: frozenset[int]) -> None:
    """What raft goes by, as far as the database knows it, against the members."""
    stored = pin.get(schema.META, schema.CONF_STATE)
    if stored is None:
        return
    try:
        state = json.loads(stored)
        ids = {int(each) for name in _CONF_STATE for each in state.get(name) or ()}
    except (ValueError, TypeError, AttributeError):
        report.damage(META, "confState cannot be read", ADVICE)
        return
    if members and ids != members:
        shown = " ".join(f"{each:x}" for each in sorted(ids))
        report.damage(META, f"confState names the members {shown}, the bucket members others", ADVICE)


_CONF_STATE: Final = ("voters", "learners", "voters_outgoing", "learners_next")


class _ForReading:
    """A pinned state where buckets are wanted that could be written, too."""

    def __init__(self, pin: Pin) -> None:
        self._pin = pin

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self._pin.get(bucket, key)

    def scan(
        self, bucket: bytes, start: bytes, end: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]:
        return self._pin.scan(bucket, start, end, limit)

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        raise AssertionError("a check does not write")

    def delete(self, bucket: bytes, key: bytes) -> None:
        raise AssertionError("a check does not write")
