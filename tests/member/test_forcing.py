"""`--force-new-cluster`: one member goes on alone. `tests/interop/test_same_force.py` has the comparison."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bare_members import BareMember, bare, elect, settle
from test_opening_several import CLUSTER, NAMES, config, stop, trio
from whole_member import UnsyncedFiles

from pyetcd.cluster import changes
from pyetcd.cluster.bootstrap import Beginning, NewCluster
from pyetcd.cluster.members import Member
from pyetcd.member.forcing import committed, entries_for_one
from pyetcd.member.opening import CannotOpen
from pyetcd.proto.raft_pb2 import ConfChange
from pyetcd.raft import Entry, EntryType, HardState
from pyetcd.raft.codec import conf_change_of
from pyetcd.storage import wal
from pyetcd.storage.files import OsFiles


def forced(directory: Path, name: str = "a", **settings: object) -> BareMember:
    return bare(config(directory, name, force_new_cluster=True, **settings))


def ids(member: BareMember) -> list[int]:
    return [each.id for each in member.opened.cluster.list()]


def replay(directory: Path, name: str = "a") -> wal.Replay[Entry]:
    return wal.read_only(OsFiles(), str(directory / name / "member" / "wal"), entry=Entry)


def written(directory: Path, count: int = 3) -> list[BareMember]:
    members = trio(directory)
    leader = elect(members)
    for number in range(count):
        leader.opened.node.propose([b"%d" % number])
        settle(members)
    leader.opened.node.tick()
    settle(members)
    return members


def test_a_member_goes_on_alone(tmp_path: Path) -> None:
    members = written(tmp_path)
    before = members[0].opened.position.index
    cluster_id, member_id = members[0].opened.cluster_id, members[0].opened.member_id
    stop(members)
    alone = forced(tmp_path)
    assert alone.opened.peers == []
    settle([alone])
    assert ids(alone) == [member_id]
    assert alone.opened.cluster_id == cluster_id
    assert len(alone.opened.cluster.removed) == 2
    assert alone.opened.position.index == before + 2
    assert alone.opened.cluster.list()[0].name == "a"
    elect([alone])
    alone.opened.node.propose([b"alone"])
    settle([alone])
    assert alone.applied == [b"alone"]
    alone.stop()
    again = bare(config(tmp_path, "a"))
    assert elect([again]) is again
    again.stop()


@pytest.mark.parametrize("keep", [True, False], ids=["with its database", "by its log alone"])
def test_it_may_be_forced_again(tmp_path: Path, keep: bool) -> None:
    members = written(tmp_path)
    stop(members)
    for _ in range(2):
        alone = forced(tmp_path)
        settle([alone])
        assert ids(alone) == [members[0].opened.member_id]
        last = alone.opened.position.index
        alone.stop(keep=keep)
        assert replay(tmp_path).last_index == last
        assert replay(tmp_path).hard_state.commit == last  # type: ignore[union-attr]


def test_what_is_not_committed_is_dropped(tmp_path: Path) -> None:
    members = written(tmp_path)
    for _ in range(3):
        members[0].opened.node.propose([b"nobody hears of it"])
        settle(members[:1])
    commit = members[0].opened.node.committed_index
    stop(members)
    assert replay(tmp_path).last_index == commit + 3
    alone = forced(tmp_path)
    settle([alone])
    assert alone.opened.position.index == commit + 2
    alone.stop()
    found = replay(tmp_path)
    assert found.last_index == commit + 2
    assert [entry.type for entry in found.entries[-2:]] == [EntryType.EntryConfChange] * 2
    assert not any(b"nobody" in entry.data for entry in found.entries)


def test_what_the_database_has_applied_is_committed(tmp_path: Path) -> None:
    """A commit index that moved alone is not synced, so after a crash the log may know less than the
    database."""
    members = written(tmp_path)
    index, term = members[0].opened.position.index, members[0].opened.position.term
    members[0].opened.wal.save(HardState(term, 0, index - 2), [], True)
    stop(members)
    assert replay(tmp_path).hard_state.commit < index  # type: ignore[union-attr]
    alone = forced(tmp_path)
    settle([alone])
    assert alone.opened.position.index == index + 2
    alone.stop()


def test_a_database_ahead_of_the_log_is_gone_on_with(tmp_path: Path) -> None:
    members = written(tmp_path)
    members[0].opened.position.index += 5
    ahead = members[0].opened.position.index
    stop(members)
    for _ in range(2):
        alone = forced(tmp_path)
        settle([alone])
        assert ids(alone) == [members[0].opened.member_id]
        assert alone.opened.position.index == ahead + 2
        alone.stop()
    alone = bare(config(tmp_path, "a"))
    elect([alone])
    alone.opened.node.propose([b"next"])
    settle([alone])
    assert alone.applied == [b"next"]
    alone.stop()


def with_learner(directory: Path) -> tuple[list[BareMember], BareMember]:
    """Three members, and a fourth that learns."""
    members = written(directory)
    leader = next(member for member in members if member.opened.node.is_leader)
    id = 0xD
    data = changes.add(1, Member(id, ("http://127.0.0.1:2390",), is_learner=True))
    change = conf_change_of(Entry(0, 0, EntryType.EntryConfChange, data))
    leader.opened.node.propose_conf_change(change)
    settle(members)
    beginning = Beginning(NewCluster(leader.opened.cluster_id, ()), id, is_new=False)
    learner = bare(config(directory, "d", initial_cluster_state="existing"), beginning)
    everyone = [*members, learner]
    for _ in range(5):
        leader.opened.node.tick()
        settle(everyone)
    assert learner.opened.cluster.is_local_learner
    return everyone, learner


def test_a_learner_is_promoted_first(tmp_path: Path) -> None:
    everyone, _ = with_learner(tmp_path)
    stop(everyone)
    for _ in range(2):
        alone = forced(tmp_path, "d")
        settle([alone])
        (only,) = alone.opened.cluster.list()
        assert (only.id, only.is_learner) == (0xD, False)
        elect([alone])
        alone.stop()


def test_learners_are_removed_too(tmp_path: Path) -> None:
    everyone, _ = with_learner(tmp_path)
    stop(everyone)
    alone = forced(tmp_path)
    settle([alone])
    assert ids(alone) == [everyone[0].opened.member_id]
    assert 0xD in alone.opened.cluster.removed
    alone.stop()


def test_a_member_that_was_removed_stays_so(tmp_path: Path) -> None:
    members = written(tmp_path)
    leader = next(member for member in members if member.opened.node.is_leader)
    gone = next(member for member in members if member is not leader)
    data = changes.remove(1, gone.opened.member_id)
    leader.opened.node.propose_conf_change(conf_change_of(Entry(0, 0, EntryType.EntryConfChange, data)))
    settle(members)
    leader.opened.node.tick()
    settle(members)
    assert gone.opened.member_id in gone.opened.cluster.removed
    name = NAMES[members.index(gone)]
    stop(members)
    with pytest.raises(CannotOpen, match="was removed from its cluster"):
        forced(tmp_path, name)


def test_a_new_member_is_not_forced(tmp_path: Path) -> None:
    member = forced(tmp_path, initial_cluster=CLUSTER)
    assert len(member.opened.peers) == 2
    member.stop()


class Interrupted(BaseException):
    """The process ends here."""


class EndsInTheLog(UnsyncedFiles):
    """The power goes with the first write to the log, when so many sectors of it are on the disk."""

    def __init__(self, sectors: int) -> None:
        self._sectors = sectors
        self._fds: set[int] = set()

    def open(self, path: str, **how: bool) -> int:
        fd = super().open(path, **how)
        if path.endswith(".wal"):
            self._fds.add(fd)
        return fd

    def pwrite(self, fd: int, data: bytes, offset: int) -> None:
        if fd in self._fds:
            end = (offset // 512 + self._sectors) * 512 if self._sectors else offset
            super().pwrite(fd, data[: end - offset], offset)
            raise Interrupted
        super().pwrite(fd, data, offset)


@pytest.mark.parametrize("ahead", [0, 5], ids=["", "with a database ahead of the log"])
@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8, 9, 10])
@pytest.mark.parametrize("sectors", [0, 1, 9])
def test_a_forced_start_cut_short_is_made_again(tmp_path: Path, sectors: int, count: int, ahead: int) -> None:
    members = written(tmp_path, count)  # so that what is appended lies here and there in its sectors
    members[0].opened.position.index += ahead
    stop(members)
    place = config(tmp_path, "a", force_new_cluster=True)
    with pytest.raises(Interrupted):
        bare(place, files=EndsInTheLog(sectors))
    for name in ("forced", "as before"):  # without the locks of this process
        shutil.copytree(tmp_path / "a", tmp_path / name / "a")
    alone = forced(tmp_path / "forced")
    settle([alone])
    assert ids(alone) == [members[0].opened.member_id]
    alone.stop()
    as_before = bare(config(tmp_path / "as before", "a"))
    settle([as_before])
    assert len(ids(as_before)) in ((3,) if not sectors else (1,) if sectors == 9 else (1, 3))
    as_before.stop()


# Which entries


def entry(index: int, data: bytes) -> Entry:
    return Entry(1, index, EntryType.EntryConfChange, data)


def described(entries: list[Entry]) -> list[tuple[int, int, bytes]]:
    found = [ConfChange.FromString(each.data) for each in entries]
    return [(change.type, change.node_id, change.context) for change in found]


def test_others_are_removed_in_order() -> None:
    members = [Member(30), Member(10), Member(20)]
    found = entries_for_one(members, [], 20, 5, 7)
    assert described(found) == [(changes.REMOVE, 10, b""), (changes.REMOVE, 30, b"")]
    assert [(each.term, each.index, each.type) for each in found] == [(5, 8, 1), (5, 9, 1)]


def test_what_is_not_applied_yet_counts() -> None:
    unapplied = [
        entry(1, changes.add(1, Member(2))),
        entry(2, changes.add(1, Member(3, is_learner=True))),
        entry(3, changes.add(1, Member(4))),
        entry(4, changes.remove(1, 4)),
        entry(5, changes.update(1, 2, ["http://x:1"])),
        entry(6, b"\xff"),
        Entry(1, 7, EntryType.EntryNormal, b"\x08\x01"),
    ]
    found = described(entries_for_one([Member(1)], unapplied, 1, 1, 7))
    assert [(kind, id) for kind, id, _ in found] == [(changes.REMOVE, 2), (changes.REMOVE, 3)]


def test_a_member_that_is_not_there_is_added_first() -> None:
    added, removed = described(entries_for_one([Member(2)], [], 1, 1, 7))
    assert added == (changes.ADD, 1, b'{"id":1,"peerURLs":["http://localhost:2380"]}')
    assert removed == (changes.REMOVE, 2, b"")


def test_a_learner_that_was_promoted_is_none() -> None:
    learner = Member(1, is_learner=True)
    promoted = [entry(1, changes.promote(1, 1))]
    assert entries_for_one([learner], promoted, 1, 1, 1) == []
    (only,) = described(entries_for_one([learner], [], 1, 1, 1))
    assert only == (changes.ADD, 1, b'{"id":1,"peerURLs":null,"isPromote":true}')


def test_entries_up_to_the_commit_index_are_kept() -> None:
    entries = [Entry(1, index, 0, b"") for index in (5, 6, 7)]
    assert committed(entries, 6) == entries[:2]
    assert committed(entries, 7) == entries
    assert committed(entries, 4) == []
