"""The service manager hears once that the member is ready."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyetcd import logs
from pyetcd.cli.etcd.systemd import notify_ready
from pyetcd.logs.sinks import Writer

sys.path.append(str(Path(__file__).parents[1] / "interop"))
from servers import Etcd


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Iterator[pytest.CaptureFixture[str]]:
    logs.setup("info", "json", [Writer(2)])
    yield capfd
    logs.setup("info", "json", [Writer(2)])


def lines(said: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in said.readouterr().err.splitlines()]


def manager(address: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.settimeout(20)
    channel.bind(address)
    return channel


@pytest.mark.parametrize("is_abstract", [False, True])
def test_one_message_is_sent_to_the_socket_that_is_named(
    said: pytest.CaptureFixture[str], tmp_path: Path, is_abstract: bool
) -> None:
    name = f"pyetcd-notify-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with manager(f"\0{name}" if is_abstract else name) as channel:
        notify_ready({"NOTIFY_SOCKET": f"@{name}" if is_abstract else name})
        assert channel.recv(100) == b"READY=1"
    assert [line["msg"] for line in lines(said)] == [
        "notifying init daemon",
        "successfully notified init daemon",
    ]


def test_a_socket_that_is_not_there_is_an_error_in_the_log_and_no_more(
    said: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "nobody"
    notify_ready({"NOTIFY_SOCKET": str(path)})
    last = lines(said)[-1]
    assert (last["level"], last["msg"]) == ("error", "failed to notify systemd for readiness")
    assert last["error"] == f"dial unixgram {path}: connect: no such file or directory"


def test_a_member_says_so_when_it_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with manager(str(tmp_path / "notify")) as channel:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        member = Etcd(tmp_path)
        try:
            assert channel.recv(100) == b"READY=1"
            assert member.put(b"k", b"v") == 2
        finally:
            member.close()
