"""The other members, as this one sees them: whose word counts, and what is told them.

Rules that hold here:

* Raft hears members only, and what is addressed to this one. Those that were removed are refused for good,
  with 403, at which they end. A stranger is not: it may be a member that only we do not know of yet.
* A sender that is no member as far as this log is applied may have joined since. It is not taken at its
  word: a member that is known is asked who the members are, and if it names the stranger, its messages are
  taken from then on. Etcd takes them from anybody, and some stop it for good.
* What cannot be processed costs the message, no more. So does a proposal that no member makes: some end real
  etcd when they are applied, on every member and at every start.
* A member whose peer URLs cannot be dialled keeps those it had, or is not connected until it has others.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Protocol

from google.protobuf.message import DecodeError

from pyetcd import logs
from pyetcd.cluster import changes
from pyetcd.cluster.members import BadMember, Member
from pyetcd.cluster.membership import Applied, Membership
from pyetcd.cluster.urls import Url, UrlError, parse_urls
from pyetcd.member.snapshot_in import Incoming
from pyetcd.member.snapshot_out import SnapshotSender
from pyetcd.peer.calls import CallFailed, Calls
from pyetcd.peer.seams import Refused, SnapshotSink
from pyetcd.proto.raft_pb2 import ConfChange
from pyetcd.raft import Entry, EntryType, InvalidMessage, InvariantBroken, Message, MessageType

INTRODUCTION_SECONDS = 1.0  # between two questions about strangers
FORBIDDEN = 403
NOT_YET = 503

_log = logs.get("member")


class Transport(Protocol):
    """The part of `peer.transport.Transport` that is needed here."""

    def add_peer(self, id: int, urls: Sequence[Url]) -> None: ...
    def update_peer(self, id: int, urls: Sequence[Url]) -> None: ...
    def remove_peer(self, id: int) -> None: ...
    def add_remote(self, id: int, urls: Sequence[Url]) -> None: ...
    def has_peer(self, id: int) -> bool: ...
    def send(self, messages: Sequence[Message]) -> None: ...


class Node(Protocol):
    """The part of `raft.Node` that is needed here."""

    @property
    def lead(self) -> int: ...
    def step(self, message: Message) -> None: ...
    def report_unreachable(self, id: int) -> None: ...
    def report_snapshot(self, id: int, ok: bool) -> None: ...


class Peers:
    """Fulfils `peer.seams.Raft`. Every method from the loop."""

    def __init__(
        self,
        cluster: Membership,
        node: Node,
        calls: Calls,
        incoming: Incoming,
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[None, None, None]], None],
        forward: Callable[[Message], None],
        on_removed: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._calls = calls
        self._incoming = incoming
        self._clock = clock
        self._spawn = spawn
        self._forward = forward
        self._on_removed = on_removed
        self._on_failure = on_failure
        self._vouched: dict[int, Member] = {}  # no members yet, as far as is applied here
        self._connected: set[int] = set()
        self._asked_at = -INTRODUCTION_SECONDS

    def connect(self, transport: Transport, outgoing: SnapshotSender) -> None:
        """What messages and snapshots go out through; they in turn need this object."""
        self._transport = transport
        self._outgoing = outgoing

    # Who they are

    def begin(self, first: Iterable[Member], remotes: Iterable[Member]) -> None:
        """Connect to the members, and to those that are known before the log has brought them: the first of a
        new cluster, those that a joining member was told of."""
        for member in remotes:
            self._vouch(member)
        for member in (*first, *self._cluster.list()):
            self._connect(member)

    def replaced(self) -> None:
        """A snapshot has brought another membership."""
        for id in self._connected - set(self._cluster.members):
            self._connected.discard(id)
            self._transport.remove_peer(id)
        for member in self._cluster.list():
            self._connect(member)

    def _connect(self, member: Member) -> None:
        """Or, if it is connected, have it dialled where it says now."""
        if member.id == self._cluster.local_id or not (urls := _urls(member)):
            return
        if member.id in self._connected:
            self._transport.update_peer(member.id, urls)
        else:
            self._connected.add(member.id)
            self._transport.add_peer(member.id, urls)

    def changed(self, applied: Applied) -> None:
        """A change of the configuration has been applied."""
        if applied.id == self._cluster.local_id:
            if applied.kind == "remove":
                self._on_removed()
            return
        if applied.kind == "remove":
            self._connected.discard(applied.id)
            self._transport.remove_peer(applied.id)
            self._vouched.pop(applied.id, None)
        elif applied.member is not None and applied.kind in ("add", "update"):
            self._connect(applied.member)

    def _vouch(self, member: Member) -> None:
        if member.id != self._cluster.local_id and (urls := _urls(member)):
            self._vouched[member.id] = member
            self._transport.add_remote(member.id, urls)

    # What goes out

    def send(self, messages: Sequence[Message]) -> None:
        """Messages of raft's. What a later one to the same member says as well is left out: of several
        acknowledgements or heartbeats the last says it all, and so do entries what an empty append says."""
        removed = self._cluster.removed
        if len(messages) == 1 and messages[0].type is not MessageType.MsgSnap:
            if messages[0].to not in removed:
                self._transport.send(messages)
            return
        answered: set[int] = set()
        heard: set[int] = set()
        appended: set[int] = set()
        out: list[Message] = []
        for message in reversed(messages):
            type = message.type
            if message.to in removed:
                continue
            if type is MessageType.MsgAppResp:
                if message.to in answered:
                    continue
                answered.add(message.to)
            elif type is MessageType.MsgApp:
                if not message.entries and message.to in appended:
                    continue
                appended.add(message.to)
            elif type is MessageType.MsgHeartbeat:
                if message.to in heard:
                    continue
                heard.add(message.to)
            elif type is MessageType.MsgSnap:
                self._outgoing.send(message)
                continue
            out.append(message)
        out.reverse()
        if out:
            self._transport.send(out)

    # `peer.seams.Raft`

    def process(self, message: Message) -> None:
        """Refused, InvalidMessage or ProposalDropped: nothing has changed then."""
        self._check(message)
        take: Callable[[Message], None] = self._node.step
        if message.type is MessageType.MsgProp:
            take = self._forward
            for entry in message.entries:
                _check_proposed(entry)
        try:
            take(message)
        except InvariantBroken as error:
            self._on_failure(error)

    def is_removed(self, id: int) -> bool:
        return id in self._cluster.removed

    def leads(self, id: int) -> bool:
        return self._node.lead == id

    def stranger(self, id: int, urls: Sequence[str]) -> None:
        """Ask those that are known who this is."""
        known = id in self._cluster.removed or id in self._cluster.members or id in self._vouched
        if known or self._clock() - self._asked_at < INTRODUCTION_SECONDS:
            return
        self._asked_at = self._clock()
        self._spawn(self._ask_about(id))

    def report_unreachable(self, id: int) -> None:
        self._node.report_unreachable(id)

    def report_snapshot(self, id: int, ok: bool) -> None:
        self._node.report_snapshot(id, ok)

    def receive_snapshot(self, message: Message) -> SnapshotSink:
        self._check(message)
        return self._incoming.receive(message)

    def member_removed(self) -> None:
        self._on_removed()

    def _check(self, message: Message) -> None:
        cluster, sender = self._cluster, message.from_
        if sender in cluster.removed:
            self._warn_rejected("from removed member", "removed-member-id", sender)
            raise Refused(FORBIDDEN, "cannot process message from removed member")
        if message.to != cluster.local_id:
            self._warn_rejected("to mismatch member", "mismatch-member-id", message.to)
            raise Refused(FORBIDDEN, "cannot process message to mismatch member")
        if sender not in self._connected and sender not in self._vouched:
            self._warn_rejected("from unknown member", "unknown-member-id", sender)
            raise Refused(NOT_YET, "cannot process message from unknown member")

    def _warn_rejected(self, what: str, field: str, id: int) -> None:
        fields = {"local-member-id": f"{self._cluster.local_id:x}", field: f"{id:x}"}
        _log.warn(f"rejected Raft message {what}", fields)

    async def _ask_about(self, id: int) -> None:
        for url in self._known_urls():
            try:
                told = await self._calls.members(url, INTRODUCTION_SECONDS)
            except CallFailed:
                continue
            if told.id != self._cluster.cluster_id:
                continue
            for member in told.members:
                if member.id == id and id not in self._cluster.removed and id not in self._cluster.members:
                    self._vouch(member)
            return

    def _known_urls(self) -> list[Url]:
        known = (*self._cluster.list(), *self._vouched.values())
        return [url for member in known if member.id != self._cluster.local_id for url in _urls(member)]


def _check_proposed(entry: Entry) -> None:
    """InvalidMessage for what no member proposes, and so none passes on."""
    if entry.type == EntryType.EntryNormal:
        if not entry.data:
            raise InvalidMessage("MsgProp with an entry that says nothing")
        return
    if entry.type != EntryType.EntryConfChange:
        raise InvalidMessage(f"MsgProp with an entry of type {entry.type}")
    try:
        changes.check_well_formed(ConfChange.FromString(entry.data))
    except (DecodeError, BadMember, UrlError) as error:
        raise InvalidMessage(f"MsgProp with a configuration change that cannot be: {error}") from None


def _urls(member: Member) -> Sequence[Url]:
    """Peer URLs come from the log: one that cannot be dialled is none."""
    found: list[Url] = []
    for text in member.peer_urls or ():
        try:
            found += parse_urls([text])
        except UrlError as error:
            _log.warn("a peer URL cannot be used", {"remote-peer-id": member.hex_id, "error": str(error)})
    return found
