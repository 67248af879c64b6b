"""What other members ask of us under `/raft`: to take a message, to take a snapshot, to talk on a stream.

Statuses, texts and log lines are etcd's. Two rules are not: a message must come from the member whose request
it is in (etcd takes anybody's), and 400 says that it does not; and what may come in another's name, or take
long to arrive, is taken only of senders that are known. Those that are not yet are answered 503: at 403 a
member takes itself for removed, and ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from pyetcd import logs
from pyetcd.peer import kinds, replies
from pyetcd.peer.counters import Counters
from pyetcd.peer.headers import Headers, Identity, header, hex_id, parse_id
from pyetcd.peer.kinds import StreamKind
from pyetcd.peer.message_in import MessageReceiver
from pyetcd.peer.peer import described, unfit
from pyetcd.peer.prober import PROBING_PATH, probing_answer
from pyetcd.peer.seams import Raft, Refused
from pyetcd.peer.snapshot_in import SnapshotReceiver
from pyetcd.peer.wire import RAFT_PATH, SNAPSHOT_PATH, PeerWire
from pyetcd.raft import InvalidMessage, ProposalDropped
from pyetcd.raft.codec import decode_message
from pyetcd.version import SERVER_VERSION

if TYPE_CHECKING:
    from pyetcd._native import HttpRequest

STREAM_PREFIX: Final = "/raft/stream/"
UNKNOWN_SENDER: Final = "cannot process message from unknown member"
REMOVED_SENDER: Final = "cannot process message from removed member"
_KINDS: Final = {kind.path: kind for kind in (kinds.MSGAPP, kinds.MESSAGE)}

_log = logs.get("peer")


class Members(Protocol):
    """What is needed of the transport."""

    identity: Identity
    unknown: Counters

    def has_peer(self, id: int) -> bool: ...
    def has_remote(self, id: int) -> bool: ...
    def counters_of(self, id: int) -> Counters: ...
    def attach(self, id: int, call: int, kind: StreamKind) -> None: ...


class Served:
    def __init__(
        self,
        members: Members,
        wire: PeerWire,
        raft: Raft,
        snapshots: SnapshotReceiver,
        messages: MessageReceiver,
    ) -> None:
        self._members = members
        self._wire = wire
        self._server = wire.server
        self._raft = raft
        self._snapshots = snapshots
        self._messages = messages
        self._identity = members.identity
        self._cluster: Headers = (("X-Etcd-Cluster-ID", hex_id(self._identity.cluster_id)),)
        self._stream: Headers = (("X-Server-Version", SERVER_VERSION), *self._cluster)

    def handle(self, call: int, request: HttpRequest) -> bool:
        path = request.target.partition("?")[0]
        if path == RAFT_PATH:
            self._message(call, request)
        elif path.startswith(STREAM_PREFIX):
            self._stream_request(call, request, path)
        elif path == SNAPSHOT_PATH:
            self._snapshot(call, request)
        elif path == PROBING_PATH:
            headers = (("Content-Type", "text/plain; charset=utf-8"),)
            self._server.http_reply(call, 200, headers, probing_answer())
        elif path.startswith(RAFT_PATH + "/"):
            replies.not_found(self._server, call)
        else:
            return False
        return True

    def _message(self, call: int, request: HttpRequest) -> None:
        """`POST /raft`: one message; the body is still to come."""
        if request.method != "POST":
            replies.not_allowed(self._server, call, "POST")
            return
        refusal = self._identity.refusal(request.headers)
        if refusal is not None:
            replies.error(self._server, call, 412, refusal, self._cluster)
            return
        sender = parse_id(header(request.headers, "x-server-from")) or 0
        self._introduce(sender, request.headers)
        self._messages.receive(
            call, self._knows(sender), self._cluster, lambda body: self._arrived(call, sender, body)
        )

    def _arrived(self, call: int, sender: int, body: bytes) -> None:
        counters = self._members.counters_of(sender)
        local = {"local-member-id": hex_id(self._identity.local_id)}
        try:
            message = decode_message(body)
        except InvalidMessage as error:
            _log.warn("failed to unmarshal Raft message", {**local, "error": error})
            counters.received_failures += 1
            replies.error(self._server, call, 400, "error unmarshalling raft message", self._cluster)
            return
        counters.received_bytes += len(body)
        unfitness = unfit(message, sender)
        if unfitness is not None:
            _log.warn("ignored Raft message", {**described(message, sender), "error": unfitness})
            counters.received_failures += 1
            replies.error(self._server, call, 400, unfitness, self._cluster)
            return
        if message.from_ != sender and not self._knows(sender):
            _log.warn("rejected Raft message from unknown member", described(message, sender))
            counters.received_failures += 1
            self._refuse_unknown(call, sender)
            return
        try:
            self._raft.process(message)
        except Refused as error:
            replies.refused(self._server, call, error, self._cluster)
        except Exception as error:
            foreseen = isinstance(error, InvalidMessage | ProposalDropped)
            _log.warn(
                "failed to process Raft message", {**local, "error": error}, exc=None if foreseen else error
            )
            replies.error(self._server, call, 500, "error processing raft message", self._cluster)
        else:
            self._server.http_reply(call, 204, self._cluster, b"")

    def _snapshot(self, call: int, request: HttpRequest) -> None:
        """`POST /raft/snapshot`: the body is still to come."""
        unknown = self._members.unknown
        if request.method != "POST":
            unknown.snapshot_receive_failures += 1
            replies.not_allowed(self._server, call, "POST")
            return
        refusal = self._identity.refusal(request.headers)
        if refusal is not None:
            unknown.snapshot_receive_failures += 1
            replies.error(self._server, call, 412, refusal, self._cluster)
            return
        sender = parse_id(header(request.headers, "x-server-from")) or 0
        self._introduce(sender, request.headers)
        if not self._knows(sender):
            _log.warn("rejected snapshot from unknown member", {"remote-snapshot-sender-id": hex_id(sender)})
            unknown.snapshot_receive_failures += 1
            self._refuse_unknown(call, sender)
            return
        self._snapshots.accept(call, sender, self._members.counters_of(sender), self._cluster)

    def _stream_request(self, call: int, request: HttpRequest, path: str) -> None:
        """`GET /raft/stream/<kind>/<ID of who asks>`."""
        if request.method != "GET":
            replies.not_allowed(self._server, call, "GET")
            return
        refusal = self._identity.refusal(request.headers)
        if refusal is not None:
            replies.error(self._server, call, 412, refusal, self._stream)
            return
        prefix, _, name = path.rpartition("/")
        local = hex_id(self._identity.local_id)
        fields: dict[str, object] = {"local-member-id": local, "remote-peer-id-stream-handler": local}
        kind = _KINDS.get(prefix)
        if kind is None:
            _log.debug("ignored unexpected streaming request path", {**fields, "path": path})
            replies.error(self._server, call, 404, "invalid path", self._stream)
            return
        sender = parse_id(name)
        if sender is None:
            error = f"strconv.ParseUint: parsing {logs.quote(name)}: invalid syntax"
            _log.warn("failed to parse path into ID", {**fields, "path": name, "error": error})
            replies.error(self._server, call, 404, "invalid from", self._stream)
            return
        fields["remote-peer-id-from"] = hex_id(sender)
        if self._raft.is_removed(sender):
            _log.warn("rejected stream from remote peer because it was removed", fields)
            replies.error(self._server, call, 410, "removed member", self._stream)
            return
        cluster = {"cluster-id": hex_id(self._identity.cluster_id)}
        if not self._members.has_peer(sender):
            self._introduce(sender, request.headers)
            _log.warn("failed to find remote peer in cluster", {**fields, **cluster})
            replies.error(self._server, call, 404, "error sender not found", self._stream)
            return
        to = header(request.headers, "x-raft-to")
        if to != local:
            _log.warn(
                "ignored streaming request; ID mismatch", {**fields, "remote-peer-id-header": to, **cluster}
            )
            replies.error(self._server, call, 412, "to field mismatch", self._stream)
            return
        self._server.http_reply(call, 200, self._stream, b"", end=False)
        self._members.attach(sender, call, kind)

    def _knows(self, sender: int) -> bool:
        members = self._members
        return members.has_peer(sender) or (members.has_remote(sender) and not self._raft.is_removed(sender))

    def _refuse_unknown(self, call: int, sender: int) -> None:
        if self._raft.is_removed(sender):
            replies.error(self._server, call, 403, REMOVED_SENDER, self._cluster)
        else:
            replies.error(self._server, call, 503, UNKNOWN_SENDER, self._cluster)

    def _introduce(self, sender: int, headers: Headers) -> None:
        """Tell the member of a sender it does not know."""
        members = self._members
        if not sender or sender == self._identity.local_id:
            return
        if members.has_peer(sender) or members.has_remote(sender):
            return
        urls = header(headers, "x-peerurls")
        if urls:
            self._raft.stranger(sender, [url.strip() for url in urls.split(",")])
