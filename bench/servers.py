"""The two servers that are compared, as processes: started, waited for, stopped.

Both get the same settings: one member, a data directory of its own on disk, ports the kernel gave, log level
warn, the same quota and snapshot count. Ready is when /health answers that a linearizable read went through,
asked in the same way of both.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from bench.process import cpu_seconds
from bench.programs import REPOSITORY, Programs

QUOTA_BYTES = 8 << 30
SNAPSHOT_COUNT = 10_000
READY_TIMEOUT_SECONDS = 300.0
STOP_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.01

GO, PYETCD = "go", "pyetcd"
KINDS = (GO, PYETCD)


class ServerFailed(Exception):
    """A server did not come up, or ended by itself."""


class Server:
    """One server over one data directory. `start` and `stop` may be repeated; the data stays."""

    def __init__(self, kind: str, programs: Programs) -> None:
        self.kind = kind
        self._programs = programs
        self._directory = Path(tempfile.mkdtemp(prefix=f"bench-{kind}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self.port = self.peer_port = 0

    @property
    def pid(self) -> int:
        assert self._process is not None, "only a running server has a process"
        return self._process.pid

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.pid)

    def start(self) -> float:
        """Start it and return how many seconds it took until it answered. Raises ServerFailed."""
        self.port, self.peer_port = free_ports(2)
        self.begin()
        return self.wait_healthy()

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        assert self._process is None, "a server is started once at a time"
        with (self._directory / "log").open("ab") as log:
            self._began = time.monotonic()
            self._process = subprocess.Popen(self._command(), stdout=log, stderr=log)

    def wait_healthy(self) -> float:
        """Seconds since it began. Raises ServerFailed."""
        assert self._process is not None, "only what has begun gets healthy"
        while not is_healthy(self.port):
            if self._process.poll() is not None or time.monotonic() - self._began > READY_TIMEOUT_SECONDS:
                text = (self._directory / "log").read_text(errors="replace")
                self._process.kill()
                raise ServerFailed(f"{self.kind} did not get ready; it said last:\n{text[-2000:]}")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - self._began

    def _command(self) -> list[str]:
        client, peer = f"http://{self.endpoint}", f"http://127.0.0.1:{self.peer_port}"
        common = [
            f"--data-dir={self._directory / 'data'}",
            f"--listen-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--quota-backend-bytes={QUOTA_BYTES}",
            f"--snapshot-count={SNAPSHOT_COUNT}",
        ]
        if self.kind == GO:  # takes the rest from these, and warn as its log level
            return [str(self._programs.goetcd), *common]
        return [
            str(REPOSITORY / ".venv" / "bin" / "etcd"),
            *common,
            f"--advertise-client-urls={client}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--log-level=warn",
        ]

    def stop(self) -> None:
        """SIGTERM, and wait until it is gone."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        process, self._process = self._process, None
        assert process is not None, "only a running server can be killed"
        process.kill()
        process.wait()

    def discard(self) -> None:
        """Stop it and remove its data."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        body = answer.read()
        return answer.status == 200 and json.loads(body).get("health") == "true"
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
