"""The member's log on a real disk: nothing is applied before it is durable, everything once and in order."""

from __future__ import annotations

import random
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pyetcd._native import Appender, Wake
from pyetcd.cluster.bootstrap import metadata
from pyetcd.member.consensus import WAITING_BYTES_MAX, Consensus
from pyetcd.member.pacing import Pacing
from pyetcd.member.phases import Phases
from pyetcd.raft import (
    ConfChange,
    ConfChangeType,
    Config,
    Entry,
    HardState,
    InvariantBroken,
    MemoryStorage,
    Message,
    MessageType,
    Node,
    ProposalDropped,
    Snapshot,
)
from pyetcd.raft.codec import conf_change_of, encode_conf_change
from pyetcd.storage.files import OsFiles
from pyetcd.storage.wal import Wal

MEMBER = 0x8E9E05C52164694D
DEADLINE_SECONDS = 20.0


class NoSnapshots:
    """A member alone is sent none."""

    def save(self, snapshot: Snapshot, saved: Callable[[], None]) -> None:
        raise AssertionError("nobody sends a snapshot")

    def install(self, snapshot: Snapshot) -> None:
        raise AssertionError("nobody sends a snapshot")


class LogThread:
    """The native one, whose news can be held back or be bad."""

    def __init__(self, wake: Wake) -> None:
        self._appender = Appender(wake)
        self.append = self._appender.append
        self.close = self._appender.close
        self.completed = self._appender.completed

    @contextmanager
    def saying(self, completed: Callable[[], int]) -> Iterator[None]:
        self.completed = completed
        yield
        self.completed = self._appender.completed


class Log:
    """The log as raft reads it; it contradicts itself once `is_broken`."""

    def __init__(self, kept: MemoryStorage) -> None:
        self.kept = kept
        self.is_broken = False

    def __getattr__(self, name: str) -> Any:
        if self.is_broken:
            raise InvariantBroken("cannot be")
        return getattr(self.kept, name)


class Member:
    """One voter with its log in `directory`; what it applies is gathered in `applied`."""

    def __init__(self, directory: Path, *, busy_on: bytes | None = None) -> None:
        self.wake = Wake()
        self.appender = LogThread(self.wake)
        self.applied: list[bytes] = []
        self.failures: list[Exception] = []
        self.dropped: list[bytes] = []
        self.busy_on = busy_on
        self.is_full = False
        self.phases = Phases(time.monotonic)
        storage = MemoryStorage()
        self.log = Log(storage)
        path = str(directory / "wal")
        fresh = not (directory / "wal").exists()
        if fresh:
            self.wal = Wal.create(OsFiles(), path, metadata(MEMBER, 1), self.appender)
        else:
            self.wal, replay = Wal.open(OsFiles(), path, self.appender, entry=Entry)
            assert replay.hard_state is not None
            found = replay.hard_state
            storage.set_hard_state(HardState(found.term, found.vote, found.commit))
            storage.append(replay.entries)
        config = Config(
            id=MEMBER,
            election_ticks=10,
            heartbeat_ticks=1,
            storage=self.log,
            random=random.Random(1),
            async_storage=True,
        )
        node = Node(config)
        if fresh:
            node.bootstrap([(MEMBER, b"")])
        self.consensus = Consensus(
            node,
            storage,
            self.wal,
            apply=self.apply,
            on_applied=lambda: None,
            on_leadership=lambda: None,
            on_read_state=lambda state: None,
            on_dropped=self.dropped.extend,
            on_failure=self.failures.append,
            send=lambda messages: None,
            is_full=lambda: self.is_full,
            snapshots=NoSnapshots(),
            phases=self.phases,
            pacing=Pacing(time.monotonic),
        )

    def apply(self, entry: Entry) -> bool:
        if entry.type:  # the change that makes this member the first voter, at bootstrap and again at restart
            self.consensus.node.apply_conf_change(conf_change_of(entry))
            return True
        if entry.data:
            self.applied.append(entry.data)
        return entry.data != self.busy_on

    def until(self, done: Callable[[], bool]) -> None:
        """Turn the loop by hand: the log thread's news, then time."""
        for _ in range(int(DEADLINE_SECONDS / 0.01)):
            if done():
                return
            readable, _, _ = select.select([self.wake.fileno()], [], [], 0.01)
            if readable:
                self.wake.clear()
                self.consensus.durable()
            else:
                self.consensus.tick()
        raise AssertionError("did not happen in time")

    def lead(self) -> None:
        self.consensus.flush()
        self.until(lambda: self.consensus.node.is_leader)

    def close(self) -> None:
        self.appender.close()
        self.wal.close()


def test_proposals_are_applied_once_each_and_in_order(tmp_path: Path) -> None:
    member = Member(tmp_path)
    member.lead()
    expected = [b"%d" % number for number in range(1000)]
    for start in range(0, 1000, 50):
        for data in expected[start : start + 50]:
            member.consensus.propose(data)
        member.consensus.flush()
    member.until(lambda: len(member.applied) == 1000)
    assert member.applied == expected
    member.close()


def test_proposals_wait_while_the_database_is_full(tmp_path: Path) -> None:
    member = Member(tmp_path)
    member.lead()
    member.is_full = True
    for number in range(10):
        member.consensus.propose(b"%d" % number)
        member.consensus.flush()
    assert member.consensus.waiting_bytes == 10
    member.consensus.withdraw({b"3", b"4"})
    assert member.consensus.waiting_bytes == 8
    for _ in range(5):
        member.consensus.tick()
    assert member.applied == []
    member.is_full = False
    member.consensus.flush()
    assert member.consensus.waiting_bytes == 0
    member.until(lambda: len(member.applied) == 8)
    assert member.applied == [b"0", b"1", b"2", b"5", b"6", b"7", b"8", b"9"]
    member.close()


def test_nothing_is_applied_before_the_log_thread_says_it_is_durable(tmp_path: Path) -> None:
    member = Member(tmp_path)
    member.lead()
    member.until(lambda: member.consensus.applied_index == member.consensus.node.last_index)
    done = member.wal.completed()
    with member.appender.saying(lambda: done):
        member.consensus.propose(b"one")
        member.consensus.flush()
        member.consensus.flush()
        assert member.applied == []
    member.until(lambda: member.applied == [b"one"])
    member.close()


def test_a_restart_applies_the_same_log_again(tmp_path: Path) -> None:
    member = Member(tmp_path)
    member.lead()
    for number in range(100):
        member.consensus.propose(b"%d" % number)
    member.consensus.flush()
    member.until(lambda: len(member.applied) == 100)
    before = member.applied
    member.close()
    again = Member(tmp_path)
    again.lead()
    again.until(lambda: len(again.applied) == 100)
    assert again.applied == before
    again.close()


def test_a_snapshot_marker_is_told_of_when_it_is_durable_and_after_a_failure_never(tmp_path: Path) -> None:
    member = Member(tmp_path)
    member.lead()
    member.until(lambda: member.consensus.applied_index == member.consensus.node.last_index)
    index, term, told = member.consensus.applied_index, member.consensus.applied_term, []
    done = member.wal.completed()
    with member.appender.saying(lambda: done):
        member.consensus.save_snapshot(index, term, b"\x08\x01", lambda: told.append("first"))
        member.consensus.flush()
        assert told == []
    member.until(lambda: told == ["first"])

    def full() -> int:
        raise OSError(28, "No space left on device")

    with member.appender.saying(full):
        member.consensus.save_snapshot(index, term, b"\x08\x01", lambda: told.append("second"))
        member.consensus.flush()
        assert [failure.errno for failure in member.failures if isinstance(failure, OSError)] == [28]
    member.consensus.durable()
    member.consensus.save_snapshot(index, term, b"\x08\x01", lambda: told.append("third"))
    assert told == ["first"]
    member.close()


def test_an_entry_that_needs_more_turns_holds_back_those_behind_it(tmp_path: Path) -> None:
    member = Member(tmp_path, busy_on=b"long")
    member.lead()
    for data in (b"before", b"long", b"after"):
        member.consensus.propose(data)
    member.consensus.flush()
    member.until(lambda: b"long" in member.applied)
    member.consensus.tick()
    assert member.applied == [b"before", b"long"]
    member.consensus.resume()
    member.until(lambda: member.applied == [b"before", b"long", b"after"])
    member.close()


def test_a_failed_write_ends_it_and_what_was_not_durable_is_never_applied(tmp_path: Path) -> None:
    member = Member(tmp_path)
    member.lead()
    member.until(lambda: member.consensus.applied_index == member.consensus.node.last_index)

    def full(self: object = None) -> int:
        raise OSError(28, "No space left on device")

    with member.appender.saying(full):
        member.consensus.propose(b"lost")
        member.consensus.flush()
        member.until(lambda: bool(member.failures))
    member.consensus.flush()
    member.consensus.durable()
    assert member.applied == []
    assert [failure.errno for failure in member.failures if isinstance(failure, OSError)] == [28]
    member.close()


def forwarded(*datas: bytes) -> Message:
    return Message(MessageType.MsgProp, to=MEMBER, from_=2, entries=[Entry(0, 0, 0, data) for data in datas])


def test_what_followers_forward_goes_out_with_the_next_batch_and_holds_nothing_up(tmp_path: Path) -> None:
    member = Member(tmp_path)
    member.lead()
    consensus, node = member.consensus, member.consensus.node
    member.until(lambda: consensus.applied_index == node.last_index)
    done = member.wal.completed()
    with member.appender.saying(lambda: done):
        for number in range(5):  # with members that forward all the time
            before = node.last_index
            consensus.propose(b"own %d" % number)
            consensus.forward(forwarded(b"theirs %d" % number))
            consensus.flush()
            assert node.last_index == before + 2
            assert len(consensus._appending) == 1
            consensus.forward(forwarded(b"b%d" % number, b"c%d" % number))
            consensus.propose(b"next %d" % number)
            consensus.flush()
            assert node.last_index == before + 2
            done = consensus._appending[-1][0]
            consensus.durable()
            assert node.last_index == before + 5
            done = consensus._appending[-1][0]
            consensus.durable()
    assert member.applied[:5] == [b"theirs 0", b"own 0", b"b0", b"c0", b"next 0"]
    assert len(member.applied) == 25
    assert not member.dropped
    member.close()


def test_no_more_is_taken_from_followers_than_may_wait(tmp_path: Path) -> None:
    member = Member(tmp_path)
    consensus = member.consensus
    with pytest.raises(ProposalDropped):
        consensus.forward(forwarded(b"nobody leads"))
    member.lead()
    member.is_full = True
    large = bytes(1 << 20)
    for _ in range(WAITING_BYTES_MAX // len(large) + 1):
        consensus.forward(forwarded(large))
        consensus.flush()
    with pytest.raises(ProposalDropped):
        consensus.forward(forwarded(b"one more"))
    assert consensus.waiting_bytes == WAITING_BYTES_MAX + len(large)
    member.is_full = False
    consensus.flush()
    assert consensus.waiting_bytes == 0
    consensus.forward(forwarded(b"room again"))
    member.until(lambda: member.applied[-1:] == [b"room again"])
    member.close()


def test_changes_of_members_that_followers_forward_do_not_wait(tmp_path: Path) -> None:
    member = Member(tmp_path)
    member.lead()
    member.is_full = True
    before = member.consensus.node.last_index
    change = Entry(0, 0, *encode_conf_change(ConfChange(ConfChangeType.ConfChangeAddLearnerNode, 7)))
    member.consensus.forward(Message(MessageType.MsgProp, to=MEMBER, from_=2, entries=[change]))
    assert member.consensus.node.last_index == before + 1
    assert member.consensus.waiting_bytes == 0
    member.close()


def test_proposals_wait_while_leadership_is_moving(tmp_path: Path) -> None:
    member = Member(tmp_path)
    member.lead()
    member.until(lambda: member.consensus.applied_index == member.consensus.node.last_index)
    member.consensus.node._raft.transferee = 2
    member.consensus.propose(b"meanwhile")
    member.consensus.flush()
    assert member.dropped == []
    member.until(lambda: member.applied == [b"meanwhile"])  # raft gives it up after an election timeout
    assert member.dropped == []
    member.close()


@pytest.mark.parametrize("leads", [True, False])
def test_a_log_that_contradicts_itself_ends_it(tmp_path: Path, leads: bool) -> None:
    member = Member(tmp_path)
    member.lead()
    member.until(lambda: member.consensus.applied_index == member.consensus.node.last_index)
    if not leads:
        member.close()
        member = Member(tmp_path)
    member.log.is_broken = True
    if leads:
        member.consensus.propose(b"never")
    for _ in range(30):  # a follower reads it at the latest when it wants to be elected
        member.consensus.tick()
    assert [str(failure) for failure in member.failures] == ["cannot be"]
    member.consensus.propose(b"never")
    member.consensus.tick()
    assert member.applied == []
    member.close()
