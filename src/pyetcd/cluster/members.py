"""A member of the cluster, its identity, and its JSON in etcd's exact bytes.

Identities are computed, so that members that start apart agree on them: a member's is the first 8 bytes of
the SHA-1 over its sorted peer URLs and the cluster token (and, for one added later, the Unix time), the
cluster's is that over the sorted member IDs. IDs print as plain hexadecimal without leading zeros.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from pyetcd.cluster import gojson

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Member:
    """One member. `name` and `client_urls` are empty until it has started and published itself.

    `peer_urls` is None where the JSON it came from had no list (in a promotion, which names the member only).
    """

    id: int
    peer_urls: tuple[str, ...] | None = ()
    is_learner: bool = False
    name: str = ""
    client_urls: tuple[str, ...] = ()

    @property
    def is_started(self) -> bool:
        return self.name != ""

    @property
    def hex_id(self) -> str:
        return f"{self.id:x}"

    def with_attributes(self, name: str, client_urls: Iterable[str]) -> Member:
        return replace(self, name=name, client_urls=tuple(client_urls))


class BadMember(ValueError):
    """Bytes that should be a member's JSON and are not."""


def member_id(peer_urls: Iterable[str], token: str, unix_seconds: int | None = None) -> int:
    """The ID of a member. `unix_seconds` is given for one added to a running cluster, whose token is then
    empty.
    """
    text = "".join(sorted(peer_urls)) + token
    if unix_seconds is not None:
        text += str(unix_seconds)
    return int.from_bytes(hashlib.sha1(text.encode()).digest()[:8], "big")


def cluster_id(member_ids: Iterable[int]) -> int:
    """The ID of the cluster that begins with these members."""
    joined = b"".join(id.to_bytes(8, "big") for id in sorted(member_ids))
    return int.from_bytes(hashlib.sha1(joined).digest()[:8], "big")


def new_member(
    name: str, peer_urls: Iterable[str], token: str, unix_seconds: int | None = None, is_learner: bool = False
) -> Member:
    """A member with the ID that follows from what it is."""
    urls = tuple(sorted(peer_urls))
    return Member(member_id(urls, token, unix_seconds), urls, is_learner, name)


def raft_attributes_json(member: Member) -> str:
    return gojson.fields(_raft_attributes(member))


def attributes_json(member: Member) -> str:
    return gojson.fields(_attributes(member))


def to_json(member: Member) -> bytes:
    """As in the bucket `members` and in the context of configuration changes."""
    return gojson.fields([("id", str(member.id)), *_raft_attributes(member), *_attributes(member)]).encode()


def to_promotion_json(member_id: int) -> bytes:
    """The context of the change that makes a learner a voter."""
    pairs = [("id", str(member_id)), ("peerURLs", "null"), ("isPromote", "true")]
    return gojson.fields(pairs).encode()


def from_json(data: bytes) -> tuple[Member, bool]:
    """A member and whether it is a promotion. BadMember if the bytes are no such thing.

    As Go reads it: names of fields in any case, unknown ones skipped, null for nothing.
    """
    try:
        found = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise BadMember(str(error)) from None
    return from_fields(found)


def from_fields(found: object) -> tuple[Member, bool]:
    """The same from parsed JSON."""
    if not isinstance(found, dict):
        raise BadMember("not a JSON object")
    known = {str(name).lower(): value for name, value in found.items() if value is not None}
    id = _take(known, "id", int, 0)
    if not 0 <= id < 1 << 64:
        raise BadMember(f"id {id} is out of range")
    member = Member(
        id,
        _texts(known, "peerurls"),
        _take(known, "islearner", bool, False),
        _take(known, "name", str, ""),
        _texts(known, "clienturls") or (),
    )
    return member, _take(known, "ispromote", bool, False)


def _raft_attributes(member: Member) -> list[tuple[str, str]]:
    pairs = [("peerURLs", "null" if member.peer_urls is None else gojson.strings(member.peer_urls))]
    if member.is_learner:
        pairs.append(("isLearner", "true"))
    return pairs


def _attributes(member: Member) -> list[tuple[str, str]]:
    pairs = []
    if member.name:
        pairs.append(("name", gojson.string(member.name)))
    if member.client_urls:
        pairs.append(("clientURLs", gojson.strings(member.client_urls)))
    return pairs


def _take(known: dict[str, object], name: str, kind: type[T], default: T) -> T:
    value = known.get(name, default)
    if type(value) is not kind:  # a bool is no int here
        raise BadMember(f"{name} is a {type(value).__name__}")
    return value


def _texts(known: dict[str, object], name: str) -> tuple[str, ...] | None:
    value = known.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise BadMember(f"{name} is not a list of strings")
    return tuple(value)
