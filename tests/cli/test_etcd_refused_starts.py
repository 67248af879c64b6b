"""Starts that end before anything is begun: etcd's words, exit code 1, and no data directory."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "interop"))
from servers import ETCD, free_port


def refused(
    data: Path, client_url: str, *flags: str, before: Callable[[], object] | None = None
) -> dict[str, object]:
    """The last line of a start that ended. `before`: done by the process before it becomes a member."""
    urls = [f"--listen-client-urls={client_url}", f"--advertise-client-urls={client_url}"]
    command = [str(ETCD), f"--data-dir={data}", "--listen-peer-urls=http://127.0.0.1:0", *urls, *flags]
    ended = subprocess.run(
        command, stderr=subprocess.PIPE, text=True, timeout=60, preexec_fn=before, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert not data.exists()
    last: dict[str, object] = json.loads(ended.stderr.splitlines()[-1])
    assert last["level"] == "fatal"
    return last


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        last = refused(tmp_path / "d", f"http://127.0.0.1:{port}")
    assert last["msg"] == "discovery failed"
    assert last["error"] == f"listen tcp 127.0.0.1:{port}: bind: address already in use"


def test_a_certificate_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "nobody.pem"
    url = f"https://127.0.0.1:{free_port()}"
    last = refused(tmp_path / "d", url, f"--cert-file={missing}", f"--key-file={missing}")
    assert str(missing) in str(last["error"])


def test_a_limit_of_descriptors_that_leaves_none_for_clients(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))

    last = refused(tmp_path / "d", f"http://127.0.0.1:{free_port()}", before=limit)
    assert last["msg"] == "file descriptor limit of etcd process is too low; please set higher"
    assert (last["limit"], last["recommended-limit"]) == (150, 150)
