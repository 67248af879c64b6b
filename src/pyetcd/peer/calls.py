"""What one member asks another beside raft's messages: members, versions, a promotion, leases, hashes.

Rules that hold here:

* What comes back is untrusted: it is bounded, read strictly, and what does not fit is a CallFailed. Beside
  that only the errors named are raised, which the asked member meant.
* A member is asked at one of its URLs after another until one answers; only what all of them said counts.
* Paths, bodies, statuses and texts are etcd's (server/etcdserver/cluster_util.go and corrupt.go,
  server/lease/leasehttp).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from google.protobuf.message import DecodeError

from pyetcd import logs
from pyetcd.cluster.members import BadMember, Member, from_fields
from pyetcd.cluster.urls import Url, UrlError, parse_url
from pyetcd.peer.wire import Unreachable
from pyetcd.proto import errors, strict
from pyetcd.proto.lease_pb2 import LeaseInternalRequest, LeaseInternalResponse
from pyetcd.proto.rpc_pb2 import (
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)

MEMBERS: Final = "/members"
PROMOTE: Final = "/members/promote/"
HASH_KV: Final = "/members/hashkv"
VERSION: Final = "/version"
LEASES: Final = "/leases"
LEASES_INTERNAL: Final = "/leases/internal"
DOWNGRADE_ENABLED: Final = "/downgrade/enabled"
CLUSTER_ID: Final = "X-Etcd-Cluster-Id"

ANSWER_BYTES_MAX: Final = 4 << 20
SHORT_ANSWER_BYTES_MAX: Final = 64 << 10
LEASE_ANSWER_BYTES_MAX: Final = 100 << 20  # a lease's keys

MISMATCH: Final = "cluster ID mismatch"
LEASE_BEHIND: Final = "waiting for node to catch up its applied index has timed out"
ID_NOT_FOUND: Final = "membership: ID not found"
NOT_A_LEARNER: Final = "membership: can only promote a learner member"

_JSON: Final = ("Content-Type", "application/json")
_PROTOBUF: Final = ("Content-Type", "application/protobuf")
_TRUE: Final = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE: Final = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_INT64: Final = range(-(1 << 63), 1 << 63)

T = TypeVar("T")

_log = logs.get("peer")


class CallFailed(Exception):
    """Another member did not answer, or not as it should. The text is for the log line."""


class LeaseBehind(CallFailed):
    """The asked member has not applied what is committed yet: ask again."""

    def __init__(self) -> None:
        super().__init__(LEASE_BEHIND)


class OtherCluster(CallFailed):
    """The asked member is of another cluster."""

    def __init__(self) -> None:
        super().__init__(MISMATCH)


class BadClusterId(CallFailed):
    """The header that names the cluster cannot be read."""

    def __init__(self, header: str, why: str) -> None:
        super().__init__(why)
        self.header = header


class Response(Protocol):
    """What the wire gives. Header names are in lower case."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Sequence[tuple[str, str]]: ...
    @property
    def body(self) -> bytes: ...


class Requests(Protocol):
    """The part of the wire that is needed here."""

    async def request(
        self,
        url: Url,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        timeout_seconds: float,
    ) -> Response:
        """The whole answer, whatever its status. Raises peer.wire.Unreachable."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What a member says of versions. `cluster` is "not_decided", `storage` "unknown" where there is none."""

    server: str
    cluster: str
    storage: str


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """A cluster as one of its members describes it."""

    id: int
    members: Sequence[Member]


@dataclass(frozen=True, slots=True)
class PeerHash:
    """The hash of a member's keys up to `hash_revision`. `revision` is where the member was then."""

    member_id: int
    revision: int
    hash: int
    compact_revision: int
    hash_revision: int


class Calls:
    """Questions to other members, over `requests`. `timeout_seconds` is for each request."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    # The cluster

    async def members(self, url: Url, timeout_seconds: float) -> ClusterInfo:
        """The cluster that the member at `url` is in; without members where it has none yet. CallFailed."""
        response = await self._ask(url, "GET", MEMBERS, timeout_seconds=timeout_seconds)
        members = _members(_json(response.body, ANSWER_BYTES_MAX))
        return ClusterInfo(_cluster_id(response), members)

    async def version(self, url: Url, timeout_seconds: float) -> Versions:
        """CallFailed."""
        response = await self._ask(url, "GET", VERSION, timeout_seconds=timeout_seconds)
        found = _fields(_json(response.body, SHORT_ANSWER_BYTES_MAX))
        return Versions(_text(found, "etcdserver"), _text(found, "etcdcluster"), _text(found, "storage"))

    async def downgrade_enabled(self, url: Url, timeout_seconds: float) -> bool:
        """CallFailed."""
        response = await self._ask(url, "GET", DOWNGRADE_ENABLED, timeout_seconds=timeout_seconds)
        text = response.body[:SHORT_ANSWER_BYTES_MAX].decode("utf-8", "replace")
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise CallFailed(f"strconv.ParseBool: parsing {logs.quote(text)}: invalid syntax")

    async def promote(
        self, url: Url, member_id: int, timeout_seconds: float, token: str | None = None
    ) -> Sequence[Member]:
        """Ask the leader to promote a learner. The members as they are then.

        CallFailed, or what the leader says: TIMEOUT, MEMBER_NOT_FOUND, MEMBER_NOT_LEARNER, LEARNER_NOT_READY.
        """
        headers = (("Authorization", token),) if token else ()
        response = await self._ask(
            url, "POST", f"{PROMOTE}{member_id}", headers, timeout_seconds=timeout_seconds
        )
        if response.status == 408:
            raise errors.TIMEOUT
        if response.status == 404:
            raise errors.MEMBER_NOT_FOUND
        text = _shown(response.body)
        if response.status == 412:
            for error, said in (
                (errors.LEARNER_NOT_READY, errors.LEARNER_NOT_READY.message),
                (errors.MEMBER_NOT_LEARNER, NOT_A_LEARNER),
            ):
                if said in text:
                    raise error
        if response.status != 200:
            raise CallFailed(f"member promote: unknown error({text})")
        return _members(_json(response.body, ANSWER_BYTES_MAX))

    # Leases

    async def renew(self, url: Url, lease_id: int, timeout_seconds: float) -> int:
        """Ask the leader to keep a lease alive. Its time to live in seconds.

        CallFailed, LeaseBehind, LEASE_NOT_FOUND."""
        request = LeaseKeepAliveRequest(ID=lease_id)
        body = await self._ask_lessor(url, LEASES, request.SerializeToString(), timeout_seconds)
        answer = _message(LeaseKeepAliveResponse, body)
        if lease_id != answer.ID:
            raise CallFailed("lease: renew id mismatch")
        return answer.TTL

    async def time_to_live(
        self, url: Url, lease_id: int, keys: bool, timeout_seconds: float
    ) -> LeaseTimeToLiveResponse:
        """Ask the leader how long a lease lives, and with `keys` what hangs on it; the header is empty.

        CallFailed, LeaseBehind, LEASE_NOT_FOUND."""
        request = LeaseInternalRequest(LeaseTimeToLiveRequest=LeaseTimeToLiveRequest(ID=lease_id, keys=keys))
        body = await self._ask_lessor(url, LEASES_INTERNAL, request.SerializeToString(), timeout_seconds)
        answer = _message(LeaseInternalResponse, body).LeaseTimeToLiveResponse
        if lease_id != answer.ID:
            raise CallFailed("lease: TTL id mismatch")
        return answer

    async def _ask_lessor(self, url: Url, path: str, body: bytes, timeout_seconds: float) -> bytes:
        response = await self._ask(url, "POST", path, (_PROTOBUF,), body, timeout_seconds=timeout_seconds)
        if len(response.body) > LEASE_ANSWER_BYTES_MAX:
            raise CallFailed(f"lease: response body exceeds {LEASE_ANSWER_BYTES_MAX} bytes limit")
        if response.status == 408:
            raise LeaseBehind
        if response.status == 404:
            raise errors.LEASE_NOT_FOUND
        if response.status != 200:
            raise CallFailed(f"lease: unknown error({_shown(response.body)})")
        return response.body

    # Hashes

    async def hash_kv(self, url: Url, cluster_id: int, revision: int, timeout_seconds: float) -> PeerHash:
        """The hash of a member's keys at `revision`, 0 for its newest.

        CallFailed, OtherCluster, COMPACTED, FUTURE_REVISION."""
        body = json.dumps({"revision": revision} if revision else {}, separators=(",", ":")).encode()
        headers = (_JSON, (CLUSTER_ID, f"{cluster_id:x}"))
        response = await self._ask(url, "GET", HASH_KV, headers, body, timeout_seconds=timeout_seconds)
        text = _shown(response.body)
        if response.status == 400:
            for error in (errors.COMPACTED, errors.FUTURE_REVISION):
                if error.message.removeprefix("etcdserver: ") in text:
                    raise error
        if response.status == 412 and MISMATCH in text:
            raise OtherCluster
        if response.status != 200:
            raise CallFailed(f"unknown error: {text}")
        found = _fields(_json(response.body, SHORT_ANSWER_BYTES_MAX))
        header = _fields(found.get("header", {}))
        return PeerHash(
            _integer(header, "member_id", range(1 << 64)),
            _integer(header, "revision", _INT64),
            _integer(found, "hash", range(1 << 32)),
            _integer(found, "compact_revision", _INT64),
            _integer(found, "hash_revision", _INT64),
        )

    # One member, at whichever of its URLs

    async def version_of(self, member: Member, timeout_seconds: float) -> Versions:
        """CallFailed with what the last of its URLs said."""
        return await self._anywhere(member, VERSION, lambda url: self.version(url, timeout_seconds))

    async def downgrade_enabled_of(self, member: Member, timeout_seconds: float) -> bool:
        """CallFailed with what the last of its URLs said."""
        return await self._anywhere(
            member, DOWNGRADE_ENABLED, lambda url: self.downgrade_enabled(url, timeout_seconds)
        )

    async def versions_of(
        self, members: Iterable[Member], timeout_seconds: float
    ) -> Mapping[int, Versions | None]:
        """By ID; None for those that did not answer."""
        found: dict[int, Versions | None] = {}
        for member in members:
            try:
                found[member.id] = await self.version_of(member, timeout_seconds)
            except CallFailed as error:
                _log.warn("failed to get version", {"remote-member-id": member.hex_id, "error": str(error)})
                found[member.id] = None
        return found

    async def is_downgrading(self, members: Iterable[Member], timeout_seconds: float) -> bool:
        """Whether the first of these members that answers says that a downgrade is enabled."""
        for member in members:
            try:
                return await self.downgrade_enabled_of(member, timeout_seconds)
            except CallFailed as error:
                fields = {"remote-member-id": member.hex_id, "error": str(error)}
                _log.warn("failed to get downgrade enabled status", fields)
        return False

    async def _anywhere(self, member: Member, path: str, ask: Callable[[Url], Awaitable[T]]) -> T:
        failure = CallFailed(f"member {member.hex_id} has no peer URLs")
        for text in member.peer_urls or ():
            try:
                return await ask(parse_url(text))
            except UrlError as error:
                failure = CallFailed(str(error))
            except CallFailed as error:
                failure = error
            fields = {"address": text + path, "remote-member-id": member.hex_id, "error": str(failure)}
            _log.warn("failed to reach the peer URL", fields)
        raise failure

    async def _ask(
        self,
        url: Url,
        method: str,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        timeout_seconds: float,
    ) -> Response:
        try:
            return await self._requests.request(
                url, method, path, headers, body, timeout_seconds=timeout_seconds
            )
        except Unreachable as error:
            raise CallFailed(f"{method.capitalize()} {logs.quote(url.text + path)}: {error}") from None


# Reading what came back


def _shown(body: bytes) -> str:
    """As much of an answer as fits an error's text."""
    return body[:1000].decode("utf-8", "replace")


def _json(body: bytes, bytes_max: int) -> object:
    if len(body) > bytes_max:
        raise CallFailed(f"the answer has {len(body)} bytes, more than {bytes_max}")
    try:
        found: object = json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise CallFailed(f"the answer is no JSON: {error}") from None
    return found


def _fields(found: object) -> Mapping[str, object]:
    """An object's fields as Go takes them: names in any case, null for nothing."""
    if not isinstance(found, dict):
        raise CallFailed(f"the answer is a JSON {type(found).__name__}, not an object")
    return {str(name).lower(): value for name, value in found.items() if value is not None}


def _text(found: Mapping[str, object], name: str) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        raise CallFailed(f"{name} is a {type(value).__name__}")
    return value


def _integer(found: Mapping[str, object], name: str, allowed: range) -> int:
    value = found.get(name, 0)
    if type(value) is not int or value not in allowed:
        raise CallFailed(f"{name} is no number of its kind")
    return value


def _members(found: object) -> Sequence[Member]:
    if found is None:  # Go's empty list
        return ()
    if not isinstance(found, list):
        raise CallFailed(f"the answer is a JSON {type(found).__name__}, not a list")
    try:
        return tuple(from_fields(each)[0] for each in found)
    except BadMember as error:
        raise CallFailed(f"the answer has what is no member: {error}") from None


def _cluster_id(response: Response) -> int:
    text = next((value for name, value in response.headers if name.lower() == CLUSTER_ID.lower()), "")
    try:
        return parse_id(text)
    except ValueError as error:
        raise BadClusterId(text, str(error)) from None


def parse_id(text: str) -> int:
    """An ID in hexadecimal, as Go's strconv takes it. ValueError with its text."""
    if not text or not _HEX.issuperset(text):
        raise ValueError(f"strconv.ParseUint: parsing {logs.quote(text)}: invalid syntax")
    id = int(text, 16)
    if id >= 1 << 64:
        raise ValueError(f"strconv.ParseUint: parsing {logs.quote(text)}: value out of range")
    return id


M = TypeVar("M", LeaseKeepAliveResponse, LeaseInternalResponse)


def _message(kind: type[M], body: bytes) -> M:
    try:
        return strict.parse(kind, body)
    except DecodeError as error:
        raise CallFailed(f'lease: {error}. data = "{_shown(body)}"') from None
