"""Clusters of several members: what they begin with, and how they go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from bare_members import BareMember, bare, elect, settle
from whole_member import configured

from pyetcd.cluster.bootstrap import BadCluster
from pyetcd.cluster.datadir import DataDirError
from pyetcd.cluster.urls import parse_urls
from pyetcd.member.config import ServerConfig
from pyetcd.member.opening import CannotOpen
from pyetcd.raft import HardState
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles

NAMES = ("a", "b", "c")
URLS = {name: f"http://127.0.0.1:{2380 + number}" for number, name in enumerate(NAMES)}
CLUSTER = ",".join(f"{name}={url}" for name, url in URLS.items())


def config(directory: Path, name: str, **settings: object) -> ServerConfig:
    own = {
        "name": name,
        "initial_cluster": CLUSTER,
        "initial_advertise_peer_urls": parse_urls([URLS.get(name, "http://127.0.0.1:2390")]),
    }
    return configured(directory / name, **{**own, **settings})


def member(directory: Path, name: str, **settings: object) -> BareMember:
    return bare(config(directory, name, **settings))


def trio(directory: Path) -> list[BareMember]:
    return [member(directory, name) for name in NAMES]


def stop(members: list[BareMember]) -> None:
    for each in members:
        each.stop()


def test_three_members_that_start_apart_are_one_cluster(tmp_path: Path) -> None:
    members = trio(tmp_path)
    assert len({each.opened.cluster_id for each in members}) == 1
    ids = {each.opened.member_id for each in members}
    assert len(ids) == 3
    for each in members:
        others = ids - {each.opened.member_id}
        assert {peer.id for peer in each.opened.peers} == others  # known before anything is applied
        assert each.opened.remotes == []
        assert each.opened.cluster.list() == []
    leader = elect(members)
    leader.opened.node.propose([b"first"])
    settle(members)
    leader.opened.node.tick()  # tells the others what is committed
    settle(members)
    for each in members:
        assert each.applied == [b"first"]
        assert [m.name for m in each.opened.cluster.list()] == [
            m.name for m in sorted(members[0].opened.cluster.list(), key=lambda m: m.id)
        ]
        assert {m.name for m in each.opened.cluster.list()} == set(NAMES)
    stop(members)


def test_members_go_on_where_they_stopped(tmp_path: Path) -> None:
    members = trio(tmp_path)
    leader = elect(members)
    leader.opened.node.propose([b"first"])
    settle(members)
    members[0].stop()
    members[1].stop(keep=False)  # its database has nothing: the log brings it all back
    members[2].stop()
    members = trio(tmp_path)
    for each in members:
        assert len(each.opened.peers) == (0 if each is members[1] else 2)
    leader = elect(members, 1)
    leader.opened.node.propose([b"second"])
    settle(members)
    leader.opened.node.tick()
    settle(members)
    assert members[1].applied == [b"first", b"second"]
    for each in members:
        assert each.applied[-1] == b"second"
        assert len(each.opened.cluster.list()) == 3
    stop(members)


def test_a_name_that_is_not_among_them_is_refused_and_nothing_is_begun(tmp_path: Path) -> None:
    with pytest.raises(BadCluster, match="couldn't find local name"):
        bare(config(tmp_path, "a", initial_cluster="d=http://127.0.0.1:2380"))
    assert not (tmp_path / "a" / "member" / "wal").exists()


def test_a_database_ahead_of_the_log_is_no_fault_where_others_have_the_log_too(tmp_path: Path) -> None:
    """As a crash leaves a member that applied what the others had committed before its own log had it."""
    members = trio(tmp_path)
    leader = elect(members)
    for number in range(5):
        leader.opened.node.propose([b"%d" % number])
        settle(members)
    leader.opened.node.tick()
    settle(members)
    ahead = members[2].opened.position.index + 2
    members[2].opened.position.index = ahead
    stop(members)
    members = trio(tmp_path)
    assert members[2].opened.position.index == ahead
    leader = elect(members)
    leader.opened.node.propose([b"next"])
    settle(members)
    leader.opened.node.tick()
    settle(members)
    assert members[0].applied == [b"next"]
    assert members[2].applied == []  # what it applied before is not applied again
    stop(members)


def received(directory: Path, members: list[BareMember]) -> int:
    """Member c is sent a snapshot, and its process ends before the database is in its place. Returns the
    snapshot's index."""
    leader = elect(members)
    for number in range(5):
        leader.opened.node.propose([b"%d" % number])
        settle(members[:2])
    leader.opened.node.tick()
    settle(members[:2])
    index, term = leader.opened.position.index, leader.opened.position.term
    leader.opened.backend.put(b"key", b"0" * 17, b"of the leader")
    stop(members)
    database = (directory / "a" / "member" / "snap" / "db").read_bytes()
    (directory / "c" / "member" / "snap" / f"{index:016x}.snap.db").write_bytes(database)
    late = member(directory, "c")
    late.opened.wal.save_snapshot(index, term, b"\x20\x00")
    late.opened.wal.save(HardState(term, 0, index), [], True)
    late.stop()
    return index


def test_a_database_that_was_received_is_put_in_its_place(tmp_path: Path) -> None:
    index = received(tmp_path, trio(tmp_path))
    late = member(tmp_path, "c")
    assert late.opened.position.index == index == late.opened.node.applied_index
    assert len(late.opened.cluster.list()) == 3
    assert late.opened.backend.get(b"key", b"0" * 17) == b"of the leader"
    late.stop()
    assert not list((tmp_path / "c" / "member" / "snap").glob("*.snap.db"))
    late = member(tmp_path, "c")
    assert late.opened.position.index == index
    late.stop()


def test_a_received_database_that_cannot_be_read_is_refused_and_replaces_nothing(tmp_path: Path) -> None:
    received(tmp_path, trio(tmp_path))
    snap = tmp_path / "c" / "member" / "snap"
    (path,) = snap.glob("*.snap.db")
    backend = Backend.open(OsFiles(), str(path), None)
    backend.put(b"members", b"nonsense", b"{}")
    backend.close_now()
    before = (snap / "db").read_bytes()
    with pytest.raises(CannotOpen, match="is not a member ID"):
        member(tmp_path, "c")
    assert (snap / "db").read_bytes() == before
    assert path.exists()


def test_a_received_database_that_is_missing_is_named(tmp_path: Path) -> None:
    received(tmp_path, trio(tmp_path))
    (path,) = (tmp_path / "c" / "member" / "snap").glob("*.snap.db")
    path.unlink()
    text = r"failed to find database snapshot file \(snap: snapshot file doesn't exist\)"
    with pytest.raises(DataDirError, match=text):
        member(tmp_path, "c")


def test_a_member_that_has_only_a_received_database_takes_it(tmp_path: Path) -> None:
    index = received(tmp_path, trio(tmp_path))
    (tmp_path / "c" / "member" / "snap" / "db").unlink()
    late = member(tmp_path, "c")
    assert late.opened.position.index == index
    late.stop()
