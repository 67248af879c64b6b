"""`top`: what it draws on screens of any size, how it counts, and how it behaves in a terminal.

It has been looked at in tmux (50x200 down to 1x3, resized meanwhile, stopped and continued), against a
cluster of etcd 3.7.1 under load whose leader was killed, and with users.
"""

from __future__ import annotations

import os
import pty
import random
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest
from ctl_runner import RUN_ETCDCTL, Etcdctl
from servers import Etcd

from pyetcd.cli.etcdctl.hot_prefixes import CAPACITY, HALF_LIFE_SECONDS, HotPrefixes, prefix_of
from pyetcd.cli.etcdctl.top_samples import FSYNC_SECONDS, FSYNCS, PUTS, READS, Round, Seen
from pyetcd.cli.etcdctl.top_view import View
from pyetcd.cli.table import columns_of
from pyetcd.proto.lite import Message

ONE, TWO, THREE = 0xA1, 0xA2, 0xA3
MEMBERS = [
    Message("etcdserverpb.Member", ID=id, name=name, clientURLs=[f"http://{name}:2379"])
    for id, name in ((ONE, "one"), (TWO, "two"), (THREE, "three"))
]
FULL = (200, 100)


def status(member: int, revision: int, leader: int = ONE, **more: int | str | list[str]) -> Message:
    header = Message("etcdserverpb.ResponseHeader", cluster_id=0xC1, member_id=member, revision=revision)
    fields: dict[str, int | str | list[str]] = {
        "version": "3.7.1",
        "leader": leader,
        "raftTerm": 4,
        "dbSize": 50_000_000,
        "dbSizeInUse": 25_000_000,
        "dbSizeQuota": 2_000_000_000,
    }
    return Message("etcdserverpb.StatusResponse", header=header, **{**fields, **more})  # type: ignore[arg-type]


def seen(member: int, name: str, leader: int = ONE, **more: int | str | list[str]) -> Seen:
    old = {PUTS: 100.0, READS: 1000.0, FSYNC_SECONDS: 1.0, FSYNCS: 10.0}
    new = {PUTS: 300.0, READS: 1020.0, FSYNC_SECONDS: 1.1, FSYNCS: 60.0}
    return Seen(
        f"{name}:2379",
        Round(12.0, status(member, 700, leader, **more), members=MEMBERS, read_seconds=0.0012, counters=new),
        Round(10.0, status(member, 500, leader, **more), members=MEMBERS, counters=old),
    )


CLUSTER = [
    seen(ONE, "one"),
    seen(TWO, "two"),
    Seen("three:2379", Round(12.0, error="context deadline exceeded")),
]
HOTTEST = ([(b"/registry/pods/", 75.0), (b"a\nb/", 25.0)], 100.0)


def texts(view: View, size: tuple[int, int] = FULL) -> list[str]:
    return [text.rstrip() for _, text in view.lines(*size)]


def test_a_view_shows_the_cluster_its_members_and_what_changes_most() -> None:
    assert texts(View(CLUSTER, HOTTEST, "12:00:00")) == [
        "etcdctl top  12:00:00  leader one  2 of 3 endpoints answer  term 4  cluster c1",
        "revision 700  100 revisions/s  100 puts/s  20.0 reads/s",
        "",
        "NAME   ENDPOINT    ROLE       READ  PUTS/S  READS/S  FSYNC     DB  IN USE  QUOTA  BEHIND  VERSION",
        "one    one:2379    leader    1.2ms     100     10.0  2.0ms  50 MB     50%     2%       0    3.7.1",
        "two    two:2379    follower  1.2ms     100     10.0  2.0ms  50 MB     50%     2%       0    3.7.1",
        "three  three:2379  no status: context deadline exceeded",
        "",
        "HOTTEST PREFIXES  CHANGES/S  SHARE",
        "/registry/pods/        75.0    75%",
        '"a\\nb/"                25.0    25%',
    ]


def test_what_is_not_known_yet_is_a_dash() -> None:
    only = [Seen("one:2379", Round(1.0, status(ONE, 5), read_seconds=None)), Seen("two:2379")]
    shown = texts(View(only, ([], 0.0), "12:00:00"))
    assert shown[1] == "revision 5  - revisions/s  - puts/s  - reads/s"
    assert shown[4].split() == ["a1", "one:2379", "leader", *"----", "50", "MB", "50%", "2%", "0", "3.7.1"]
    assert shown[5] == "-     two:2379  waiting for an answer"


def test_alarms_and_the_want_of_a_leader_stand_out() -> None:
    alarm = "memberID:161 alarm:NOSPACE "
    shown = View([seen(ONE, "one", 0, errors=[alarm]), seen(TWO, "two", 0, errors=[alarm])], None, "t")
    lines = shown.lines(*FULL)
    assert lines[0][1].startswith("etcdctl top  t  no leader  ")
    assert [text for style, text in lines if style == "bad"] == ["alarm: memberID:161 alarm:NOSPACE"]


def test_members_that_are_not_asked_are_named_and_learners_are_called_so() -> None:
    shown = texts(View([seen(TWO, "two", isLearner=1)], None, "t"))
    assert shown[4].split()[2] == "learner"
    assert shown[5:] == [f"{name} is not asked; --cluster asks all members" for name in ("one", "three")]


def test_a_member_that_is_behind_shows_by_how_much_and_a_restart_makes_no_rate() -> None:
    behind = Seen("two:2379", Round(12.0, status(TWO, 650), counters={PUTS: 5.0}), CLUSTER[1].before)
    row = texts(View([CLUSTER[0], behind], None, "t"))[5].split()
    assert row[4] == "-"
    assert row[-2] == "50"


def test_the_reason_why_there_are_no_prefixes_is_told() -> None:
    assert texts(View(CLUSTER, None, "t", note="permission denied"))[-2:] == [
        "HOTTEST PREFIXES",
        "permission denied",
    ]


@pytest.mark.parametrize("columns", [1, 2, 5, 10, 20, 40, 60, 79, 80, 100, 132, 500])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 10, 24, 60])
def test_a_view_fits_screens_of_every_size(columns: int, rows: int) -> None:
    hottest = ([("キー/".encode() * 20, 1.0), *((b"%d/" % at, 1.0) for at in range(90))], 91.0)
    lines = View(CLUSTER, hottest, "12:00:00").lines(columns, rows)
    assert 0 < len(lines) <= rows
    assert max(columns_of(text) for _, text in lines) <= columns


def test_of_a_small_screen_the_most_important_is_left() -> None:
    assert texts(View(CLUSTER, HOTTEST, "12:00:00"), (30, 6)) == [
        "etcdctl top  12:00:00  leader",
        "revision 700  100 revisions/s",
        "NAME   ROLE       READ     DB",
        "one    leader    1.2ms  50 MB",
        "two    follower  1.2ms  50 MB",
        "three  no status: context dead",
    ]
    assert texts(View(CLUSTER, HOTTEST, "12:00:00"), (30, 4))[-1] == "… 3 more lines"


@pytest.mark.parametrize(
    ("key", "depth", "prefix"),
    [
        (b"/registry/pods/default/web", 2, b"/registry/pods/"),
        (b"/registry/pods/default/web", 1, b"/registry/"),
        (b"/registry/pods/default/web", 9, b"/registry/pods/default/"),
        (b"users/ann", 2, b"users/"),
        (b"plain", 2, b"plain"),
        (b"/plain", 2, b"/plain"),
        (b"/", 2, b"/"),
        (b"", 2, b""),
        (b"//a", 1, b"//"),
        (b"x" * 1000, 2, b"x" * 128),
    ],
)
def test_a_prefix_is_the_first_parts_of_a_key(key: bytes, depth: int, prefix: bytes) -> None:
    assert prefix_of(key, depth) == prefix


def test_the_hottest_prefixes_are_found_in_bounded_memory() -> None:
    """A stream in which most keys are seen once, and some make up more than 1/CAPACITY of it."""
    chance = random.Random(3)
    hot = HotPrefixes(1, 0.0)
    true: Counter[bytes] = Counter()
    for _ in range(40_000):
        key = chance.choice([b"a/", b"a/", b"b/", b"%d/" % chance.randrange(10**9)])
        true[key] += 1
        hot.count([key])
    found, total = hot.hottest(10_000, 1e-9)
    assert len(found) == CAPACITY
    assert [prefix for prefix, _ in found[:2]] == [b"a/", b"b/"]
    rates = dict(found)
    for prefix in (b"a/", b"b/"):
        assert true[prefix] / 40_000 <= rates[prefix] / total * 1.0001 <= true[prefix] / 40_000 + 2 / CAPACITY


def test_rates_are_those_of_now_and_fade() -> None:
    hot = HotPrefixes(1, 0.0)
    for tick in range(100):  # ten a second
        hot.count([b"a/"])
        if tick % 10 == 0:
            ((prefix, rate),), total = hot.hottest(5, tick / 10 + 0.1)
    assert prefix == b"a/"
    assert rate == pytest.approx(10, rel=0.2)
    assert total == pytest.approx(rate)
    ((_, later),), _ = hot.hottest(5, 9.1 + HALF_LIFE_SECONDS)
    assert later < rate * 0.6
    assert hot.hottest(5, 9.1 + 40 * HALF_LIFE_SECONDS)[0] == []


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    member = Etcd(tmp_path_factory.mktemp("member"))
    yield member
    member.close()


@pytest.fixture(params=["real", "ours"])
def server(request: pytest.FixtureRequest) -> Etcdctl:
    if request.param == "real":
        found: Etcdctl = request.getfixturevalue("ctl")
        return found
    return Etcdctl(f"127.0.0.1:{request.getfixturevalue('own').port}")


def test_one_view_goes_into_a_pipe(server: Etcdctl) -> None:
    process = server.open("top", "--once", "--interval=2s", "--depth=1")
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        server("put", "hot/key", "x")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    head, rates, _, titles, row, _, hot, first, *_ = out.decode().splitlines()
    assert "1 of 1 endpoints answer" in head
    assert re.fullmatch(r"revision \d+  [0-9.]+ revisions/s  [0-9.]+ puts/s  [0-9.]+ reads/s", rates)
    assert titles.split()[:4] == ["NAME", "ENDPOINT", "ROLE", "READ"]
    assert row.split()[2] == "leader"
    assert hot.split() == ["HOTTEST", "PREFIXES", "CHANGES/S", "SHARE"]
    assert first.split()[0] == "hot/"


def test_endpoints_that_do_not_answer_are_shown_beside_the_others(server: Etcdctl) -> None:
    both = Etcdctl(f"{server.endpoint},127.0.0.1:1")
    ran = both("top", "--once", "--interval=100ms", "--command-timeout=1s", "--prefixes=false")
    assert (ran.code, ran.err) == (0, b"")
    assert "1 of 2 endpoints answer" in ran.text
    assert "no status: context deadline exceeded" in ran.text
    assert "HOTTEST" not in ran.text
    ran = Etcdctl("127.0.0.1:1")("top", "--once", "--interval=100ms", "--command-timeout=1s")
    assert ran.code == 1
    assert "0 of 1 endpoints answer" in ran.text


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        ([], 4, "standard input and output are not a terminal; `--once` prints one view"),
        (["-w", "json"], 4, "json not supported as output format"),
        (["a"], 128, "top command accepts no arguments"),
        (["--interval=1ms"], 128, "--interval must not be shorter than 100ms"),
        (["--depth=0"], 128, "--depth must not be less than 1"),
    ],
)
def test_mistakes_are_told(arguments: list[str], code: int, error: str) -> None:
    ran = Etcdctl("127.0.0.1:1")("top", *arguments)
    assert (ran.code, ran.err.decode()) == (code, f"Error: {error}\n")


# Keys and sizes become signals for the session whose terminal it is. Not in a `preexec_fn`: gRPC, which is
# in this process, may hang in a fork.
TAKE_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "


class Terminal:
    """A terminal with `top` running in it."""

    def __init__(self, server: Etcdctl, term: str, *flags: str) -> None:
        self._ours, self._theirs = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self._theirs)
        self.drawn = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL + RUN_ETCDCTL, "top", "--interval=200ms", *flags],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={**server.variables(), "TERM": term, "COLUMNS": "70", "LINES": "20"},
            start_new_session=True,
        )

    def resize(self, rows: int, columns: int) -> None:
        ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: bytes, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.drawn:
            assert time.monotonic() < deadline, self.drawn
            self._read()
        self.drawn = self.drawn.partition(text)[2]

    def _read(self) -> bool:
        """Read what is drawn, which comes in parts. Whether there was any."""
        if not select.select([self._ours], [], [], 0.2)[0]:
            return False
        self.drawn += os.read(self._ours, 65536)
        return True

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self) -> int:
        """The exit code, once all that was drawn is read."""
        while self.process.poll() is None:
            self._read()
        while self._read():
            pass
        return self.process.returncode

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def terminal(server: Etcdctl) -> Iterator[Terminal]:
    made = Terminal(server, "xterm")
    yield made
    made.close()


@pytest.mark.parametrize("leave", ["q", "ctrl-c", "sigterm"])
def test_however_it_ends_the_terminal_is_given_back(terminal: Terminal, leave: str) -> None:
    terminal.wait_for(b"\x1b[?1049h")  # the other screen
    terminal.wait_for(b"endpoints answer")
    assert not terminal.is_as_before()
    if leave == "sigterm":
        terminal.process.send_signal(signal.SIGTERM)
    else:
        terminal.type(b"q" if leave == "q" else b"\x03")
    assert terminal.end() == 0
    assert b"\x1b[?1049l" in terminal.drawn, "the first screen is back"
    assert b"\x1b[?12l\x1b[?25h" in terminal.drawn, "and the cursor"
    assert terminal.is_as_before()


def test_it_follows_the_size_of_its_terminal(terminal: Terminal) -> None:
    terminal.wait_for(b"revision ")
    terminal.resize(2, 20)
    terminal.wait_for(b"more line")
    terminal.resize(40, 150)
    terminal.wait_for(b"VERSION")
    terminal.type(b"q")
    assert terminal.end() == 0


@pytest.mark.parametrize(
    ("term", "why"),
    [
        ("nonsense", b"could not find terminal"),
        ("dumb", b"the terminal cannot move its cursor"),
    ],
)
def test_a_terminal_that_cannot_be_drawn_on_is_refused(term: str, why: bytes) -> None:
    made = Terminal(Etcdctl("127.0.0.1:1"), term)
    try:
        assert made.end() == 4
        assert why in made.drawn
        assert made.is_as_before()
    finally:
        made.close()


def test_it_ends_at_once_while_nobody_answers() -> None:
    made = Terminal(Etcdctl("127.0.0.1:1"), "xterm", "--command-timeout=60s")
    try:
        made.wait_for(b"0 of 1 endpoints answer")
        made.type(b"q")
        began = time.monotonic()
        assert made.end() == 0
        assert time.monotonic() - began < 10
        assert made.is_as_before()
    finally:
        made.close()


def test_users_see_what_they_may(tmp_path: Path) -> None:
    member = Etcd(tmp_path)
    try:
        plain = Etcdctl(f"127.0.0.1:{member.port}")
        for line in (
            ["user", "add", "root:r"],
            ["user", "grant-role", "root", "root"],
            ["user", "add", "ann:a"],
            ["role", "add", "own"],
            ["role", "grant-permission", "own", "readwrite", "own/", "--prefix=true"],
            ["user", "grant-role", "ann", "own"],
            ["auth", "enable"],
        ):
            assert plain(*line).code == 0, line
        root, ann, wrong = (plain.with_variables(ETCDCTL_USER=user) for user in ("root:r", "ann:a", "ann:x"))
        once = ["top", "--once", "--interval=300ms"]
        assert ann("put", "own/key", "1").code == 0
        shown = root(*once).text
        assert "leader default  1 of 1 endpoints answer" in shown
        assert "permission denied" not in shown
        shown = ann(*once).text
        assert "leader default  1 of 1 endpoints answer" in shown
        assert shown.endswith("permission denied\n"), "of the watch on all keys"
        ran = wrong(*once)
        assert ran.code == 1
        assert "no status: etcdserver: authentication failed" in ran.text
        assert ann("get", "own/key", "--history").text.endswith("created, version 1\n+1\n\n")
        refused = ann("get", "others/key", "--history")
        assert (refused.code, refused.err) == (1, b"Error: etcdserver: permission denied\n")
    finally:
        member.close()
