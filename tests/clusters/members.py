"""One member of a cluster as a process: started, stopped, killed, frozen, restarted as either implementation.

Rules that hold here:

* Nothing waits without a deadline: a thread reads what the process prints, waiters are woken by its lines.
* Everything a member ever printed is appended to one log file, whose path stands in every failure.
* A member keeps its name, its ports and its data directory over restarts, whichever executable serves them.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from programs import executable
from rpc import Client

READY = "ready to serve client requests"
READY_SECONDS = 30.0
STOP_SECONDS = 20.0


_ports = count(os.getpid() * 2003)  # so that sessions side by side hardly ever meet
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_width = 12_000 // _workers  # and the workers of one never


def free_port() -> int:
    """One that nobody listens on, and below those that outgoing connections are given: it stays free also
    while its member is down and others dial a lot."""
    while True:
        port = 20_000 + _worker * _width + next(_ports) % _width
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Output:
    """What one run of a process prints, line by line: kept for waiters, and appended to the log file."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(process, log), daemon=True)
        self._thread.start()

    def _read(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        with process.stdout as lines, log.open("a") as file:
            for line in lines:
                file.write(line)
                file.flush()
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def has(self, text: str) -> bool:
        with self._changed:
            return any(text in line for line in self._lines)

    def wait(self, text: str, seconds: float) -> bool:
        """True once a line has `text`; False when the time is over or the process has ended without it."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended or any(text in line for line in self._lines), timeout=seconds
            )
            return any(text in line for line in self._lines)

    def end(self) -> None:
        self._thread.join(STOP_SECONDS)


class Member:
    """A member that may or may not be running. `peer_url` is what others dial; it need not be what the member
    listens on."""

    def __init__(
        self, name: str, kind: str, directory: Path, flags: Mapping[str, str], *, unix_peers: bool = False
    ) -> None:
        self.name = name
        self.kind = kind
        self.directory = directory
        self.data = directory / f"{name}.data"
        self.log = directory / f"{name}.log"
        self.port, self.peer_port = free_port(), free_port()
        self.listen_peer_url = (
            f"unix://{name}:{self.peer_port}" if unix_peers else f"http://127.0.0.1:{self.peer_port}"
        )
        self.peer_url = self.listen_peer_url
        self.flags = dict(flags)
        self.process: subprocess.Popen[str] | None = None
        self.client = Client(f"127.0.0.1:{self.port}")
        self._frozen = False

    def __repr__(self) -> str:
        return f"{self.name} ({self.kind}, {self.log})"

    @property
    def client_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def answering(self) -> bool:
        return self.running and not self._frozen

    def begin(self, initial_cluster: str, state: str) -> None:
        """Start the process, and wait for nothing."""
        assert not self.running, f"{self!r} runs already"
        flags = {
            "name": self.name,
            "data-dir": str(self.data),
            "listen-client-urls": self.client_url,
            "advertise-client-urls": self.client_url,
            "listen-peer-urls": self.listen_peer_url,
            "initial-advertise-peer-urls": self.peer_url,
            "initial-cluster": initial_cluster,
            "initial-cluster-state": state,
            **self.flags,
        }
        self.process = subprocess.Popen(
            [str(executable(self.kind)), *(f"--{name}={value}" for name, value in flags.items())],
            cwd=self.directory,  # where the sockets of Unix peer URLs lie, as etcd resolves them
            env={name: value for name, value in os.environ.items() if not name.startswith("ETCD_")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._frozen = False
        self.output = Output(self.process, self.log)
        self.client.reconnect()

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        if not self.output.wait(READY, seconds):
            state = "still runs" if self.running else f"ended with {self.process and self.process.poll()}"
            raise AssertionError(f"{self!r} did not get ready in {seconds} s and {state}\n{self.log_end()}")

    def log_end(self, count: int = 20) -> str:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return "\n".join(line[:500] for line in lines[-count:])

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, as a service manager stops it; the exit code, or minus the signal."""
        self.signal(signal.SIGTERM)
        return self.wait_end()

    def kill(self) -> None:
        """SIGKILL: nothing more is written or sent."""
        self.signal(signal.SIGKILL)
        self.wait_end()

    def wait_end(self, seconds: float = STOP_SECONDS) -> int:
        assert self.process is not None
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self!r} still runs after {seconds} s\n{self.log_end()}") from None
        self.output.end()
        return code

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nobody answers."""
        self._frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)
        self._frozen = False

    def discard(self) -> None:
        """Be gone, whatever the state, with the data; the log stays."""
        if self.running:
            self.kill()  # also ends a frozen process
        self.client.close()
        shutil.rmtree(self.data, ignore_errors=True)
