"""Leases and watches against real etcd."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from ctl_runner import Etcdctl


def grant(ctl: Etcdctl, ttl: int = 600) -> str:
    words = ctl("lease", "grant", str(ttl)).text.split()
    assert words[2:] == ["granted", "with", f"TTL({ttl}s)"]
    return words[1]


def lines_of(process: subprocess.Popen[bytes], count: int) -> list[bytes]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_a_lease_goes_through_its_life(ctl: Etcdctl) -> None:
    lease = grant(ctl)
    assert ctl("put", "k", "v", f"--lease={lease}").code == 0
    assert ctl("lease", "list").text.splitlines()[1:] == [lease]
    left = ctl("lease", "timetolive", lease, "--keys").text
    assert left.startswith(f"lease {lease} granted with TTL(600s), remaining(")
    assert left.endswith("), attached keys([k])\n")
    assert ctl("lease", "keep-alive", "--once", lease).text == f"lease {lease} keepalived with TTL(600)\n"
    assert ctl("lease", "revoke", lease).text == f"lease {lease} revoked\n"
    assert ctl("get", "k").out == b""
    assert ctl("lease", "timetolive", lease).text == f"lease {lease} already expired\n"


def test_leases_in_json_have_their_headers_fields_beside_their_own(ctl: Etcdctl) -> None:
    granted = json.loads(ctl("lease", "grant", "600", "-w", "json").out)
    assert list(granted) == ["cluster_id", "member_id", "revision", "raft_term", "ID", "TTL", "Error"]
    lease = f"{granted['ID']:016x}"
    left = json.loads(ctl("lease", "timetolive", lease, "-w", "json").out)
    assert list(left)[4:] == ["id", "ttl", "granted-ttl", "keys"]
    assert left["keys"] is None
    assert json.loads(ctl("lease", "list", "-w", "json").out)["leases"] == [{"id": granted["ID"]}]
    assert ctl("lease", "revoke", lease).code == 0


def test_a_missing_lease_is_told_in_each_commands_way(ctl: Etcdctl) -> None:
    ran = ctl("lease", "revoke", "77")
    assert (ran.code, ran.err) == (
        1,
        b"Error: failed to revoke lease (etcdserver: requested lease not found)\n",
    )
    ran = ctl("lease", "keep-alive", "--once", "77")
    assert (ran.code, ran.err) == (2, b"Error: etcdserver: requested lease not found\n")
    ran = ctl("lease", "keep-alive", "77")
    assert (ran.code, ran.text) == (0, "lease 0000000000000077 expired or revoked.\n")


def test_keep_alive_goes_on_until_the_lease_is_revoked(ctl: Etcdctl) -> None:
    lease = grant(ctl, 2)
    keeper = ctl.open("lease", "keep-alive", lease)
    try:
        renewed = f"lease {lease} keepalived with TTL(2)\n".encode()
        assert lines_of(keeper, 5) == [renewed] * 5, "five renewals outlive the TTL"
        assert ctl("lease", "revoke", lease).code == 0
        out, _ = keeper.communicate(timeout=30)
        assert out.endswith(f"lease {lease} expired or revoked.\n".encode())
        assert keeper.returncode == 0
    finally:
        stop(keeper)


def test_a_watch_tells_what_happened_and_what_happens(ctl: Etcdctl) -> None:
    ctl("put", "w", "1")
    revision = json.loads(ctl("get", "w", "-w", "json").out)["header"]["revision"]
    watcher = ctl.open("watch", "w", f"--rev={revision}", "--prev-kv")
    try:
        assert lines_of(watcher, 3) == [b"PUT\n", b"w\n", b"1\n"]
        ctl("put", "w", "2")
        assert lines_of(watcher, 5) == [b"PUT\n", b"w\n", b"1\n", b"w\n", b"2\n"]
        ctl("del", "w")
        assert lines_of(watcher, 5) == [b"DELETE\n", b"w\n", b"2\n", b"w\n", b"\n"]
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(timeout=30) == -signal.SIGINT
    finally:
        stop(watcher)


def test_a_watch_in_json_has_a_line_for_each_answer(ctl: Etcdctl) -> None:
    ctl("put", "p/a", "1")
    revision = json.loads(ctl("get", "p/a", "-w", "json").out)["header"]["revision"]
    watcher = ctl.open("watch", "p/", "--prefix", f"--rev={revision}", "-w", "json")
    try:
        answer = json.loads(lines_of(watcher, 1)[0])
        assert list(answer) == ["Header", "Events", "CompactRevision", "Canceled", "Created", "CancelReason"]
        assert [event["kv"]["key"] for event in answer["Events"]] == ["cC9h"]
    finally:
        stop(watcher)


def test_an_event_starts_the_program_behind_two_dashes(ctl: Etcdctl) -> None:
    ctl("put", "w", 'say "hi"')
    revision = json.loads(ctl("get", "w", "-w", "json").out)["header"]["revision"]
    names = ("REVISION", "EVENT_TYPE", "KEY", "VALUE")
    show = f"import os; print(*(os.environ['ETCD_WATCH_' + name] for name in {names}))"
    watcher = ctl.open("watch", f"--rev={revision}", "w", "--", sys.executable, "-c", show)
    try:
        shown = lines_of(watcher, 4)
        assert shown[:3] == [b"PUT\n", b"w\n", b'say "hi"\n']
        assert shown[3] == f'{revision} "PUT" "w" "say \\"hi\\""\n'.encode()
    finally:
        stop(watcher)


def test_a_program_that_fails_ends_the_watch(ctl: Etcdctl) -> None:
    ctl("put", "w", "1")
    revision = json.loads(ctl("get", "w", "-w", "json").out)["header"]["revision"]
    ran = ctl("watch", "w", f"--rev={revision}", "--", "false")
    assert (ran.code, ran.err) == (1, b'command ["false"] error (exit status 1)\n')


def test_the_key_may_come_from_the_environment(ctl: Etcdctl) -> None:
    ctl("put", "w", "1")
    revision = json.loads(ctl("get", "w", "-w", "json").out)["header"]["revision"]
    watcher = ctl.with_variables(ETCDCTL_WATCH_KEY="w").open("watch", f"--rev={revision}")
    try:
        assert lines_of(watcher, 2) == [b"PUT\n", b"w\n"]
    finally:
        stop(watcher)
    ran = ctl.with_variables(ETCDCTL_WATCH_KEY="w")("watch", "other")
    assert (ran.code, ran.err) == (
        128,
        b"Error: bad number of arguments (found conflicting environment key)\n",
    )


def test_interactive_watches_share_one_process(ctl: Etcdctl) -> None:
    ctl("put", "one", "1")
    revision = json.loads(ctl("get", "one", "-w", "json").out)["header"]["revision"]
    ctl("put", "two", "2")
    watcher = ctl.open("watch", "--interactive")
    try:
        assert watcher.stdin is not None
        watcher.stdin.write(f"watch one --rev={revision}\n".encode())
        watcher.stdin.flush()
        assert lines_of(watcher, 3) == [b"PUT\n", b"one\n", b"1\n"]
        watcher.stdin.write(f"watch --rev={revision} 'two'\n".encode())
        watcher.stdin.flush()
        assert lines_of(watcher, 3) == [b"PUT\n", b"two\n", b"2\n"]
        _, err = watcher.communicate(b"nonsense\n", timeout=30)
        assert err == (
            b"Invalid command nonsense (only support watch)\nError: error reading watch request line: EOF\n"
        )
        assert watcher.returncode == 3
    finally:
        stop(watcher)


def test_the_end_of_input_ends_interactive_watches_that_have_just_begun(ctl: Etcdctl) -> None:
    for _ in range(3):
        ran = ctl("watch", "--interactive", stdin=b"watch a\nwatch b\n")
        assert (ran.code, ran.out) == (3, b"")
        assert ran.err == b"Error: error reading watch request line: EOF\n"


def test_a_watch_of_compacted_history_is_canceled_with_code_5(ctl: Etcdctl) -> None:
    ctl("put", "w", "1")
    ctl("put", "w", "2")
    revision = json.loads(ctl("get", "w", "-w", "json").out)["header"]["revision"]
    assert ctl("compaction", str(revision)).code == 0
    ran = ctl("watch", "w", "--rev=1")
    assert (ran.code, ran.out) == (5, b"")
    assert ran.err == (
        b"watch was canceled (etcdserver: mvcc: required revision has been compacted)\n"
        b"Error: watch is canceled by the server\n"
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["watch"], "bad number of arguments"),
        (["watch", "a", "--"], "bad number of arguments (found separator --, but no commands)"),
        (["watch", "a", "b", "--prefix"], "`range_end` and `--prefix` are mutually exclusive"),
        (["lease", "grant"], "lease grant command needs TTL argument"),
        (["lease", "grant", "x"], 'bad TTL (strconv.ParseInt: parsing "x": invalid syntax)'),
        (["lease", "revoke"], "lease revoke command needs 1 argument"),
        (
            ["lease", "timetolive", "g"],
            'bad lease ID arg (strconv.ParseInt: parsing "g": invalid syntax), expecting ID in Hex',
        ),
    ],
)
def test_mistakes_have_etcdctls_words_and_code_128(ctl: Etcdctl, arguments: list[str], error: str) -> None:
    ran = ctl(*arguments)
    assert (ran.code, ran.err.decode()) == (128, f"Error: {error}\n")
