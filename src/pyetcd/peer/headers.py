"""Who is talking, in HTTP headers, and whether the two may talk to each other.

Every request of a member names its ID, its cluster, its version, the lowest cluster version it can serve in,
and its peer URLs, by which a member that does not know it yet may answer. Rules that hold here:

* A request from another cluster, or of a version ours cannot work with, is refused with 412 and etcd's text.
* IDs and versions come from outside: what cannot be read is refused like what does not fit. (A version that
  is none crashes the handler in Go.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pyetcd import logs
from pyetcd.version import MIN_CLUSTER_VERSION, SERVER_VERSION

Headers = Sequence[tuple[str, str]]

INCOMPATIBLE_VERSION: Final = "incompatible version"
CLUSTER_ID_MISMATCH: Final = "cluster ID mismatch"
_OLDEST: Final = "2.0.0"  # what etcd 2.0, which sends no versions, is taken for
_VERSION: Final = re.compile(
    r"([+-]?[0-9]+)\.([+-]?[0-9]+)\.([+-]?[0-9]+)(-[0-9A-Za-z.-]*)?(\+[0-9A-Za-z.-]*)?"
)
_ID: Final = re.compile(r"[0-9a-fA-F]+")

_log = logs.get("peer")


def hex_id(id: int) -> str:
    return f"{id:x}"


def parse_id(text: str) -> int | None:
    """An ID in hexadecimal, None when it is none."""
    if not _ID.fullmatch(text) or len(text.lstrip("0")) > 16:
        return None
    return int(text, 16)


def header(headers: Headers, name: str) -> str:
    """The first value of a header, by its lower-case name; empty when there is none."""
    for key, value in headers:
        if key == name or key.lower() == name:
            return value
    return ""


def parse_version(text: str) -> tuple[int, int] | None:
    """Major and minor number; no text stands for etcd 2.0. None when it cannot be read."""
    match = _VERSION.fullmatch(text or _OLDEST) if len(text) < 256 else None
    return None if match is None else (int(match[1]), int(match[2]))


_LOCAL: Final = parse_version(SERVER_VERSION) or (0, 0)
_LOWEST: Final = parse_version(MIN_CLUSTER_VERSION) or (0, 0)


@dataclass(frozen=True, slots=True)
class Identity:
    """This member, as it introduces itself."""

    local_id: int
    cluster_id: int
    advertised: tuple[str, ...]

    def stream_headers(self, to: int) -> Headers:
        """Of a request for a stream of what `to` has to say."""
        return (*self._common(), ("X-Raft-To", hex_id(to)), *self._urls())

    def post_headers(self, content_type: str) -> Headers:
        """Of a request that brings a message."""
        return (("Content-Type", content_type), *self._common(), *self._urls())

    def _common(self) -> Headers:
        return (
            ("X-Server-From", hex_id(self.local_id)),
            ("X-Server-Version", SERVER_VERSION),
            ("X-Min-Cluster-Version", MIN_CLUSTER_VERSION),
            ("X-Etcd-Cluster-ID", hex_id(self.cluster_id)),
        )

    def _urls(self) -> Headers:
        return (("X-PeerURLs", ",".join(self.advertised)),) if self.advertised else ()

    def refusal(self, headers: Headers) -> str | None:
        """Why the sender of these headers is not served, in etcd's words, or None."""
        name = header(headers, "x-server-from")
        server = header(headers, "x-server-version") or _OLDEST
        lowest = header(headers, "x-min-cluster-version") or _OLDEST
        error = _version_error(name, server, lowest)
        cluster = header(headers, "x-etcd-cluster-id")
        if error is None and cluster == hex_id(self.cluster_id):
            return None
        fields = {
            "local-member-id": hex_id(self.local_id),
            "local-member-cluster-id": hex_id(self.cluster_id),
            "local-member-server-version": SERVER_VERSION,
            "local-member-server-minimum-cluster-version": MIN_CLUSTER_VERSION,
            "remote-peer-server-name": name,
            "remote-peer-server-version": server,
            "remote-peer-server-minimum-cluster-version": lowest,
        }
        if error is not None:
            _log.warn("failed version compatibility check", {**fields, "error": error})
            return INCOMPATIBLE_VERSION
        _log.warn("request cluster ID mismatch", {**fields, "remote-peer-cluster-id": cluster})
        return CLUSTER_ID_MISMATCH


def _version_error(name: str, server: str, lowest: str) -> str | None:
    theirs, their_lowest = parse_version(server), parse_version(lowest)
    if theirs is None or their_lowest is None:
        return f"{server if theirs is None else lowest} is not in dotted-tri format"
    if theirs < _LOWEST:
        return f"remote version is too low: remote[{name}]={server}, local={SERVER_VERSION}"
    if their_lowest > _LOCAL:
        return f"local version is too low: remote[{name}]={server}, local={SERVER_VERSION}"
    return None


def sends_streams(version: str) -> bool:
    """Whether a server of this version (the header's text) has both kinds of streams."""
    theirs = parse_version(version)
    if theirs is None:
        return False
    return theirs >= _LOCAL or theirs in _WITH_STREAMS


_WITH_STREAMS: Final = {(2, 1), (2, 2), (2, 3), *((3, minor) for minor in range(_LOCAL[1] + 1))}
