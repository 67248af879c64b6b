"""`endpoint`, `member`, `alarm`, `defrag` and the global flags, against real etcd."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ctl_runner import Etcdctl, RealEtcd

DEAD = "127.0.0.1:1"


def test_a_healthy_endpoint_is_called_so(ctl: Etcdctl) -> None:
    healthy = f"{ctl.endpoint} is healthy: successfully committed proposal: took = "
    assert ctl("endpoint", "health").text.startswith(healthy)
    (state,) = json.loads(ctl("endpoint", "health", "-w", "json").out)
    assert list(state) == ["endpoint", "health", "took"]
    assert state["health"] is True
    assert ctl("endpoint", "health", "--cluster").text.startswith(f"http://{healthy}")


def test_a_dead_endpoint_is_unhealthy_and_so_is_the_cluster(ctl: Etcdctl) -> None:
    both = Etcdctl(f"{ctl.endpoint},{DEAD}")
    ran = both("endpoint", "health", "--command-timeout=1s")
    assert ran.code == 1
    assert ran.text.startswith(f"{ctl.endpoint} is healthy")
    assert ran.err.decode().splitlines() == [
        f"{DEAD} is unhealthy: failed to commit proposal: context deadline exceeded",
        "Error: unhealthy cluster",
    ]


def test_the_status_of_those_that_answer_is_shown_and_of_others_told(ctl: Etcdctl) -> None:
    both = Etcdctl(f"{DEAD},{ctl.endpoint}")
    ran = both("endpoint", "status", "--command-timeout=1s", "-w", "json")
    assert ran.code == 1
    assert ran.err.decode() == f"Failed to get the status of endpoint {DEAD} (context deadline exceeded)\n"
    (status,) = json.loads(ran.out)
    assert status["Endpoint"] == ctl.endpoint
    assert status["Status"]["leader"] == status["Status"]["header"]["member_id"]
    assert status["Status"]["version"] == "3.5.1"


def test_the_status_as_a_table_has_a_column_for_everything(ctl: Etcdctl) -> None:
    top, titles, rule, row, bottom = ctl("endpoint", "status", "-w", "table").text.splitlines()
    assert {len(line) for line in (top, titles, rule, row, bottom)} == {len(top)}
    assert [cell.strip() for cell in titles.strip("│").split("│")][:5] == [
        "ENDPOINT",
        "ID",
        "VERSION",
        "STORAGE VERSION",
        "DB SIZE",
    ]
    assert row.split("│")[1].strip() == ctl.endpoint


def test_the_hash_is_the_one_real_etcdctl_shows(ctl: Etcdctl, real_ctl: Callable[..., bytes]) -> None:
    ctl("put", "a", "b")
    (ours,) = json.loads(ctl("endpoint", "hashkv", "-w", "json").out)
    (theirs,) = json.loads(real_ctl("endpoint", "hashkv", "-w", "json"))
    assert ours["HashKV"]["hash"] == theirs["HashKV"]["hash"]


def test_members_are_listed_as_by_the_real_etcdctl(ctl: Etcdctl, real_ctl: Callable[..., bytes]) -> None:
    assert ctl("member", "list").out == real_ctl("member", "list")
    assert ctl("member", "list", "-w", "json").out == real_ctl("member", "list", "-w", "json")
    listed = json.loads(ctl("member", "list", "-w", "json", "--hex").out)
    assert listed["members"][0]["ID"] == ctl("member", "list").text.split(",")[0]


def test_refused_member_changes_are_told(ctl: Etcdctl) -> None:
    assert ctl("member", "remove", "5").err == b"Error: etcdserver: member not found\n"
    assert ctl("member", "add", "x", "--peer-urls=bad").err == (
        b"Error: URL scheme must be http, https, unix, or unixs: bad\n"
    )
    ran = ctl("member", "remove", "xyz")
    assert (ran.code, ran.err) == (
        128,
        b'Error: bad member ID arg (strconv.ParseUint: parsing "xyz": invalid syntax), expecting ID in Hex\n',
    )


def test_an_alarm_is_listed_makes_unhealthy_and_is_disarmed(ctl: Etcdctl) -> None:
    for number in range(40):  # the quota is 16 MiB
        if ctl("put", f"big{number}", stdin=bytes(1_000_000)).code:
            break
    listed = ctl("alarm", "list").text
    assert listed.endswith(" alarm:NOSPACE\n")
    ran = ctl("endpoint", "health")
    assert b"is unhealthy: failed to commit proposal: Active Alarm(s): NOSPACE \n" in ran.err
    assert ctl("del", "big", "--prefix").code == 0
    revision = json.loads(ctl("get", "x", "-w", "json").out)["header"]["revision"]
    assert ctl("compaction", str(revision), "--physical").code == 0
    finished = f"Finished defragmenting etcd member[{ctl.endpoint}]. took "
    assert ctl("defrag").text.startswith(finished)
    assert ctl("alarm", "disarm").text == listed
    assert ctl("alarm", "list").out == b""
    assert ctl("alarm", "disarm", "-w", "json").out == b"{}\n"


def test_a_dead_endpoint_is_passed_over_for_the_next(ctl: Etcdctl) -> None:
    both = Etcdctl(f"{DEAD},{ctl.endpoint}")
    assert both("put", "a", "b").code == 0
    assert both("get", "a").out == b"a\nb\n"


def test_without_any_endpoint_alive_the_command_times_out(ctl: Etcdctl) -> None:
    dead = Etcdctl(DEAD)
    for command in (["get", "a"], ["put", "a", "b"], ["member", "list"], ["get", "a", "--stream"]):
        ran = dead(*command, "--command-timeout=200ms")
        assert (ran.code, ran.err) == (1, b"Error: context deadline exceeded\n")


@pytest.mark.parametrize(
    ("flags", "code", "error"),
    [
        (["--cert="], 128, "empty string is passed to --cert option"),
        (["--cert=x"], 128, "KeyFile and CertFile must both be present[key: , cert: x]"),
        (["--cacert=/no/such"], 128, "open /no/such: no such file or directory"),
        (
            ["--max-recv-bytes=5", "--max-request-bytes=6"],
            2,
            "gRPC message recv limit (5 bytes) must be greater than send limit (6 bytes)",
        ),
        (
            ["--max-request-bytes=2"],
            1,
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (3 vs. 2)",
        ),
        (["--command-timeout=0s"], 1, "context deadline exceeded"),
    ],
)
def test_bad_settings_end_the_command_in_etcdctls_way(
    ctl: Etcdctl, flags: list[str], code: int, error: str
) -> None:
    ran = ctl("get", "a", *flags)
    assert (ran.code, ran.err.decode()) == (code, f"Error: {error}\n")


def test_without_endpoints_there_is_nobody_to_ask() -> None:
    ran = Etcdctl("")("get", "a", "--endpoints=")
    assert (ran.code, ran.err) == (2, b"Error: etcdclient: no available endpoints\n")


def test_a_variable_stands_for_a_flag_that_is_not_given(ctl: Etcdctl) -> None:
    ctl("put", "a", "b")
    assert ctl.with_variables(ETCDCTL_WRITE_OUT="json")("get", "a").out.startswith(b'{"header":{')
    assert ctl.with_variables(ETCDCTL_HEX="true")("get", "a").out == b"\\x61\n\\x62\n"
    assert ctl.with_variables(ETCDCTL_DIAL_TIMEOUT="nonsense")("get", "a").out == b"a\nb\n"


def test_a_variable_and_its_flag_together_are_a_conflict(ctl: Etcdctl) -> None:
    ran = ctl("get", "a", "--endpoints", ctl.endpoint)
    assert ran.code == 1
    line = json.loads(ran.err)
    assert line["level"] == "fatal"
    assert line["msg"].startswith(
        "conflicting environment variable is shadowed by corresponding command-line flag"
    )
    assert line["environment-variable"] == "ETCDCTL_ENDPOINTS"


def test_endpoints_may_be_urls_and_have_spaces_around(ctl: Etcdctl, real_etcd: RealEtcd) -> None:
    ctl("put", "a", "b")
    assert Etcdctl(f" http://{real_etcd.endpoint} ")("get", "a").out == b"a\nb\n"


def test_flags_may_stand_before_and_behind_the_command(ctl: Etcdctl) -> None:
    ctl("put", "a", "b")
    for arguments in (["-w", "json", "get", "a"], ["get", "-wjson", "a"], ["get", "a", "-w=json"]):
        assert ctl(*arguments).out.startswith(b'{"header":{')


def test_certificates_that_cannot_be_read_are_named(ctl: Etcdctl, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    ran = ctl("get", "a", f"--cacert={bad}")
    assert ran.code == 128
    assert ran.err.startswith(b"Error: ")
