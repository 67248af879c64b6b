"""`pyetcd.testing` and its fixtures, as the tests of another project use them: a pytest run of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyetcd.testing import NotReady, Server

RUN_SECONDS = 120
HEAD = """
import urllib.request

def revision(server):
    url, body = server.client_url + "/v3/kv/put", b'{"key":"aw==","value":"dg=="}'
    return urllib.request.urlopen(url, body, timeout=20).read().decode()
"""


def run(directory: Path, tests: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_theirs.py").write_text(HEAD + tests)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "test_theirs.py"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )


def test_each_test_has_a_fresh_member_unless_one_is_to_be_shared(tmp_path: Path) -> None:
    tests = """
def test_one(etcd):
    assert '"revision":"2"' in revision(etcd)

def test_two(etcd):
    assert '"revision":"2"' in revision(etcd)
"""
    alone = run(tmp_path, tests)
    assert "2 passed" in alone.stdout, alone.stdout
    shared = run(tmp_path, tests, "-o", "etcd_scope=session")
    assert "1 failed, 1 passed" in shared.stdout, shared.stdout
    assert "revision\":\"3" in shared.stdout.replace("\\", "")


def test_a_scope_that_does_not_exist_is_named(tmp_path: Path) -> None:
    run_of = run(tmp_path, "def test_one(etcd): pass\n", "-o", "etcd_scope=day")
    assert run_of.returncode != 0
    assert "etcd_scope is 'day'" in run_of.stdout + run_of.stderr


def test_the_factory_takes_flags_and_the_cluster_has_three_members_that_agree(tmp_path: Path) -> None:
    tests = """
import json

def test_factory(etcd_factory):
    quiet = etcd_factory(enable_grpc_gateway=False)
    other = etcd_factory()
    assert '"revision":"2"' in revision(other)
    assert b'"health":"true"' in urllib.request.urlopen(quiet.client_url + "/health", timeout=20).read()

def test_cluster(etcd_cluster):
    assert len(etcd_cluster) == 3
    answers = [revision(server) for server in etcd_cluster]
    assert [json.loads(answer)["header"]["revision"] for answer in answers] == ["2", "3", "4"]
"""
    result = run(tmp_path, tests)
    assert "2 passed" in result.stdout, result.stdout


def test_a_server_keeps_what_it_holds_over_a_restart_and_a_crash(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        url, first = server.client_url, server.pid
        server.restart()
        server.kill()
        assert not server.running
        server.start()
        assert (server.client_url, server.running) == (url, True)
        assert server.pid != first


def test_a_server_that_cannot_start_says_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="--election-timeout"):
        Server(tmp_path / "data", heartbeat_interval=1000).start()
    with pytest.raises(NotReady, match="not defined: -nope"):
        Server(tmp_path / "data", nope=1).start()


def test_a_server_that_ended_unasked_is_told_apart_from_one_that_runs(tmp_path: Path) -> None:
    server = Server(tmp_path / "data").start()
    os.kill(server.pid, signal.SIGKILL)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    assert not server.running
    server.stop()
