"""A node as a server uses it: many Readys under way, acknowledged later."""

from __future__ import annotations

from random import Random

import pytest

from pyetcd.raft import (
    ConfChange,
    ConfChangeType,
    Config,
    ConfState,
    Entry,
    HardState,
    InvariantBroken,
    MemoryStorage,
    Message,
    MessageType,
    Node,
    ProposalDropped,
    ReadOnlyOption,
    Ready,
    Role,
    Snapshot,
    SnapshotMetadata,
)
from pyetcd.raft.codec import conf_change_of

VOTERS = (1, 2, 3)


class Server:
    """A node with its storage; keeps what is to be sent and what has been applied."""

    def __init__(self, id: int = 1, voters: tuple[int, ...] = (1,), **settings: object) -> None:
        self.storage = MemoryStorage()
        self.storage.apply_snapshot(Snapshot(SnapshotMetadata(1, 1, ConfState(voters=voters))))
        self.storage.set_hard_state(HardState(1, 0, 1))
        defaults: dict[str, object] = {
            "election_ticks": 10,
            "heartbeat_ticks": 1,
            "async_storage": True,
            "random": Random(id),
        }
        self.node = Node(Config(id=id, storage=self.storage, applied=1, **{**defaults, **settings}))  # type: ignore[arg-type]
        self.sent: list[Message] = []
        self.applied: list[Entry] = []
        self.reads: dict[bytes, int] = {}

    def take(self) -> Ready | None:
        ready = self.node.ready()
        if ready is not None:
            self.storage.append(ready.entries)
            self.sent += ready.messages
            self.applied += ready.committed
            self.reads.update({state.context: state.index for state in ready.read_states})
        return ready

    def settle(self) -> None:
        while ready := self.take():
            if ready.wants_append():
                self.sent += self.node.stable(ready)
            if ready.committed:
                self.node.applied(ready.committed[-1].index)

    def lead(self) -> Server:
        self.node.campaign()
        self.settle()
        if not self.node.is_leader:
            self.hear(MessageType.MsgVoteResp, 2)
            self.settle()
        assert self.node.is_leader
        return self

    def hear(self, type: MessageType, from_: int, **fields: object) -> None:
        term = fields.pop("term", self.node.term)
        self.node.step(Message(type, to=self.node.id, from_=from_, term=term, **fields))  # type: ignore[arg-type]

    def sent_of(self, type: MessageType) -> list[Message]:
        found = [m for m in self.sent if m.type is type]
        self.sent.clear()
        return found


def test_a_single_voter_commits_as_soon_as_its_append_is_stable() -> None:
    server = Server().lead()
    server.applied.clear()
    server.node.propose([b"a", b"b"])
    ready = server.take()
    assert ready is not None
    assert ready.must_sync
    assert [e.data for e in ready.entries] == [b"a", b"b"]
    assert server.node.ready() is None, "nothing is committed before it is stable"
    server.node.stable(ready)
    second = server.take()
    assert second is not None
    assert second.committed == ready.entries
    assert second.committed[0] is ready.entries[0], "entries are shared, not copied"
    assert not second.must_sync


def test_proposals_go_on_while_appends_are_under_way_and_commit_in_order() -> None:
    server = Server().lead()
    server.applied.clear()
    under_way = []
    for number in range(5):
        server.node.propose([b"%d" % number])
        ready = server.take()
        assert ready is not None
        under_way.append(ready)
    assert server.applied == []
    for ready in under_way:
        server.node.stable(ready)
    server.settle()
    assert [e.data for e in server.applied] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_later_append_is_not_stable_before_an_earlier_one() -> None:
    server = Server().lead()
    server.node.propose([b"a"])
    first = server.take()
    server.node.propose([b"b"])
    second = server.take()
    assert first is not None
    assert second is not None
    with pytest.raises(InvariantBroken):
        server.node.stable(second)
    server.node.stable(first)
    server.node.stable(second)


def test_entries_may_be_acknowledged_in_parts_and_the_bound_on_unapplied_bytes_holds() -> None:
    server = Server(max_applying_bytes=100).lead()
    server.node.propose([b"x" * 30] * 8)
    ready = server.take()
    assert ready is not None
    server.node.stable(ready)
    first = server.take()
    assert first is not None
    assert len(first.committed) == 2, "a third one would pass 100 bytes"
    if first.wants_append():
        server.node.stable(first)
    assert server.take() is None
    server.node.applied(first.committed[0].index)
    more = server.take()
    assert more is not None
    assert [e.index for e in more.committed] == [first.committed[-1].index + 1]


def test_proposals_beyond_the_uncommitted_bound_are_dropped_until_others_are_applied() -> None:
    server = Server(max_uncommitted_bytes=100).lead()
    server.node.propose([b"x" * 300])  # one may overshoot when nothing is under way
    with pytest.raises(ProposalDropped):
        server.node.propose([b"y"])
    server.settle()
    server.node.propose([b"y"])


def test_a_batch_whose_indexes_grow_by_a_digit_has_right_sizes() -> None:
    server = Server().lead()
    server.node.propose([b"x" * (i % 200) for i in range(300)])
    server.settle()
    for entry in server.applied:
        assert entry.size == Entry(entry.term, entry.index, entry.type, entry.data).size


def test_a_new_cluster_starts_with_its_members_in_the_log() -> None:
    storage = MemoryStorage()
    node = Node(
        Config(
            id=7, election_ticks=10, heartbeat_ticks=1, storage=storage, random=Random(1), async_storage=True
        )
    )
    node.bootstrap([(7, b"seven"), (8, b"eight")])
    with pytest.raises(ValueError, match="at least one peer"):
        node.bootstrap([])
    ready = node.ready()
    assert ready is not None
    assert ready.hard_state == HardState(1, 0, 2)
    changes = [conf_change_of(e) for e in ready.entries]
    add = ConfChangeType.ConfChangeAddNode
    assert changes == [ConfChange(add, 7, b"seven"), ConfChange(add, 8, b"eight")]
    storage.append(ready.entries)
    node.stable(ready)
    later = node.ready()
    assert later is not None
    assert later.committed == ready.entries
    assert [node.apply_conf_change(c).voters for c in changes] == [(7, 8), (7, 8)]


def test_a_restarted_member_has_its_term_its_vote_and_its_log() -> None:
    server = Server().lead()
    server.node.propose([b"a"])
    server.settle()
    storage = server.storage
    last = storage.last_index()
    storage.set_hard_state(HardState(5, 1, last - 1))
    node = Node(
        Config(
            id=1,
            election_ticks=10,
            heartbeat_ticks=1,
            storage=storage,
            random=Random(1),
            async_storage=True,
            applied=1,
        )
    )
    status = node.status()
    assert (status.hard_state, status.soft_state.role) == (HardState(5, 1, last - 1), Role.StateFollower)
    ready = node.ready()
    assert ready is not None
    assert [e.index for e in ready.committed] == list(range(2, last)), (
        "what was applied is not returned again"
    )


def test_a_member_does_not_start_with_a_commit_index_beyond_its_log() -> None:
    storage = MemoryStorage()
    storage.set_hard_state(HardState(1, 1, 5))
    with pytest.raises(InvariantBroken, match="out of range"):
        Node(Config(id=1, election_ticks=10, heartbeat_ticks=1, storage=storage, random=Random(1)))


def test_votes_and_acknowledgements_wait_for_the_disk() -> None:
    server = Server(voters=VOTERS)
    server.hear(MessageType.MsgVote, 2, term=5, index=1, log_term=1)
    ready = server.take()
    assert ready is not None
    assert ready.hard_state == HardState(5, 2, 1)
    assert ready.messages == []
    (vote,) = server.node.stable(ready)
    assert (vote.type, vote.to, vote.reject) == (MessageType.MsgVoteResp, 2, False)

    server.hear(MessageType.MsgApp, 2, term=5, index=1, log_term=1, entries=[Entry(5, 2, 0, b"a")])
    ready = server.take()
    assert ready is not None
    assert ready.messages == []
    (acknowledgement,) = server.node.stable(ready)
    assert (acknowledgement.type, acknowledgement.index) == (MessageType.MsgAppResp, 2)


def test_the_window_to_a_follower_is_bounded_by_messages_and_by_bytes() -> None:
    by_count = Server(voters=VOTERS, max_inflight_messages=2, max_message_bytes=0).lead()
    by_bytes = Server(voters=VOTERS, max_inflight_bytes=250, max_message_bytes=0).lead()
    for server, expected in ((by_count, 2), (by_bytes, 3)):
        server.hear(MessageType.MsgAppResp, 2, index=server.node.last_index)
        server.settle()
        server.sent.clear()
        for _ in range(6):
            server.node.propose([b"x" * 100])
            server.settle()
        appends = [m for m in server.sent_of(MessageType.MsgApp) if m.to == 2 and m.entries]
        assert len(appends) == expected
        server.hear(MessageType.MsgAppResp, 2, index=appends[0].entries[-1].index)
        server.settle()
        assert len([m for m in server.sent_of(MessageType.MsgApp) if m.to == 2 and m.entries]) == 1


def test_a_read_is_served_once_a_quorum_has_answered_a_round_that_started_after_it() -> None:
    server = Server(voters=VOTERS).lead()
    server.hear(MessageType.MsgAppResp, 2, index=server.node.last_index)
    server.settle()
    server.sent.clear()
    server.node.read_index(b"one")
    server.settle()
    first = server.sent_of(MessageType.MsgHeartbeat)[0].context
    server.node.read_index(b"two")
    server.settle()
    second = server.sent_of(MessageType.MsgHeartbeat)[0].context
    assert first != second
    server.hear(MessageType.MsgHeartbeatResp, 2, context=first)
    server.settle()
    assert server.reads == {b"one": server.node.committed_index}
    server.hear(MessageType.MsgHeartbeatResp, 3, context=second)
    server.settle()
    assert set(server.reads) == {b"one", b"two"}


def test_reads_that_come_during_a_round_share_the_next_one() -> None:
    server = Server(voters=VOTERS, gather_reads=True).lead()
    server.hear(MessageType.MsgAppResp, 2, index=server.node.last_index)
    server.settle()
    server.sent.clear()
    for name in (b"one", b"two", b"three"):
        server.node.read_index(name)
    server.settle()
    beats = server.sent_of(MessageType.MsgHeartbeat)
    assert [beat.to for beat in beats] == [2, 3]
    server.hear(MessageType.MsgHeartbeatResp, 2, context=beats[0].context)
    server.settle()
    assert set(server.reads) == {b"one"}
    beats = server.sent_of(MessageType.MsgHeartbeat)
    assert [beat.to for beat in beats] == [2, 3]
    server.hear(MessageType.MsgHeartbeatResp, 3, context=beats[0].context)
    server.settle()
    assert set(server.reads) == {b"one", b"two", b"three"}
    assert server.sent_of(MessageType.MsgHeartbeat) == []


def test_a_round_that_is_lost_is_made_good_by_the_next_heartbeat() -> None:
    server = Server(voters=VOTERS, gather_reads=True).lead()
    server.hear(MessageType.MsgAppResp, 2, index=server.node.last_index)
    server.settle()
    server.node.read_index(b"one")
    server.settle()
    server.sent.clear()
    server.node.read_index(b"two")
    server.node.tick()
    server.settle()
    beat = server.sent_of(MessageType.MsgHeartbeat)[0]
    server.hear(MessageType.MsgHeartbeatResp, 2, context=beat.context)
    server.settle()
    assert set(server.reads) == {b"one", b"two"}


def test_a_read_waits_for_the_first_commit_of_a_leaders_term() -> None:
    server = Server(voters=VOTERS).lead()
    server.sent.clear()
    server.node.read_index(b"early")
    server.settle()
    assert server.sent_of(MessageType.MsgHeartbeat) == []
    server.hear(MessageType.MsgAppResp, 2, index=server.node.last_index)
    server.settle()
    beat = server.sent_of(MessageType.MsgHeartbeat)[0]
    server.hear(MessageType.MsgHeartbeatResp, 2, context=beat.context)
    server.settle()
    assert server.reads == {b"early": 2}


def test_a_lease_answers_reads_at_once() -> None:
    server = Server(voters=VOTERS, check_quorum=True, read_only=ReadOnlyOption.LEASE).lead()
    server.hear(MessageType.MsgAppResp, 2, index=server.node.last_index)
    server.node.read_index(b"now")
    server.settle()
    assert server.reads == {b"now": 2}


def test_a_followers_read_goes_to_the_leader_and_its_answer_comes_back() -> None:
    server = Server(voters=VOTERS)
    server.hear(MessageType.MsgHeartbeat, 2, term=3)
    server.node.read_index(b"remote")
    server.settle()
    (request,) = server.sent_of(MessageType.MsgReadIndex)
    assert (request.to, request.from_, request.entries[0].data) == (2, 1, b"remote")
    server.hear(MessageType.MsgReadIndexResp, 2, index=9, entries=request.entries)
    server.settle()
    assert server.reads == {b"remote": 9}


def test_a_snapshot_replaces_log_and_configuration() -> None:
    server = Server(voters=VOTERS)
    snapshot = Snapshot(SnapshotMetadata(50, 4, ConfState(voters=(1, 2), learners=(4,))), b"state")
    server.hear(MessageType.MsgSnap, 2, term=4, snapshot=snapshot)
    assert not server.node.status().config.voters.is_joint()
    ready = server.node.ready()
    assert ready is not None
    assert ready.snapshot == snapshot
    assert ready.committed == []
    server.storage.apply_snapshot(snapshot)
    (answer,) = server.node.stable(ready)
    assert (answer.type, answer.index) == (MessageType.MsgAppResp, 50)
    assert server.node.applied_index == 50
    assert server.node.config.conf_state() == snapshot.metadata.conf_state


def test_the_log_cache_knows_its_bytes_and_where_to_cut() -> None:
    server = Server().lead()
    server.node.propose([b"x" * 100] * 50)
    server.settle()
    storage = server.storage
    entries = storage.entries(storage.first_index(), storage.last_index() + 1)
    assert storage.size_bytes == sum(e.size for e in entries)
    first = storage.first_index_within(1000)
    assert sum(e.size for e in entries if e.index >= first) <= 1000
    assert sum(e.size for e in entries if e.index >= first - 1) > 1000
    storage.compact(first - 1)
    assert storage.size_bytes <= 1000
    assert storage.first_index() == first


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"id": 0}, "cannot use none as id"),
        ({"heartbeat_ticks": 0}, "heartbeat tick must be greater than 0"),
        ({"election_ticks": 1}, "election tick must be greater than heartbeat tick"),
        ({"max_inflight_messages": 0}, "max inflight messages must be greater than 0"),
        ({"max_inflight_bytes": 5}, "max inflight bytes must be >= max message size"),
        ({"read_only": ReadOnlyOption.LEASE}, "CheckQuorum must be enabled"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Server(**settings)  # type: ignore[arg-type]
