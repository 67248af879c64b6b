"""The service manager hears once that the member is ready."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyetcd import logs
from pyetcd.cli.etcd.systemd import notify_ready
from pyetcd.logs.sinks import Writer

sys.path.append(str(Path(__file__).parents[1] / "interop"))
from servers import ETCD, Etcd, free_port


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


BECOME = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3);"
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def activated(tmp_path: Path, listener: socket.socket, port: int) -> subprocess.Popen[str]:
    """A member whose clients' socket, on `port`, is handed to it as systemd hands it over."""
    flags = [
        f"--data-dir={tmp_path / 'activated.etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{port}",
        f"--advertise-client-urls=http://127.0.0.1:{port}",
        "--listen-peer-urls=http://127.0.0.1:0",
    ]
    descriptor = listener.fileno()
    command = [sys.executable, "-c", BECOME, str(descriptor), str(ETCD), *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=(descriptor,))


def test_clients_wait_at_the_managers_socket_while_there_is_no_member(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as early:
                early.sendall(b"GET /health HTTP/1.0\r\n\r\n")
                member = activated(tmp_path, listener, port)
                try:
                    assert early.recv(4096).startswith(b"HTTP/1.0 200 OK")
                finally:
                    member.kill()
                    member.communicate(timeout=20)


def test_a_socket_that_no_url_asks_for_ends_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with activated(tmp_path, listener, free_port()) as member:
            printed = member.communicate(timeout=60)[1]
    last = json.loads(printed.splitlines()[-1])
    assert (last["level"], member.returncode) == ("fatal", 1)
    assert last["error"] == f"no URL asks for the sockets that were passed: 127.0.0.1:{port}"
    assert not (tmp_path / "activated.etcd").exists()
