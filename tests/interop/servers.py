"""Servers as processes: pyetcd, and real etcd built from its Go modules, started alike so that a test can use
either.

Rules that hold here:

* Nothing waits without a deadline: a thread reads what the server prints, the test waits for an event of it.
* Ports are free ones the kernel named, on 127.0.0.1; data lies in the test's own directory.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections import deque
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message

from pyetcd.launching import free_port
from pyetcd.proto.rpc_pb2 import (
    HashKVRequest,
    HashKVResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)

ETCD = Path(sys.executable).parent / "etcd"
BENCH = Path(__file__).parents[2] / "bench" / "go"
GO = Path(__file__).parent / "go"
READY = "ready to serve client requests"
READY_SECONDS = 30.0
STOP_SECONDS = 20.0
LINES_KEPT = 400
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a restarted server is not waited for in an old one's back-off
)


class Printed:
    """What a process prints, read by a thread; the last lines are kept for the message of a failure."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._is_ready = False
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._thread.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._lines.append(line)
                if READY in line:
                    self._is_ready = True
                    self._changed.set()
        self._changed.set()

    def wait_ready(self, seconds: float) -> bool:
        """False when the time is over or the process has ended without getting ready."""
        self._changed.wait(seconds)
        return self._is_ready

    def end(self) -> None:
        self._thread.join(STOP_SECONDS)

    def text(self) -> str:
        return "".join(self._lines)


class Server(ABC):
    """One member that is its own cluster. Started when made; `stop` it."""

    ready_seconds = READY_SECONDS

    def __init__(self, directory: Path, ports: tuple[int, int] | None = None, /, **flags: object) -> None:
        """`ports`: those of clients and of peers, None for free ones. `flags`: etcd's, with underscores for
        dashes."""
        self.directory = directory
        self.flags = {name.replace("_", "-"): str(value) for name, value in flags.items()}
        self.port, self.peer_port = ports or (free_port(), free_port())
        self.start()

    @abstractmethod
    def command(self) -> list[str]:
        """The executable and those flags that name places."""

    @property
    def client_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    def start(self) -> None:
        command = [*self.command(), *(f"--{name}={value}" for name, value in self.flags.items())]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        self.printed = Printed(self.process)
        if not self.printed.wait_ready(self.ready_seconds):
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            self.printed.end()
            raise AssertionError(f"{command[0]} did not become ready:\n{self.printed.text()}")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options=CHANNEL_OPTIONS)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code, or minus the signal."""
        self.channel.close()
        self.process.send_signal(how)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.printed.end()
        return code

    def close(self) -> None:
        """Be gone, whatever the state."""
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)

    def restart(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.stop(how)
        self.start()

    def call(self, path: str, request: Message, response: type[Message]) -> Message:
        """`path` without its package, as "KV/Range"."""
        method = self.channel.unary_unary(
            f"/etcdserverpb.{path}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        answer: Message = method(request, timeout=10)
        return answer

    def put(self, key: bytes, value: bytes) -> int:
        """Returns the revision."""
        response = self.call("KV/Put", PutRequest(key=key, value=value), PutResponse)
        assert isinstance(response, PutResponse)
        return response.header.revision

    def range(self, key: bytes, end: bytes = b"") -> RangeResponse:
        response = self.call("KV/Range", RangeRequest(key=key, range_end=end), RangeResponse)
        assert isinstance(response, RangeResponse)
        return response

    def hash(self) -> int:
        response = self.call("Maintenance/HashKV", HashKVRequest(), HashKVResponse)
        assert isinstance(response, HashKVResponse)
        return response.hash


class Etcd(Server):
    """pyetcd."""

    def command(self) -> list[str]:
        return [
            str(ETCD),
            f"--data-dir={self.directory / 'data'}",
            f"--listen-client-urls={self.client_url}",
            f"--advertise-client-urls={self.client_url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster=default={self.peer_url}",
        ]


class GoEtcd(Server):
    """Real etcd."""

    def __init__(
        self, executable: Path, directory: Path, ports: tuple[int, int] | None = None, /, **flags: object
    ) -> None:
        self.executable = executable
        super().__init__(directory, ports, **flags)

    def command(self) -> list[str]:
        return [
            str(self.executable),
            f"--data-dir={self.directory / 'data'}",
            f"--listen-client-urls={self.client_url}",
            f"--listen-peer-urls={self.peer_url}",
        ]


def build_go(source: Path, package: str, target: Path) -> Path:
    """Build a Go program, or skip the test where there is no Go or its modules cannot be had."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    modules = _go("list", "-deps", package, source=source)
    if modules.returncode:
        pytest.skip(f"its Go modules cannot be had: {modules.stderr[-400:]}")
    built = _go("build", "-o", str(target), package, source=source)
    assert not built.returncode, built.stderr
    return target


def _go(*arguments: str, source: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["go", *arguments], cwd=source, capture_output=True, text=True)
