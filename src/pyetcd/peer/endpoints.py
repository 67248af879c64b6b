"""What other members may ask beside raft's messages: members, versions, a promotion, leases, hashes.

Rules that hold here:

* Methods, statuses, headers and bodies are etcd's, byte for byte (server/etcdserver/api/etcdhttp/peer.go,
  corrupt.go, server/lease/leasehttp). Paths are looked up as Go's ServeMux does for those that need no
  cleaning; an unclean path is found nowhere.
* Requests are untrusted. They are read strictly and no handler raises for what one says.
* Nobody is asked for a password here: who may connect to the peers' port is a matter of its certificates.
  The token of a promotion is passed on to the member, which checks it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import unquote

from google.protobuf.message import DecodeError

from pyetcd import logs
from pyetcd.cluster import gojson
from pyetcd.cluster.members import Member, to_json
from pyetcd.peer.calls import (
    CLUSTER_ID,
    DOWNGRADE_ENABLED,
    HASH_KV,
    ID_NOT_FOUND,
    LEASE_BEHIND,
    LEASES,
    LEASES_INTERNAL,
    MEMBERS,
    MISMATCH,
    NOT_A_LEARNER,
    PROMOTE,
    VERSION,
    PeerHash,
    Versions,
)
from pyetcd.proto import errors, strict
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.lease_pb2 import LeaseInternalRequest, LeaseInternalResponse
from pyetcd.proto.rpc_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse

if TYPE_CHECKING:
    from pyetcd._native import HttpRequest, Meta

APPLY_TIMEOUT_SECONDS: Final = 1.0
LEASE_REQUEST_BYTES_MAX: Final = 64 << 10
LEASE_NOT_FOUND: Final = "lease not found"
NOT_PRIMARY: Final = "not a primary lessor"

Headers = tuple[tuple[str, str], ...]
Response = tuple[int, Headers, bytes]
M = TypeVar("M", LeaseKeepAliveRequest, LeaseInternalRequest)

_TEXT: Final[Headers] = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
)
_JSON: Final = ("Content-Type", "application/json")
_PROTOBUF: Final = ("Content-Type", "application/protobuf")
_EXPECTED: Final = (
    "etcdserver: request timed out, possibly due to previous leader failure",
    "etcdserver: request timed out, possibly due to connection lost",
    errors.MEMBER_NOT_ENOUGH_STARTED.message,
    errors.UNHEALTHY.message,
)

_log = logs.get("peer")


class NotPrimary(Exception):
    """This member does not lead, so it does not know how long leases live."""


@dataclass(frozen=True, slots=True)
class LeaseLife:
    """What the leader knows of a lease. Times in whole seconds; `keys` where they were asked for."""

    ttl: int
    granted_ttl: int
    keys: Sequence[bytes] = ()


class Serving(Protocol):
    """The member, as its peers may ask it. Called from the loop."""

    @property
    def cluster_id(self) -> int: ...

    def members(self) -> Sequence[Member]:
        """All members there are now, by ID."""

    def versions(self) -> Versions:
        """`cluster` "not_decided" and `storage` "unknown" as long as there is none."""

    async def promote(self, member_id: int, token: str | None) -> Sequence[Member]:
        """Promote a learner, here or at the leader; `token` is the client's. The members then. EtcdError."""

    async def catch_up(self) -> None:
        """Until what is committed now is applied. Cancelled, or a TimeoutError, when that takes too long."""

    async def renew(self, lease_id: int) -> int:
        """Keep a lease alive; its time to live in seconds. LEASE_NOT_FOUND, NotPrimary."""

    async def time_to_live(self, lease_id: int, keys: bool) -> LeaseLife:
        """LEASE_NOT_FOUND, NotPrimary."""

    async def hash_kv(self, revision: int) -> PeerHash:
        """The hash of the keys at `revision`, 0 for now. COMPACTED, FUTURE_REVISION."""

    async def downgrade_enabled(self) -> bool:
        """As of a read that is linearizable. EtcdError."""


class Endpoints:
    """Answers requests of other members for a `Serving`."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._paths: Mapping[str, Callable[[HttpRequest, Meta], Awaitable[Response]]] = {
            MEMBERS: self.members,
            HASH_KV: self.hash_kv,
            VERSION: self.version,
            LEASES: self.renew,
            LEASES_INTERNAL: self.time_to_live,
            DOWNGRADE_ENABLED: self.downgrade_enabled,
        }

    async def handle(self, request: HttpRequest, meta: Meta) -> Response:
        """Answer any request that is not raft's: status, headers beside the wire's own, body."""
        path = path_of(request)
        handler = self._paths.get(path)
        if handler is not None:
            return await handler(request, meta)
        if path.startswith(PROMOTE):
            return await self.promote(request, meta)
        return _error(404, "404 page not found")

    async def members(self, request: HttpRequest, meta: Meta) -> Response:
        if request.method != "GET":
            return _not_allowed("GET")
        return 200, (self._cluster(), _JSON), _members_json(self._serving.members())

    async def version(self, request: HttpRequest, meta: Meta) -> Response:
        if request.method != "GET":
            return _not_allowed("GET")
        versions = self._serving.versions()
        pairs = (
            ("etcdserver", versions.server),
            ("etcdcluster", versions.cluster),
            ("storage", versions.storage),
        )
        return 200, (_JSON,), gojson.fields((name, gojson.string(text)) for name, text in pairs).encode()

    async def promote(self, request: HttpRequest, meta: Meta) -> Response:
        if request.method != "POST":
            return _not_allowed("POST")
        text = path_of(request).removeprefix(PROMOTE)
        if not text.isascii() or not text.isdigit() or (member_id := int(text)) >= 1 << 64:
            return _error(404, f"member {text} not found in cluster", self._cluster())
        try:
            members = await self._serving.promote(member_id, _header(request, "authorization"))
        except EtcdError as error:
            return self._not_promoted(member_id, error, meta)
        return 200, (self._cluster(), _JSON), _members_json(members)

    def _not_promoted(self, member_id: int, error: EtcdError, meta: Meta) -> Response:
        said, answer = error.message, None
        if isinstance(error, errors.MEMBER_NOT_FOUND):
            answer = _error(404, said := ID_NOT_FOUND, self._cluster())
        elif isinstance(error, errors.MEMBER_NOT_LEARNER):
            answer = _error(412, said := NOT_A_LEARNER, self._cluster())
        elif isinstance(error, errors.LEARNER_NOT_READY):
            answer = _error(412, said, self._cluster())
        else:
            why = "v2 response error" if said in _EXPECTED else "unexpected v2 response error"
            _log.warn(why, {"remote-addr": meta.peer, "internal-server-error": said})
            answer = (500, (self._cluster(), _JSON), b'{"message":"Internal Server Error"}')
        _log.warn("failed to promote a member", {"member-id": f"{member_id:x}", "error": said})
        return answer

    async def renew(self, request: HttpRequest, meta: Meta) -> Response:
        asked = await self._asked_of_lessor(request, LeaseKeepAliveRequest)
        if isinstance(asked, tuple):
            return asked
        try:
            ttl = await self._serving.renew(asked.ID)
        except errors.LEASE_NOT_FOUND:
            return _error(404, LEASE_NOT_FOUND)
        except NotPrimary:
            return _error(400, NOT_PRIMARY)
        except EtcdError as error:
            return _error(400, error.message)
        return 200, (_PROTOBUF,), LeaseKeepAliveResponse(ID=asked.ID, TTL=ttl).SerializeToString()

    async def time_to_live(self, request: HttpRequest, meta: Meta) -> Response:
        asked = await self._asked_of_lessor(request, LeaseInternalRequest)
        if isinstance(asked, tuple):
            return asked
        if not asked.HasField("LeaseTimeToLiveRequest"):
            return _error(400, "error unmarshalling request")
        question = asked.LeaseTimeToLiveRequest
        try:
            life = await self._serving.time_to_live(question.ID, question.keys)
        except errors.LEASE_NOT_FOUND:
            return _error(404, LEASE_NOT_FOUND)
        except NotPrimary:
            return _error(500, NOT_PRIMARY)
        except EtcdError as error:
            return _error(500, error.message)
        response = LeaseInternalResponse()
        answer = response.LeaseTimeToLiveResponse
        answer.header.SetInParent()  # there, and empty
        answer.ID, answer.TTL, answer.grantedTTL = question.ID, life.ttl, life.granted_ttl
        if question.keys:
            answer.keys.extend(life.keys)
        return 200, (_PROTOBUF,), response.SerializeToString()

    async def _asked_of_lessor(self, request: HttpRequest, kind: type[M]) -> M | Response:
        """The question to the lessor, once it may be answered; or the refusal."""
        if request.method != "POST":
            return _error(405, "Method Not Allowed")
        if len(request.body) > LEASE_REQUEST_BYTES_MAX:
            return _error(413, "request body too large")
        try:
            asked = strict.parse(kind, request.body)
        except DecodeError:
            return _error(400, "error unmarshalling request")
        try:
            async with asyncio.timeout(APPLY_TIMEOUT_SECONDS):
                await self._serving.catch_up()
        except TimeoutError:
            return _error(408, LEASE_BEHIND)
        return asked

    async def hash_kv(self, request: HttpRequest, meta: Meta) -> Response:
        if request.method != "GET":
            return _not_allowed("GET")
        asked_of = _header(request, CLUSTER_ID.lower())
        if asked_of and asked_of != f"{self._serving.cluster_id:x}":
            return _error(412, MISMATCH)
        try:
            revision = _revision(request.body)
        except ValueError as error:
            _log.warn("failed to unmarshal request", {"error": str(error)})
            return _error(400, "error unmarshalling request")
        try:
            found = await self._serving.hash_kv(revision)
        except EtcdError as error:
            text = error.message.removeprefix("etcdserver: ")
            _log.warn("failed to get hashKV", {"requested-revision": revision, "error": text})
            return _error(400, text)
        header = gojson.fields([("revision", str(found.revision))] if found.revision else [])
        numbers = (
            ("hash", found.hash),
            ("compact_revision", found.compact_revision),
            ("hash_revision", found.hash_revision),
        )
        pairs = [("header", header), *((name, str(number)) for name, number in numbers if number)]
        return 200, (self._cluster(), _JSON), gojson.fields(pairs).encode()

    async def downgrade_enabled(self, request: HttpRequest, meta: Meta) -> Response:
        if request.method != "GET":
            return _not_allowed("GET")
        try:
            enabled = await self._serving.downgrade_enabled()
        except EtcdError as error:
            return _error(500, f"failed linearized read: {error.message}", self._cluster())
        return 200, (self._cluster(), ("Content-Type", "text/plain")), b"true" if enabled else b"false"

    def _cluster(self) -> tuple[str, str]:
        return CLUSTER_ID, f"{self._serving.cluster_id:x}"


def path_of(request: HttpRequest) -> str:
    """The path a request is for, without query, decoded."""
    return unquote(request.target.partition("?")[0])


def _header(request: HttpRequest, name: str) -> str | None:
    return next((value for each, value in request.headers if each == name), None)


def _error(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """As Go's http.Error: a text for people, and a newline."""
    return status, (*headers, *_TEXT), text.encode() + b"\n"


def _not_allowed(method: str) -> Response:
    return _error(405, "Method Not Allowed", ("Allow", method))


def _members_json(members: Sequence[Member]) -> bytes:
    if not members:
        return b"null\n"
    return b"[" + b",".join(to_json(member) for member in members) + b"]\n"


def _revision(body: bytes) -> int:
    """What an encoded HashKVRequest asks for. ValueError."""
    try:
        found = json.loads(body.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deep") from None
    if found is None:
        return 0
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    revision = 0
    for name, value in found.items():
        if str(name).lower() == "revision" and value is not None:
            if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
                raise ValueError("revision is no number of 64 bits")
            revision = value
    return revision
