"""`check perf` and `check datascale`: verdicts, what is left behind, and mistakes beside real etcdctl 3.7.1.

The loads are made small here: the commands' own take a minute.
"""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
from array import array
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import quote, unquote

import pytest
from both import Both
from ctl_runner import Etcdctl, Ran

from pyetcd.cli.etcdctl import check_perf
from pyetcd.cli.etcdctl.check_datascale import Unknown, memory_of
from pyetcd.cli.etcdctl.load import Tally, Work, shares
from pyetcd.cli.exits import Exit

SMALL = """
import sys
from pyetcd.cli import command, program
from pyetcd.cli.etcdctl import check_datascale, check_perf, tree
root = tree.root()
chosen, _ = command.resolve(root, sys.argv[1:])
smaller = {
    "perf": lambda call: check_perf.run(call, 2),
    "datascale": lambda call: check_datascale.run(call, 200, 10),
}
chosen.run = smaller[chosen.name]
sys.exit(program.main(root, None, tree.help_of))
"""
SECONDS = re.compile(rb"\d+\.\d+s|\d+ writes/s|used : -?\d+\.\d\d MB")


def small(ctl: Etcdctl, *args: str) -> Ran:
    command = [sys.executable, "-c", SMALL, *args]
    done = subprocess.run(command, capture_output=True, env=ctl.variables(), timeout=60)
    return Ran(done.returncode, done.stdout, done.stderr)


def revision_of(ctl: Etcdctl) -> int:
    revision: int = json.loads(ctl("get", "x", "-w", "json").out)["header"]["revision"]
    return revision


def test_a_cluster_that_keeps_up_passes_and_no_key_is_left(ctl: Etcdctl) -> None:
    before = revision_of(ctl)
    ran = small(ctl, "check", "perf", "--prefix=/p/")
    assert (ran.code, ran.err) == (0, b"")
    assert SECONDS.sub(b"#", ran.out).splitlines() == [
        b"PASS: Throughput is #",
        b"PASS: Slowest request took #",
        b"PASS: Stddev is #",
        b"PASS",
    ]
    assert ctl("get", "--prefix", "/p/").out == b""
    assert revision_of(ctl) - before == pytest.approx(300, abs=40), "150 writes a second"


def test_an_interrupt_ends_the_writing_and_the_verdict_is_given(ctl: Etcdctl) -> None:
    check = ctl.open("check", "perf", "--prefix=/p/")
    watcher = ctl.open("watch", "--prefix", "/p/")
    assert watcher.stdout is not None
    watcher.stdout.readline()
    check.send_signal(signal.SIGINT)
    out, err = check.communicate(timeout=30)
    watcher.kill()
    watcher.communicate()
    assert err == b""
    assert b"Slowest request took" in out
    assert ctl("get", "--prefix", "/p/").out == b""


def test_the_memory_of_data_is_told_and_all_is_cleaned_up_on_request(ctl: Etcdctl) -> None:
    ran = small(ctl, "check", "datascale", "--prefix=/d/", "--auto-compact", "--auto-defrag")
    assert (ran.code, ran.err) == (0, b"")
    revision = revision_of(ctl)
    assert SECONDS.sub(b"#", ran.out).decode().splitlines() == [
        "Start data scale check for work load"
        " [200 key-value pairs, 1024 bytes per key-value, 10 concurrent clients].",
        f"Compacting with revision {revision}",
        f"Compacted with revision {revision}",
        f'Defragmenting "{ctl.endpoint}"',
        f'Defragmented "{ctl.endpoint}"',
        "PASS: Approximate system memory #.",
    ]
    assert ctl("get", "--prefix", "/d/").out == b""
    assert b"required revision has been compacted" in ctl("get", "x", f"--rev={revision - 1}").err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["perf", "--load=huge"], 4),
        (["datascale", "--load=XL"], 4),
        (["perf", "--prefix=taken"], 3),
        (["datascale", "--prefix=taken"], 3),
        (["datascale", "--prefix="], 3),
        (["perf", "--user=u:p", "--endpoints=127.0.0.1:1", "--dial-timeout=100ms"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_told_alike(ctl: Etcdctl, both: Both, arguments: list[str], code: int) -> None:
    ctl("put", "taken", "already")
    here = [] if any("--endpoints" in argument for argument in arguments) else [f"--endpoints={ctl.endpoint}"]
    assert both.same("check", *arguments, *here).code == code


def test_a_user_who_may_not_write_fails_the_check() -> None:
    tally = Tally(array("d", [0.1]), {"etcdserver: permission denied": 7}, seconds=1.0)
    with pytest.raises(Exit) as failed:
        check_perf.judge(tally, 1000)
    assert failed.value.code == 1


def test_a_slow_or_uneven_cluster_fails(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    tally = Tally(array("d", [0.001] * 9 + [0.9]), seconds=1.0)
    with pytest.raises(Exit):
        check_perf.judge(tally, 100)
    sys.stdout.flush()
    assert capfdbinary.readouterr().out.decode().splitlines() == [
        "FAIL: Throughput too low: 11 writes/s",
        "Slowest request took too long: 0.900000s",
        "Stddev too high: 0.269700s",
        "FAIL",
    ]


def test_deviation_is_that_of_the_whole_population() -> None:
    tally = Tally(array("d", [1.0, 3.0]), seconds=4.0)
    assert (tally.per_second, tally.slowest, tally.deviation) == (0.5, 3.0, 1.0)
    assert (Tally().per_second, Tally().slowest, Tally().deviation) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_processes_share_all_of_the_work(processes: int) -> None:
    work = Work("p", clients=500, key_bytes=1, value_bytes=1, count=10_001, per_second=8000)
    split = shares(work, processes)
    assert len(split) == processes
    assert sum(each.clients for each in split) == 500
    assert sum(each.count for each in split) == 10_001
    assert math.isclose(sum(each.per_second for each in split), 8000)


class Metrics(BaseHTTPRequestHandler):
    """Answers a path with the text that it is."""

    def do_GET(self) -> None:
        asked = unquote(self.path.removesuffix("/metrics").strip("/"))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(asked.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def metrics() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_memory_is_read_off_the_metrics(metrics: str) -> None:
    text = quote("# HELP process_resident_memory_bytes x\nprocess_resident_memory_bytes 3.5e+07\nother 1\n")
    assert memory_of(f"{metrics}/{text}", None) == 35_000_000
    assert memory_of(f"http://{metrics}/{text}", None) == 35_000_000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("other 1", "could not find: process_resident_memory_bytes"),
        (
            "process_resident_memory_bytes x",
            'parse error: strconv.ParseFloat: parsing "x": invalid syntax',
        ),
    ],
)
def test_memory_that_cannot_be_read_is_told_why(metrics: str, text: str, reason: str) -> None:
    with pytest.raises(Unknown) as why:
        memory_of(f"{metrics}/{quote(text)}", None)
    assert str(why.value) == reason


def test_metrics_that_cannot_be_fetched_are_told_of() -> None:
    with pytest.raises(Unknown) as why:
        memory_of("127.0.0.1:1", None)
    reason = "dial tcp 127.0.0.1:1: connect: connection refused"
    assert str(why.value) == f'fetch error: Get "http://127.0.0.1:1/metrics": {reason}'
