"""What raft is told at a peer port by those who mean no good, case by case, and the answer that is right.

A `Scene` is one member that is attacked and all that is known of its cluster. A `Case` says what is sent, and
with which HTTP status it must be answered; None: the connection is ended without a word, or says that it
waits. Cases are independent of each other and of their order. Other paths than raft's messages are in
`hostile_requests`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from hostile import Pretender

from pyetcd.cluster import changes
from pyetcd.cluster.members import Member as MemberRecord
from pyetcd.raft import ConfState, Entry, Message, MessageType, Snapshot, SnapshotMetadata
from pyetcd.raft.codec import encode_message

M = MessageType
LAST = (1 << 64) - 1
STRANGER = 0xBAD0BAD


@dataclass(frozen=True, slots=True)
class Scene:
    """IDs of the member that is attacked, of one that was removed, of a learner whose place we hold; another
    member, 0 where there is none; term and index as the member reports them."""

    id: int
    cluster: int
    removed: int
    learner: int
    other: int
    term: int
    index: int

    def by(self, id: int) -> Pretender:
        return Pretender(id, self.id, self.cluster)


Telling = Callable[[Scene, int], Message]  # the message to the scene's member by this sender


@dataclass(frozen=True, slots=True)
class Case:
    """`unsettles`: it is what a member may say, so the leader or the term may be others afterwards."""

    name: str
    pieces: Callable[[Scene], Iterable[bytes]]
    statuses: tuple[int | None, ...]
    unsettles: bool = False
    then_end: bool = False
    seconds: float = 5.0


def _removal(scene: Scene) -> bytes:
    return changes.remove(99, scene.other or scene.id)


def snapshot_at(scene: Scene, index: int, term: int = 0) -> Snapshot:
    return Snapshot(SnapshotMetadata(index, term or scene.term, ConfState(voters=(scene.id,))), b"{}")


def to_member(type: MessageType, scene: Scene, sender: int, **fields: object) -> Message:
    return Message(type, to=scene.id, from_=sender, **{"term": scene.term, **fields})  # type: ignore[arg-type]


def _proposal(*entries: tuple[int, bytes]) -> Telling:
    proposed = [Entry(0, 0, kind, data) for kind, data in entries]
    return lambda scene, by: to_member(M.MsgProp, scene, by, term=0, entries=proposed)


def _append(ahead: int, commit: int, kind: int, data: Callable[[Scene], bytes]) -> Telling:
    """One entry, so far ahead of the end of the log, all of this term."""

    def told(scene: Scene, by: int) -> Message:
        before, term = scene.index + ahead, scene.term
        entry = Entry(term, before + 1, kind, data(scene))
        return to_member(M.MsgApp, scene, by, log_term=term, index=before, entries=[entry], commit=commit)

    return told


def _just(type: MessageType, **fields: object) -> Telling:
    return lambda scene, by: to_member(type, scene, by, **fields)


def _of_next_term(type: MessageType, **fields: object) -> Telling:
    return lambda scene, by: to_member(type, scene, by, term=scene.term + 1, **fields)


LOCAL = (
    M.MsgHup,
    M.MsgBeat,
    M.MsgUnreachable,
    M.MsgSnapStatus,
    M.MsgCheckQuorum,
    M.MsgStorageAppend,
    M.MsgStorageAppendResp,
    M.MsgStorageApply,
    M.MsgStorageApplyResp,
)
NEW = MemberRecord(STRANGER, ("http://127.0.0.1:1",))
UP_TO_DATE: dict[str, object] = {"log_term": LAST, "index": LAST}
FOR_SURE: dict[str, object] = {**UP_TO_DATE, "context": b"CampaignTransfer"}
OVERWRITTEN = [Entry(1, 2, 0, b"x")]
QUESTION = [Entry(0, 0, 0, b"12345678")]

# What raft may be told, by whom it is not to be told so.
MESSAGES: dict[str, Telling] = {
    "a proposal of garbage": _proposal((0, b"\xff\xff")),
    "a proposal of nothing": _proposal(),
    "a removal": lambda s, by: _proposal((1, _removal(s)))(s, by),
    "an impossible change": _proposal((1, b"\xff")),
    "an addition": _proposal((1, changes.add(7, NEW))),
    "a change appended": _append(0, LAST, 1, _removal),
    "an impossible change appended": _append(0, LAST, 2, lambda s: b"\xff"),
    "an append after a gap": _append(1_000_000, LAST, 0, lambda s: b"x"),
    "an append over what is committed": _just(M.MsgApp, log_term=1, index=1, entries=OVERWRITTEN, commit=2),
    "an append at the end of time": _just(M.MsgApp, **UP_TO_DATE, commit=LAST),
    "a heartbeat that commits too much": _just(M.MsgHeartbeat, commit=1 << 63),
    "a heartbeat of the next term": _of_next_term(M.MsgHeartbeat),
    "a heartbeat of the last term": _just(M.MsgHeartbeat, term=LAST),
    "a heartbeat of no term": _just(M.MsgHeartbeat, term=0),
    "an order to campaign": _just(M.MsgTimeoutNow),
    "a transfer": _just(M.MsgTransferLeader, term=0),
    "a read index": _just(M.MsgReadIndex, term=0, entries=QUESTION),
    "a vote that cannot be refused": _of_next_term(M.MsgVote, **FOR_SURE),
    "a pre-vote": _of_next_term(M.MsgPreVote, **UP_TO_DATE),
    "a vote of the last term": _just(M.MsgVote, term=LAST, **FOR_SURE),
    "an acknowledgement of too much": _just(M.MsgAppResp, index=LAST),
    "a vote for nobody": _of_next_term(M.MsgVoteResp),
    "an answer nobody asked for": _just(M.MsgReadIndexResp, index=LAST),
    "forget the leader": _just(M.MsgForgetLeader, term=0),
    **{type.name: _just(type, index=LAST, commit=LAST) for type in LOCAL},
}

Statuses = tuple[int | None, ...]

# Of these no member's word counts either: raft refuses them, or there is nothing in them.
REFUSED_OF_ALL: dict[str, Statuses] = {
    "a proposal of nothing": (500,),
    "an impossible change": (500,),
    "a heartbeat that commits too much": (500,),
    "a heartbeat of the last term": (500,),
    "a heartbeat of no term": (500,),
    "a vote of the last term": (500,),
    "a pre-vote": (204,),
    **{type.name: (500,) for type in LOCAL},
}
UNSETTLING = (
    "an append after a gap",
    "an append at the end of time",
    "an order to campaign",
    "a heartbeat of the next term",
    "a vote that cannot be refused",
    "a vote for nobody",
)

WHO: dict[str, Callable[[Scene], int]] = {
    "a stranger": lambda s: STRANGER,
    "a removed member": lambda s: s.removed,
    "the member itself": lambda s: s.id,
    "nobody": lambda s: 0,
    "the last of all IDs": lambda s: LAST,
}


def refusal(name: str) -> Statuses:
    """A removed member must end, at 403; others may be members we do not know of yet."""
    return (403,) if name == "a removed member" else (503,)


def _said(who: Callable[[Scene], int], message: Telling) -> Callable[[Scene], list[bytes]]:
    return lambda scene: [scene.by(who(scene)).message(message(scene, who(scene)))]


def learner_of(scene: Scene) -> int:
    return scene.learner


def raft_cases() -> Iterator[Case]:
    """`POST /raft`."""
    for name, who in WHO.items():
        for what, message in MESSAGES.items():
            yield Case(f"{what} from {name}", _said(who, message), refusal(name))
        yield Case(f"a snapshot in a message from {name}", _said(who, _bare_snapshot), (400,))
    yield Case("a snapshot in a message from a learner", _said(learner_of, _bare_snapshot), (400,))
    for what, statuses in REFUSED_OF_ALL.items():
        yield Case(f"{what} from a learner", _said(learner_of, MESSAGES[what]), statuses)
    for what in UNSETTLING:
        yield Case(f"{what} from a learner", _said(learner_of, MESSAGES[what]), (204,), unsettles=True)
    for what in MESSAGES:
        yield Case(f"{what} in another's name", _in_anothers_name(MESSAGES[what]), (400, 503))
    for what, body in BODIES.items():
        yield Case(f"{what} from a stranger", _bytes(WHO["a stranger"], body), (400,))
        yield Case(f"{what} from a learner", _bytes(learner_of, body), (400,))
    yield Case("a message to another", _to_another, (403,))
    yield Case(
        "a message of a type nobody knows", _bytes(learner_of, b"\x08\x63\x10\x01\x18\x02\x20\x01"), (400,)
    )


def _bare_snapshot(scene: Scene, by: int) -> Message:
    return to_member(M.MsgSnap, scene, by, snapshot=snapshot_at(scene, scene.index + 1000))


def _in_anothers_name(message: Telling) -> Callable[[Scene], list[bytes]]:
    return lambda scene: [scene.by(STRANGER).message(message(scene, scene.other or scene.learner))]


def _to_another(scene: Scene) -> list[bytes]:
    message = Message(M.MsgHeartbeat, to=STRANGER, from_=scene.learner, term=scene.term)
    return [scene.by(scene.learner).message(message)]


def _bytes(id: Callable[[Scene], int], body: bytes) -> Callable[[Scene], list[bytes]]:
    return lambda scene: [scene.by(id(scene)).bytes(body)]


WHOLE = encode_message(Message(M.MsgApp, 1, 2, 3, entries=[Entry(1, 1, 0, bytes(100))]))
BODIES = {
    "no message": b"",
    "garbage": b"\xff" * 100,
    "a message cut short": WHOLE[:-50],
    "entries nested in what is none": b"\x3a\xff\xff\xff\xff\x0f",
    "a number without an end": b"\x08" + b"\xff" * 11,
}
