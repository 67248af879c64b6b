"""What no correct member sends changes nothing, and never stops a member."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyetcd.raft import (
    Config,
    ConfState,
    Entry,
    InvalidMessage,
    MemoryStorage,
    Message,
    MessageType,
    Node,
    ProposalDropped,
    Role,
    Snapshot,
    SnapshotMetadata,
)
from pyetcd.raft.codec import decode_message

M = MessageType


def node(role: Role = Role.StateFollower) -> Node:
    """Member 1 of 1, 2, 3 in term 2."""
    storage = MemoryStorage()
    storage.apply_snapshot(Snapshot(SnapshotMetadata(5, 1, ConfState(voters=(1, 2, 3)))))
    made = Node(
        Config(
            id=1,
            election_ticks=10,
            heartbeat_ticks=1,
            storage=storage,
            random=Random(1),
            applied=5,
            check_quorum=True,
        )
    )
    if role is Role.StateLeader:
        made.campaign()
        ready = made.ready()
        assert ready is not None
        made.advance()
        made.step(Message(M.MsgVoteResp, to=1, from_=2, term=1))
    else:
        made.step(Message(M.MsgHeartbeat, to=1, from_=2, term=2))
    assert made.role is role
    while (ready := made.ready()) is not None:
        storage.append(ready.entries)
        made.advance()
    return made


def seen(node: Node) -> object:
    return node.status().hard_state, node.status().soft_state, node.last_index, node.has_ready()


@pytest.mark.parametrize("role", [Role.StateFollower, Role.StateLeader])
@pytest.mark.parametrize(
    "message",
    [
        Message(M.MsgHup, from_=2),
        Message(M.MsgBeat, from_=2),
        Message(M.MsgUnreachable, from_=2),
        Message(M.MsgSnapStatus, from_=2),
        Message(M.MsgCheckQuorum, from_=2),
        Message(M.MsgStorageAppendResp, from_=2, term=2, index=9, log_term=2),
        Message(M.MsgStorageApplyResp, from_=2, entries=[Entry(2, 9, 0, b"")]),
        Message(M.MsgStorageAppendResp, from_=2**64 - 1, term=2, index=9, log_term=2),
        Message(M.MsgStorageApplyResp, from_=2**64 - 2, entries=[Entry(2, 9, 0, b"")]),
        Message(M.MsgHeartbeat, from_=2**64 - 1, term=9),
        Message(M.MsgHeartbeat, from_=1, term=9),
        Message(M.MsgVoteResp, from_=1, term=9),
        Message(M.MsgAppResp, from_=9, term=9, index=100),
        Message(M.MsgHeartbeatResp, from_=9, term=9),
        Message(M.MsgHeartbeatResp, from_=2, term=2, context=b"short"),
        Message(M.MsgHeartbeat, from_=2, term=9, commit=2**60),
        Message(M.MsgApp, from_=2, index=5, log_term=1),
        Message(M.MsgApp, from_=2, term=9, index=5, log_term=1, entries=[Entry(2, 7, 0, b"")]),
        Message(M.MsgApp, from_=2, term=9, index=5, log_term=1, entries=[Entry(10, 6, 0, b"")]),
        Message(M.MsgApp, from_=2, term=9, index=5, log_term=4, entries=[Entry(3, 6, 0, b"")]),
        Message(M.MsgSnap, from_=2, term=9),
        Message(M.MsgProp, from_=2),
        Message(M.MsgProp, from_=2, entries=[Entry(0, 0, 1, b"\xff\xff")]),
        Message(M.MsgProp, from_=2, entries=[Entry(0, 0, 2, b"\x12\x02\x08\x63")]),
        Message(M.MsgReadIndex, from_=2),
    ],
    ids=lambda value: value.type.name if isinstance(value, Message) else value.name,
)
def test_a_message_that_cannot_be_is_refused_and_changes_nothing(message: Message, role: Role) -> None:
    target = node(role)
    before = seen(target)
    with pytest.raises(InvalidMessage):
        target.step(message)
    assert seen(target) == before


small = st.integers(min_value=0, max_value=12)
entries = st.lists(
    st.builds(Entry, term=small, index=small, type=st.integers(0, 2), data=st.binary(max_size=8)), max_size=3
)
snapshots = st.builds(
    Snapshot,
    metadata=st.builds(
        SnapshotMetadata,
        index=small,
        term=small,
        conf_state=st.builds(
            ConfState,
            voters=st.lists(small, max_size=3).map(tuple),
            learners=st.lists(small, max_size=3).map(tuple),
            voters_outgoing=st.lists(small, max_size=2).map(tuple),
            learners_next=st.lists(small, max_size=2).map(tuple),
            auto_leave=st.booleans(),
        ),
    ),
)
messages = st.builds(
    Message,
    type=st.sampled_from(MessageType),
    to=st.just(1),
    from_=st.sampled_from([0, 1, 2, 3, 9, 2**64 - 1]),
    term=small,
    log_term=small,
    index=small,
    entries=entries,
    commit=small,
    snapshot=st.none() | snapshots,
    reject=st.booleans(),
    reject_hint=small,
    context=st.sampled_from([b"", b"x", b"CampaignTransfer", (1).to_bytes(8, "little")]),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(role=st.sampled_from([Role.StateFollower, Role.StateLeader]), arriving=st.lists(messages, max_size=12))
def test_no_message_makes_a_node_fail_in_another_way_than_by_refusing(
    role: Role, arriving: list[Message]
) -> None:
    target = node(role)
    for message in arriving:
        try:
            target.step(message)
        except (InvalidMessage, ProposalDropped):
            continue
    target.tick()
    assert target.term >= 1


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    try:
        decode_message(data)
    except InvalidMessage:
        pass
