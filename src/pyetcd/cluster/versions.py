"""Versions: of servers, of the cluster, of the storage, and the rules by which they change.

The cluster's version is the lowest major.minor among its members: the leader looks at all of them and
proposes it. The storage's follows the cluster's on each member by itself. A downgrade goes one minor
version at a time, after it has been enabled. Rules after etcd's server/etcdserver/version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import total_ordering

from pyetcd import logs
from pyetcd.proto import errors

_log = logs.get("cluster")

_FORM = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]*))?(?:\+[0-9A-Za-z.-]*)?")


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A semantic version; what follows a `+` is dropped."""

    major: int
    minor: int
    patch: int = 0
    pre_release: str = ""

    @classmethod
    def parse(cls, text: str) -> Version:
        """ValueError unless `text` is three numbers, dotted."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"{text} is not in dotted-tri format")
        return cls(int(match[1]), int(match[2]), int(match[3]), match[4] or "")

    @property
    def of_cluster(self) -> Version:
        """Without patch level."""
        return Version(self.major, self.minor)

    @property
    def short(self) -> str:
        """`major.minor`, as in logs and answers."""
        return f"{self.major}.{self.minor}"

    def __str__(self) -> str:
        tail = f"-{self.pre_release}" if self.pre_release else ""
        return f"{self.major}.{self.minor}.{self.patch}{tail}"

    def __lt__(self, other: Version) -> bool:
        mine, theirs = (self.major, self.minor, self.patch), (other.major, other.minor, other.patch)
        if mine != theirs:
            return mine < theirs
        return _pre_release_key(self.pre_release) < _pre_release_key(other.pre_release)


def _pre_release_key(text: str) -> tuple[int, list[tuple[int, int, str]]]:
    """Pre-releases come before the release; their parts compare as numbers where they are numbers."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in text.split(".")]
    return (0, parts) if text else (1, [])


SERVER = Version(3, 7, 1)
LOWEST = Version(3, 0)
STORAGE_FIRST = Version(3, 6)  # the first whose storage carries its version
STORAGE_LAST = SERVER.of_cluster


@dataclass(frozen=True, slots=True)
class Downgrade:
    """Whether the cluster may go down a version, and to which."""

    enabled: bool = False
    target: str = ""


class NewerCluster(Exception):
    """The cluster has agreed on a version this server does not know."""

    def __init__(self, cluster: Version) -> None:
        message = "invalid downgrade; server version is lower than determined cluster version"
        super().__init__(f"{message}: {SERVER.short} < {cluster.short}")
        self.message = message
        self.fields = {
            "current-server-version": str(SERVER.of_cluster),
            "determined-cluster-version": cluster.short,
        }


def check_not_newer(cluster: Version | None) -> None:
    """NewerCluster where this server is older than what the cluster has agreed on."""
    if cluster is not None and SERVER.of_cluster < cluster:
        raise NewerCluster(cluster)


def parse_target(text: str) -> Version:
    """What a client wants to go down to: `3.6.0` or `3.6`. WRONG_DOWNGRADE_VERSION_FORMAT otherwise."""
    for form in (text, text + ".0"):
        try:
            return Version.parse(form).of_cluster
        except ValueError:
            continue
    raise errors.WRONG_DOWNGRADE_VERSION_FORMAT


def check_downgrade(cluster: Version, target: Version, current: Downgrade) -> None:
    """Whether a downgrade to `target` may be enabled now, or the error a client gets."""
    if not _is_one_below(cluster, target):
        raise errors.INVALID_DOWNGRADE_TARGET_VERSION
    if current.enabled:
        raise errors.DOWNGRADE_IN_PROCESS


class InvalidTarget(Exception):
    """A downgrade that was enabled cannot be carried out."""

    def __init__(self) -> None:
        super().__init__("invalid downgrade target")


def lowest_server_version(members: Mapping[int, str | None]) -> Version | None:
    """The lowest of the members' server versions; None as long as one of them is not known."""
    lowest: Version | None = None
    for id, text in members.items():
        if text is None:
            return None
        try:
            version = Version.parse(text)
        except ValueError as error:
            _tell_odd_version(id, text, error)
            return None
        if version > SERVER:
            _log.warn(
                "leader found higher-versioned member",
                {
                    "local-member-version": str(SERVER),
                    "remote-member-id": f"{id:x}",
                    "remote-member-version": text,
                },
            )
        if lowest is None or version < lowest:
            lowest = version
    return lowest


def decide_cluster_version(
    cluster: Version | None, members: Mapping[int, str | None], downgrade: Downgrade
) -> Version | None:
    """The version a leader should propose now, or None to leave it as it is. InvalidTarget, logged, where a
    downgrade says otherwise.

    `members` has the server version of every member, None where it did not answer.
    """
    lowest = lowest_server_version(members)
    if cluster is None:
        return (lowest or LOWEST).of_cluster
    if lowest is None:
        return None
    if downgrade.enabled:
        return _decide_downgrade(cluster, lowest, downgrade)
    if cluster < lowest and cluster.of_cluster < lowest.of_cluster and cluster.major == lowest.major:
        return lowest.of_cluster
    return None


def _decide_downgrade(cluster: Version, lowest: Version, downgrade: Downgrade) -> Version | None:
    target = Version.parse(downgrade.target)
    if target == cluster:
        return None
    for name, version in (("cluster-version", cluster), ("minimal-server-version", lowest)):
        if not _is_one_below(version, target):
            _log.error(
                f"Cannot downgrade from {name} to downgrade-target",
                {"downgrade-target": downgrade.target, name: str(version)},
            )
            raise InvalidTarget
    return target.of_cluster


def is_downgraded(members: Mapping[int, str | None], target: Version) -> bool:
    """Whether every member runs the target version, so that the downgrade is done."""
    for id, text in members.items():
        if text is None:
            return False
        try:
            version = Version.parse(text).of_cluster
        except ValueError as error:
            _tell_odd_version(id, text, error)
            return False
        if version != target.of_cluster:
            _log.warn(
                "remotes server has mismatching etcd version",
                {
                    "remote-member-id": f"{id:x}",
                    "current-server-version": str(version),
                    "target-version": str(target.of_cluster),
                },
            )
            return False
    return True


def _tell_odd_version(id: int, text: str, error: ValueError) -> None:
    _log.warn(
        "failed to parse server version of remote member",
        {"remote-member-id": f"{id:x}", "remote-member-version": text, "error": error},
    )


def decide_storage_version(cluster: Version | None, storage: Version | None) -> Version | None:
    """The version the storage should have now, or None to leave it as it is. It follows the cluster's once
    that is more than the first guess.
    """
    if (
        cluster is None
        or cluster == LOWEST
        or (storage is not None and storage.of_cluster == cluster.of_cluster)
    ):
        return None
    return cluster.of_cluster


class UnknownStorage(Exception):
    """The storage has a version this server cannot read; the text is etcd's."""


def check_storage_version(storage: Version) -> None:
    """Whether this server can use a storage of this version. UnknownStorage if not."""
    if storage.major != STORAGE_LAST.major:
        raise UnknownStorage("changing major storage version is not supported")
    if storage.of_cluster > STORAGE_LAST or storage.of_cluster < Version(3, 5):
        raise UnknownStorage(f'version "{storage.of_cluster}" is not supported')


def _is_one_below(version: Version, target: Version) -> bool:
    return (target.major, target.minor, target.patch) == (version.major, version.minor - 1, 0)
