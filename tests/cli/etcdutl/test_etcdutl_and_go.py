"""Beside the real etcdutl 3.7.1: the same command lines on the same files end, print and write the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from help_shape import shape
from servers import GoEtcd, free_port
from utl_runner import Made, Utl, content

# Times, places in the source, how long something took; lines that only bbolt writes.
STAMP = re.compile(r"^\S+Z\t(\w+)\t\S+\t", re.MULTILINE)
TOOK = re.compile(r'"took": "[^"]*"')
BBOLT = re.compile(r"^\S+Z\t\w+\tbbolt\t.*\n", re.MULTILINE)
STACK = re.compile(r"^(?:go\.|github|main\.|runtime|\t/).*\n", re.MULTILINE)
RESTORE = "snapshot restore snap.db --data-dir"
THREE = (
    "--name b --initial-cluster-token t --initial-advertise-peer-urls http://127.0.0.1:2"
    " --initial-cluster a=http://127.0.0.1:1,b=http://127.0.0.1:2,c=http://127.0.0.1:3"
)
# What is done to files comes first, then what is found in them.
LINES = f"""
snapshot status snap.db
snapshot status snap.db -w json
snapshot status snap.db -w table
snapshot status snap.db -w fields
snapshot status snap.db -w protobuf
snapshot status snap.db -w xml
snapshot status nowhere -w xml
snapshot status
snapshot status snap.db copy.db
hashkv copy.db
hashkv copy.db -w json
hashkv copy.db -w table
hashkv copy.db -w fields
hashkv copy.db -w protobuf
hashkv copy.db -w xml
hashkv nowhere
hashkv
hashkv --rev x copy.db
version
version -w json
version --timeout 1
snapshot restore
snapshot restore snap.db --mark-compacted
snapshot restore snap.db --bump-revision 1
snapshot restore snap.db --bump-revision -1
snapshot restore nowhere.db --data-dir six
snapshot restore snap.db --data-dir six --initial-cluster nonsense
snapshot restore snap.db --data-dir six --initial-advertise-peer-urls http://127.0.0.1:9
snapshot restore snap.db --data-dir six --wal-dir .
snapshot restore snap.db --data-dir .
migrate --data-dir x
migrate --data-dir x --target-version 3
migrate --data-dir x --target-version 3.4
migrate --data-dir x --target-version 3.6
nonsense
defrag
hashkv copy.db --rev 9
hashkv copy.db --rev 5
hashkv copy.db --rev 99
hashkv copy.db --rev -1
{RESTORE} one
{RESTORE} one
{RESTORE} three {THREE}
{RESTORE} bumped --bump-revision 1000 --mark-compacted
{RESTORE} other --name z
snapshot restore flipped.db --data-dir two
snapshot restore bare.db --data-dir five
snapshot restore bare.db --data-dir four --skip-hash-check
snapshot status one/member/snap/db
snapshot status three/member/snap/db
snapshot status bumped/member/snap/db
hashkv one/member/snap/db
migrate --data-dir one --target-version 3.7
migrate --data-dir one --target-version 3.7
migrate --data-dir one --target-version 3.8
migrate --data-dir one --target-version 4.0
migrate --data-dir one --target-version 3.8 --force
migrate --data-dir one --target-version 3.6
migrate --data-dir one --target-version 3.6 --force
migrate --data-dir one --target-version 3.5
snapshot status one/member/snap/db
defrag --data-dir x
""".strip().splitlines()
# The real one goes on with the compaction scheduled there, as far as it gets: files are compared before.
LAST = "hashkv bumped/member/snap/db"


def _masked(text: str) -> str:
    text = STACK.sub("", BBOLT.sub("", text))
    return TOOK.sub('"took": T', STAMP.sub(r"T\t\1\t", "\n".join(shape(text))))


def test_the_same_command_lines_have_the_same_ends(
    utl: Utl, made: Made, go_etcdutl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for side in ("ours", "theirs"):
        (tmp_path / side).mkdir()
        made.copy(tmp_path / side / "snap.db")
        made.without_hash(tmp_path / side / "copy.db")
        made.without_hash(tmp_path / side / "bare.db")
        made.copy(tmp_path / side / "flipped.db", lambda data: data[:9000] + b"?" + data[9001:])
    environment = {"PATH": os.environ["PATH"]}
    monkeypatch.chdir(tmp_path / "ours")

    def same_ends(line: str) -> None:
        theirs = subprocess.run(
            [str(go_etcdutl), *line.split()],
            cwd=tmp_path / "theirs",
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        ours = utl(*line.split())
        assert (ours.code, ours.out) == (theirs.returncode, theirs.stdout), line
        assert _masked(ours.err) == _masked(theirs.stderr), line

    for line in LINES:
        same_ends(line)
    for name in ("one", "three", "bumped", "four"):
        here, there = tmp_path / "ours" / name / "member", tmp_path / "theirs" / name / "member"
        assert content(here / "snap/db") == content(there / "snap/db"), name
        for file in there.glob("wal/*.wal"):
            assert (here / "wal" / file.name).read_bytes() == file.read_bytes(), name
        for file in there.glob("snap/*.snap") if name != "three" else ():  # whose order is by chance
            assert (here / "snap" / file.name).read_bytes() == file.read_bytes(), name
    same_ends(LAST)


@pytest.mark.parametrize("defragment", [False, True])
def test_go_starts_on_what_we_restored(
    utl: Utl, made: Made, goetcd: Path, tmp_path: Path, defragment: bool
) -> None:
    ports = free_port(), free_port()
    url = f"http://127.0.0.1:{ports[1]}"
    cluster = (f"--initial-cluster=default={url}", f"--initial-advertise-peer-urls={url}")
    assert utl("snapshot", "restore", str(made.path), "--data-dir=data", *cluster).code == 0
    if defragment:
        assert utl("defrag", "--data-dir=data").code == 0
    server = GoEtcd(goetcd, tmp_path, ports)
    try:
        assert server.hash() == made.hash_kv
        assert server.put(b"new", b"") == made.revision + 1
    finally:
        server.stop()
        server.close()
    shutil.copy(tmp_path / "data/member/snap/db", tmp_path / "after.db")
    assert utl("hashkv", "after.db").out.split(", ")[1] == str(made.revision + 1)
