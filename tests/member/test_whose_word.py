"""Whose messages a member's raft hears, who vouches for strangers, and who is connected to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import pytest
import virtual_time
from fake_peers import Answer, Request, Wire
from small_cluster import CLUSTER_ID, member, membership

from pyetcd.cluster import changes
from pyetcd.cluster.members import Member, to_json
from pyetcd.cluster.membership import Applied
from pyetcd.cluster.urls import Url
from pyetcd.member.peers import INTRODUCTION_SECONDS, Peers
from pyetcd.peer.calls import Calls
from pyetcd.peer.seams import Refused
from pyetcd.peer.wire import Unreachable
from pyetcd.raft import Entry, InvalidMessage, InvariantBroken, Message, MessageType
from pyetcd.raft.codec import decode_message, encode_message

M = MessageType
LOCAL, OTHER, THIRD, NEW, GONE = 1, 2, 3, 0xAB, 0xDEAD


class FakeNode:
    def __init__(self) -> None:
        self.stepped: list[Message] = []
        self.error: Exception | None = None
        self.lead = 0

    def step(self, message: Message) -> None:
        if self.error is not None:
            raise self.error
        self.stepped.append(message)


class FakeTransport:
    """Refuses what the real one must not be given."""

    def __init__(self) -> None:
        self.peers: dict[int, list[str]] = {}
        self.remotes: dict[int, list[str]] = {}
        self.sent: list[Message] = []

    def add_peer(self, id: int, urls: Sequence[Url]) -> None:
        assert urls
        assert id not in self.peers
        self.peers[id] = [url.text for url in urls]

    def update_peer(self, id: int, urls: Sequence[Url]) -> None:
        assert urls
        assert id in self.peers
        self.peers[id] = [url.text for url in urls]

    def remove_peer(self, id: int) -> None:
        self.peers.pop(id, None)

    def add_remote(self, id: int, urls: Sequence[Url]) -> None:
        assert urls
        self.remotes[id] = [url.text for url in urls]

    def has_peer(self, id: int) -> bool:
        return id in self.peers

    def send(self, messages: Sequence[Message]) -> None:
        self.sent += messages


class FakeOutgoing:
    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message) -> None:
        self.sent.append(message)


class World:
    """Member 1 of a cluster of three. `known`: what other members answer when they are asked for the members;
    None where they cannot be reached."""

    def __init__(self) -> None:
        self.cluster = membership(member(LOCAL), member(OTHER), member(THIRD))
        self.cluster.removed.add(GONE)
        self.known: dict[str, list[Member] | None] = {}
        self.their_cluster = CLUSTER_ID
        self.node = FakeNode()
        self.transport = FakeTransport()
        self.outgoing = FakeOutgoing()
        self.failures: list[BaseException] = []
        self.removals = 0
        self.now = 100.0
        self.wire = Wire(self._answer)
        self.tasks: list[asyncio.Task[None]] = []
        self.peers = Peers(
            self.cluster,
            self.node,  # type: ignore[arg-type]
            Calls(self.wire),
            None,  # type: ignore[arg-type]
            lambda: self.now,
            self._spawn,
            self.node.step,
            self._removed,
            self.failures.append,
        )
        self.peers.connect(self.transport, self.outgoing)  # type: ignore[arg-type]
        self.peers.begin((), ())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def _removed(self) -> None:
        self.removals += 1

    def _answer(self, url: Url, request: Request) -> Answer | Exception:
        members = self.known.get(url.text)
        if members is None:
            return Unreachable("connection refused")
        body = b"[" + b",".join(map(to_json, members)) + b"]\n"
        return Answer(200, (("x-etcd-cluster-id", f"{self.their_cluster:x}"),), body)

    async def introduced(self, id: int) -> None:
        self.peers.stranger(id, ["http://anywhere:1"])
        await asyncio.gather(*self.tasks)

    def hears(self, sender: int) -> bool:
        """Whether raft hears a message of this sender's."""
        before = len(self.node.stepped)
        with suppress(Refused):
            self.peers.process(Message(M.MsgHeartbeat, to=LOCAL, from_=sender, term=1))
        return len(self.node.stepped) > before


def play(scenario: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        await scenario(World())

    virtual_time.run(whole())


# Whom raft hears


def test_members_are_heard_and_nobody_else() -> None:
    world = World()
    assert world.hears(OTHER)
    assert world.hears(THIRD)
    for sender in (LOCAL, NEW, GONE, 0, 2**64 - 1):
        assert not world.hears(sender)


def test_only_who_was_removed_is_told_what_a_member_ends_at() -> None:
    """A stranger may be a member whose coming has not been heard of here, even the leader."""
    world = World()
    for sender, status in ((GONE, 403), (NEW, 503), (0, 503)):
        with pytest.raises(Refused) as refusal:
            world.peers.process(Message(M.MsgApp, to=LOCAL, from_=sender, term=1))
        assert refusal.value.status == status


def test_what_is_addressed_to_another_one_is_refused() -> None:
    world = World()
    for to in (OTHER, NEW, 0):
        with pytest.raises(Refused, match="mismatch member"):
            world.peers.process(Message(M.MsgHeartbeat, to=to, from_=OTHER, term=1))
    assert world.node.stepped == []


def test_a_removed_member_is_told_so_whatever_it_sends() -> None:
    world = World()
    for type in (M.MsgProp, M.MsgVote, M.MsgApp, M.MsgSnap):
        with pytest.raises(Refused, match="removed member"):
            world.peers.process(Message(type, to=OTHER, from_=GONE, term=1))
    with pytest.raises(Refused, match="removed member"):
        world.peers.receive_snapshot(Message(M.MsgSnap, to=LOCAL, from_=GONE, term=1))
    assert world.peers.is_removed(GONE)
    assert not world.peers.is_removed(NEW)


def test_a_broken_invariant_ends_the_member_and_a_refused_message_does_not() -> None:
    world = World()
    world.node.error = InvalidMessage("no")
    with pytest.raises(InvalidMessage):
        world.peers.process(Message(M.MsgHeartbeat, to=LOCAL, from_=OTHER, term=1))
    assert world.failures == []
    world.node.error = InvariantBroken("cannot be")
    world.peers.process(Message(M.MsgHeartbeat, to=LOCAL, from_=OTHER, term=1))
    assert [str(error) for error in world.failures] == ["cannot be"]


GOOD_ADDITION = changes.add(7, Member(9, ("http://m9:2380",)))
PROPOSED = {
    "a request": (0, b"request"),
    "an addition": (1, GOOD_ADDITION),
    "a promotion": (1, changes.promote(7, 9)),
    "a removal": (1, changes.remove(7, 9)),
    "an update": (1, changes.update(7, 9, ["http://m9:1"])),
}
NEVER_PROPOSED = {
    "nothing": (0, b""),
    "a joint change": (2, b"\x12\x04\x08\x00\x10\x09"),
    "the end of one": (2, b""),
    "no change": (1, b"\xff\xff\xff"),
    "an addition of nobody": (1, b"\x10\x00\x18\x09"),
    "an addition of garbage": (1, b"\x10\x00\x18\x09\x22\x03{]\x00"),
    "an addition of somebody else": (1, GOOD_ADDITION.replace(b"\x18\x09", b"\x18\x0a")),
    "an addition without URLs": (1, changes.add(7, Member(9, ()))),
    "an update to no URL": (1, changes.update(7, 9, [])),
    "an update to garbage": (1, changes.update(7, 9, ["nowhere", "http://"])),
}


def forwarded(type: int, data: bytes) -> Message:
    """A proposal as it arrives."""
    message = Message(M.MsgProp, to=LOCAL, from_=OTHER, entries=[Entry(0, 0, type, data)])
    return decode_message(encode_message(message))


@pytest.mark.parametrize("name", PROPOSED)
def test_what_members_propose_is_passed_to_raft(name: str) -> None:
    world = World()
    world.peers.process(forwarded(*PROPOSED[name]))
    assert len(world.node.stepped) == 1


@pytest.mark.parametrize("name", NEVER_PROPOSED)
def test_what_no_member_proposes_is_not(name: str) -> None:
    """Most of it ends every member of real etcd that applies it."""
    world = World()
    with pytest.raises(InvalidMessage):
        world.peers.process(forwarded(*NEVER_PROPOSED[name]))
    mixed = Message(M.MsgProp, to=LOCAL, from_=OTHER, entries=[Entry(0, 0, 0, b"request")])
    mixed.entries += forwarded(*NEVER_PROPOSED[name]).entries
    with pytest.raises(InvalidMessage):
        world.peers.process(mixed)
    assert world.node.stepped == []


def test_who_leads_is_who_raft_says_does() -> None:
    world = World()
    assert not world.peers.leads(OTHER)
    world.node.lead = OTHER
    assert world.peers.leads(OTHER)
    assert not world.peers.leads(THIRD)


# Strangers


def test_a_stranger_is_heard_once_a_known_member_names_it() -> None:
    async def scenario(world: World) -> None:
        world.known["http://m3:2380"] = [member(OTHER), member(THIRD), member(NEW)]
        await world.introduced(NEW)
        assert world.hears(NEW)
        assert world.transport.remotes == {NEW: [f"http://m{NEW}:2380"]}  # not where it says it is

    play(scenario)


def test_a_stranger_whom_nobody_names_stays_one() -> None:
    async def scenario(world: World) -> None:
        world.known["http://m2:2380"] = [member(OTHER), member(THIRD)]
        await world.introduced(NEW)
        assert not world.hears(NEW)
        assert world.transport.remotes == {}

    play(scenario)


def test_members_of_another_cluster_vouch_for_nobody() -> None:
    async def scenario(world: World) -> None:
        world.their_cluster = 0xC2
        world.known["http://m2:2380"] = [member(NEW)]
        await world.introduced(NEW)
        assert not world.hears(NEW)

    play(scenario)


def test_nobody_vouches_for_a_member_that_was_removed() -> None:
    async def scenario(world: World) -> None:
        world.known["http://m2:2380"] = [member(GONE), member(NEW)]
        await world.introduced(GONE)
        assert world.wire.asked == []
        await world.introduced(NEW)
        world.cluster.removed.add(NEW)
        assert not world.hears(NEW)

    play(scenario)


def test_who_is_removed_while_it_is_asked_about_stays_a_stranger() -> None:
    async def scenario(world: World) -> None:
        world.known["http://m2:2380"] = [member(NEW)]
        world.peers.stranger(NEW, [])
        world.cluster.removed.add(NEW)
        await asyncio.gather(*world.tasks)
        assert world.transport.remotes == {}
        world.cluster.removed.discard(NEW)
        assert not world.hears(NEW)

    play(scenario)


def test_however_many_strangers_come_the_others_are_asked_once_a_second() -> None:
    async def scenario(world: World) -> None:
        world.known["http://m2:2380"] = []
        for id in range(1000, 1100):
            await world.introduced(id)
        assert len(world.wire.asked) == 1
        world.now += INTRODUCTION_SECONDS
        for id in range(1000, 1100):
            await world.introduced(id)
        assert len(world.wire.asked) == 2
        assert len(world.tasks) == 2

    play(scenario)


def test_a_stranger_without_a_place_to_dial_is_not_taken() -> None:
    async def scenario(world: World) -> None:
        world.known["http://m2:2380"] = [Member(NEW, ("nowhere",)), Member(NEW + 1, ())]
        await world.introduced(NEW)
        world.now += INTRODUCTION_SECONDS
        await world.introduced(NEW + 1)
        assert not world.hears(NEW)
        assert not world.hears(NEW + 1)

    play(scenario)


# Who is connected to


def added(world: World, one: Member) -> None:
    world.cluster.members[one.id] = one
    world.peers.changed(Applied("add", one.id, one))


def updated(world: World, one: Member) -> None:
    world.cluster.members[one.id] = one
    world.peers.changed(Applied("update", one.id, one))


def removed(world: World, id: int) -> None:
    gone = world.cluster.members.pop(id, None)
    world.cluster.removed.add(id)
    world.peers.changed(Applied("remove", id, gone))


def test_members_are_connected_to_as_they_come_and_go() -> None:
    world = World()
    assert set(world.transport.peers) == {OTHER, THIRD}
    added(world, member(NEW))
    updated(world, member(OTHER, "http://elsewhere:1"))
    removed(world, THIRD)
    assert world.transport.peers == {OTHER: ["http://elsewhere:1"], NEW: [f"http://m{NEW}:2380"]}
    assert world.hears(NEW)
    assert not world.hears(THIRD)


def test_a_member_with_urls_that_cannot_be_dialled_keeps_those_it_had() -> None:
    world = World()
    for urls in (("nowhere",), ()):
        updated(world, Member(OTHER, urls))
        assert world.transport.peers[OTHER] == ["http://m2:2380"]
        assert world.hears(OTHER)


def test_a_member_that_begins_with_such_urls_is_connected_to_once_it_has_others() -> None:
    world = World()
    added(world, Member(NEW, ("nowhere",)))
    assert NEW not in world.transport.peers
    updated(world, member(NEW))
    assert NEW in world.transport.peers
    assert world.hears(NEW)


def test_of_urls_some_of_which_can_be_dialled_these_are() -> None:
    world = World()
    added(world, Member(NEW, ("nowhere", "http://new:1")))
    assert world.transport.peers[NEW] == ["http://new:1"]


def test_a_snapshot_brings_another_membership() -> None:
    world = World()
    world.cluster.members = {
        LOCAL: member(LOCAL),
        OTHER: Member(OTHER, ("http://moved:1",)),
        NEW: member(NEW),
        NEW + 1: Member(NEW + 1, ("nowhere",)),
    }
    world.peers.replaced()
    assert world.transport.peers == {OTHER: ["http://moved:1"], NEW: [f"http://m{NEW}:2380"]}
    assert not world.hears(THIRD)


def test_its_own_removal_is_told_and_other_news_of_itself_is_none() -> None:
    world = World()
    updated(world, member(LOCAL, "http://elsewhere:1"))
    assert world.removals == 0
    removed(world, LOCAL)
    assert world.removals == 1
    assert set(world.transport.peers) == {OTHER, THIRD}


def test_nothing_leaves_for_a_removed_member_and_snapshots_go_their_own_way() -> None:
    world = World()
    snapshot = Message(M.MsgSnap, to=OTHER, from_=LOCAL, term=1)
    world.peers.send(
        [
            Message(M.MsgAppResp, to=OTHER, from_=LOCAL, term=1, index=5),
            Message(M.MsgApp, to=GONE, from_=LOCAL, term=1),
            snapshot,
            Message(M.MsgSnap, to=GONE, from_=LOCAL, term=1),
            Message(M.MsgAppResp, to=OTHER, from_=LOCAL, term=1, index=6),
        ]
    )
    assert [(message.to, message.index) for message in world.transport.sent] == [(OTHER, 6)]
    assert world.outgoing.sent == [snapshot]
