"""`bbolt`, beside bbolt's own tool: the same command lines end, print and write the same."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import build_go
from utl_runner import Made, Utl, content

from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles

GO = Path(__file__).parent / "go"

LINES = """
check x.db
check x.db --from-page 5
check x.db --from-page 99999
check
check nowhere
buckets x.db
inspect x.db
stats x.db
stats x.db m
stats x.db m m
stats
keys x.db key
keys x.db key -f hex
keys x.db key -f ascii-encoded
keys x.db key -f redacted
keys x.db key --format nonsense
keys x.db members
keys x.db nest sub3
keys x.db nothere
keys x.db
get x.db meta term
get x.db meta 7465726d --parse-format hex --format hex
get x.db nest long
get x.db nest sub4 deep z
get x.db meta nothere
get x.db nothere nothere
get x.db meta
info x.db
pages x.db
page x.db 0 1 2 3 4 5 6 7 8 9
page x.db --all
page x.db 9999
page x.db
page x.db nonsense
page x.db --all 3
page-item x.db 5 0
page-item x.db 5 0 --key-only
page-item x.db 5 0 --value-only --format hex
page-item x.db 5 0 --key-only --value-only
page-item x.db 5 65536
page-item x.db 5 9999
page-item x.db 0 0
page-item x.db 9999 0
page-item x.db nonsense 0
page-item x.db 5
dump x.db 0 1 5
dump x.db 9999
surgery meta validate x.db
""".strip().splitlines()

SURGERY = """
surgery revert-meta-page x.db --output y.db
surgery revert-meta-page x.db
surgery copy-page x.db --from-page 5 --to-page 6 --output y.db
surgery copy-page x.db --from-page 9999 --to-page 6 --output y.db
surgery copy-page x.db --from-page 5 --to-page 5 --output y.db
surgery clear-page x.db --pageId 5 --output y.db
surgery clear-page x.db --pageId 1 --output y.db
surgery clear-page x.db --output y.db
surgery clear-page x.db --pageId 5 --output ""
surgery clear-page x.db --pageId 5 --output x.db
surgery clear-page x.db --pageId 5 --output nowhere/y.db
surgery clear-page nowhere --pageId 5 --output y.db
surgery clear-page-elements x.db --pageId 5 --from-index 0 --to-index 1 --output y.db
surgery clear-page-elements x.db --pageId 5 --from-index 2 --to-index 5 --output y.db
surgery clear-page-elements x.db --pageId 5 --from-index 2 --to-index -1 --output y.db
surgery clear-page-elements x.db --pageId 5 --from-index 5 --to-index 2 --output y.db
surgery clear-page-elements x.db --pageId 5 --from-index 2 --to-index 2 --output y.db
surgery clear-page-elements x.db --pageId 5 --from-index -1 --to-index 2 --output y.db
surgery clear-page-elements x.db --pageId 5 --from-index 1 --to-index 2222 --output y.db
surgery clear-page-elements x.db --pageId 5 --from-index x --to-index 2 --output y.db
surgery clear-page-elements x.db --pageId 5 --output y.db
surgery freelist abandon x.db --output y.db
surgery freelist rebuild short --output y.db
surgery meta update x.db --fields root:16,freelist:8 --fields pgid:128 --output y.db
surgery meta update x.db --fields pageSize:8192 --meta-page 1 --output y.db
surgery meta update x.db --fields pageSize:4294971392 --output y.db
surgery meta update x.db --meta-page 1 --output y.db
surgery meta update short --meta-page 1 --output y.db
surgery meta update x.db --fields root=1 --output y.db
surgery meta update x.db --fields txid:1 --output y.db
surgery meta update x.db --fields root:x --output y.db
surgery meta update x.db --meta-page 2 --output y.db
surgery meta validate short
compact x.db
compact x.db -o ""
compact short -o y.db
compact -o y.db
bench --count 10 --batch-size 3
bench --write-mode nonsense
""".strip().splitlines()


class Tool:
    """bbolt's own, and a program that makes databases with it."""

    def __init__(self, directory: Path) -> None:
        self._bbolt = build_go(GO, "go.etcd.io/bbolt/cmd/bbolt", directory / "bbolt")
        self._maker = build_go(GO, "./buckets", directory / "buckets")

    def make(self, path: Path, *, freelist: bool = True) -> None:
        subprocess.run([str(self._maker), str(path), *([] if freelist else ["not stored"])], check=True)

    def __call__(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._bbolt), *arguments],
            cwd=cwd,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # as pytest does with ours
            timeout=60,
        )


@pytest.fixture(scope="module")
def go_bbolt(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    return Tool(tmp_path_factory.mktemp("bbolt"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["of etcd", "of ours", "of bbolt", "without freelist"])
def test_the_same_lines_end_and_print_the_same(
    utl: Utl, made: Made, go_bbolt: Tool, tmp_path: Path, kind: str
) -> None:
    database = tmp_path / "x.db"
    if kind == "of etcd":
        made.without_hash(database)
    elif kind == "of ours":
        assert utl("snapshot", "restore", str(made.path), "--data-dir=data").code == 0
        (tmp_path / "data/member/snap/db").rename(database)
    else:
        go_bbolt.make(database, freelist=kind == "of bbolt")
    before = database.read_bytes()
    for line in LINES:
        _same(utl, go_bbolt, tmp_path, line)
    assert database.read_bytes() == before


@pytest.mark.timeout(900)
def test_surgery_writes_the_same_files(utl: Utl, go_bbolt: Tool, tmp_path: Path) -> None:
    database, target = tmp_path / "x.db", tmp_path / "y.db"
    go_bbolt.make(database)
    (tmp_path / "short").write_bytes(b"short")
    before = database.read_bytes()
    for line in SURGERY:
        written: list[bytes | None] = []
        _same(utl, go_bbolt, tmp_path, line, lambda: written.append(taken(target)))  # noqa: B023
        assert written[0] == written[1], line
    assert database.read_bytes() == before


def taken(path: Path) -> bytes | None:
    """What is in the file, which is removed."""
    held = path.read_bytes() if path.exists() else None
    path.unlink(missing_ok=True)
    return held


def _same(
    utl: Utl, go_bbolt: Tool, directory: Path, line: str, after: Callable[[], None] = lambda: None
) -> None:
    """`after` is called when the one has run, and when the other has."""
    words = shlex.split(line)
    theirs = go_bbolt(*words, cwd=directory)
    after()
    ours = utl("bbolt", *words)
    after()
    assert (ours.code, masked(ours.out)) == (theirs.returncode, masked(theirs.stdout)), line
    assert ours.err.partition("\n")[0] == theirs.stderr.partition("\n")[0], line


# The tool of 1.5.0 has a letter less.
FAILED = re.compile(r"^Print?ing (page \d+ failed: )", re.MULTILINE)


def masked(text: str) -> str:
    return FAILED.sub(r"\1", text)


@pytest.mark.timeout(900)
def test_a_rebuilt_freelist_is_bbolts(utl: Utl, go_bbolt: Tool, tmp_path: Path) -> None:
    go_bbolt.make(tmp_path / "x.db", freelist=False)
    line = ("surgery", "freelist", "rebuild", "x.db", "--output")
    ours, theirs = utl("bbolt", *line, "y.db"), go_bbolt(*line, "z.db", cwd=tmp_path)
    assert (ours.code, ours.out) == (theirs.returncode, theirs.stdout) == (0, theirs.stdout)
    assert go_bbolt("check", "y.db", cwd=tmp_path).stdout == "OK\n"
    assert utl("bbolt", "check", "z.db").out == "OK\n"
    again = ("surgery", "freelist", "rebuild", "y.db", "--output", "w.db")
    assert utl("bbolt", *again).error == go_bbolt(*again, cwd=tmp_path).stderr.splitlines()[0][7:]


@pytest.mark.timeout(900)
def test_a_compacted_copy_has_everything(utl: Utl, go_bbolt: Tool, tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    go_bbolt.make(database)
    before = database.read_bytes()
    ran = utl("bbolt", "compact", "x.db", "-o", "y.db")
    size = (tmp_path / "y.db").stat().st_size
    assert ran.out == f"{len(before)} -> {size} bytes (gain={len(before) / size:.2f}x)\n"
    assert go_bbolt("check", "y.db", cwd=tmp_path).stdout == "OK\n"
    assert "free " not in go_bbolt("pages", "y.db", cwd=tmp_path).stdout
    for asked in "inspect", "keys big", "keys nest", "keys nest sub4", "get nest long":
        command, *names = asked.split()
        there, here = (go_bbolt(command, name, *names, cwd=tmp_path).stdout for name in ("x.db", "y.db"))
        assert there
        assert there == here, asked
    assert sequences(go_bbolt, tmp_path, "x.db") == [0, 1, 2, 3, 4, 77]
    assert sequences(go_bbolt, tmp_path, "y.db") == [0, 1, 2, 3, 4, 77]
    assert database.read_bytes() == before
    assert utl("bbolt", "compact", "x.db", "-o", "y.db").error.endswith('output file "y.db" already exists')
    (tmp_path / "made").touch()  # as mktemp leaves it
    assert utl("bbolt", "compact", "x.db", "-o", "made", "--no-sync").code == 0
    assert (tmp_path / "made").read_bytes() == (tmp_path / "y.db").read_bytes()


def sequences(go_bbolt: Tool, directory: Path, name: str) -> list[int]:
    """Those that buckets in use have."""
    told = go_bbolt("pages", name, cwd=directory).stdout.splitlines()
    leaves = [line.split()[0] for line in told if " leaf " in line]
    printed = go_bbolt("page", name, *leaves, cwd=directory).stdout
    return sorted({int(found) for found in re.findall(r"<pgid=\d+,seq=(\d+)>", printed)})


def test_a_member_opens_what_surgery_has_left_beside_stale_checksums(
    utl: Utl, made: Made, tmp_path: Path
) -> None:
    assert utl("snapshot", "restore", str(made.path), "--data-dir=data").code == 0
    database = tmp_path / "data/member/snap/db"
    sums = tmp_path / "data/member/snap/db.sum"
    backend = Backend.open(OsFiles(), str(database), None)
    backend.put(b"meta", b"mark", b"1")
    backend.close_now()  # leaves a seal, and the checksums that it is tied to
    assert sums.exists()
    told = utl("bbolt", "pages", str(database)).out.splitlines()
    leaf = next(line.split()[0] for line in told if " leaf " in line and int(line.split()[2]) > 2)
    cleared = ("--pageId", leaf, "--from-index", "0", "--to-index", "1", "--output", "y.db")
    assert utl("bbolt", "surgery", "clear-page-elements", str(database), *cleared).code == 0
    had = sum(map(len, content(database).values()))
    (tmp_path / "y.db").rename(database)
    assert sum(map(len, content(database).values())) in (had - 1, had)


def test_damage_is_told_of_and_passed_over(utl: Utl, made: Made, tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    made.without_hash(database)
    told = utl("bbolt", "pages", "x.db").out.splitlines()
    leaf = max(int(line.split()[0]) for line in told if " leaf " in line)
    with database.open("r+b") as file:
        file.seek(leaf * 4096 + 8)
        file.write(b"\x77")
    ran = utl("bbolt", "check", "x.db")
    assert ran.code == 1
    assert ran.out.startswith(f"page {leaf}: a branch or leaf should be here, not a page of type 0x77\n")
    assert ran.out.endswith("1 errors found\n")
    assert ran.error.endswith("invalid value")
    assert f"Page ID:    {leaf}\nPage Type:  unknown<77>" in utl("bbolt", "page", "x.db", str(leaf)).out
    cleared = ("--pageId", str(leaf), "--output", "y.db")
    ran = utl("bbolt", "surgery", "clear-page", "x.db", *cleared)
    assert ran.error.endswith("clear-page command failed: can't clear elements in \"unknown<77>\" page")
    assert "a branch or leaf should be here" in utl("bbolt", "compact", "x.db", "-o", "z.db").error
    assert not (tmp_path / "z.db").exists()


EACH = r"\(ops\)\t[\d.]+[mµn]?s\t\([\d.]+[mµn]?s/op\)\t\(\d+ op/sec\)\n"
BENCH = rf"# Write\t40{EACH}# Read\t\d+{EACH}\n"


@pytest.mark.parametrize("mode", ["seq", "rnd"])
def test_a_benchmark_leaves_and_overwrites_nothing(utl: Utl, tmp_path: Path, mode: str) -> None:
    modes = (f"--write-mode={mode}", f"--read-mode={mode}")
    line = ("bench", "--count=40", "--batch-size=20", *modes, "--path=b.db")
    ran = utl("bbolt", *line)
    assert re.fullmatch(BENCH, ran.out)
    assert ran.err.startswith("starting write benchmark.\nStarting write iteration 0\n")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "b.db").write_text("mine")
    assert utl("bbolt", *line).error.endswith('"b.db" is there already, and would be overwritten')
    assert (tmp_path / "b.db").read_text() == "mine"


def test_a_benchmark_prints_as_gos_do(utl: Utl) -> None:
    ran = utl("bbolt", "bench", "--count=40", "--gobench-output")
    lines = re.fullmatch(r"(BenchmarkWrite\t.*)\n(BenchmarkRead \t.*)\n\n", ran.out)
    assert lines is not None
    for line in lines.groups():
        assert re.fullmatch(r"Benchmark\w+ *\t +\d+\t *(\d{4,}|\d+\.\d+) ns/op", line)
