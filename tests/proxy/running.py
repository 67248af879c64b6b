"""A proxy as a process: `etcd gateway start` or `etcd grpc-proxy start`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctl_runner import Etcdctl, real_program
from members import Output
from servers import free_port

OURS = Path(sys.executable).parent / "etcd"
READY = "successfully notified init daemon"
SECONDS = 30.0


class Proxy:
    """Started when made, `flags` as on its command line; `close` it."""

    def __init__(self, kind: str, directory: Path, *flags: str, program: Path = OURS) -> None:
        self.metrics = ""  # where its metrics are, if its maker says so
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = directory / f"proxy-{self.port}.log"
        self.process = subprocess.Popen(
            [str(program), kind, "start", f"--listen-addr={self.address}", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
        )
        self.output = Output(self.process, self.log)
        self.wait(READY)

    def wait(self, text: str) -> None:
        """Until a line has `text`."""
        assert self.output.wait(text, SECONDS), f"{text!r} was not printed:\n{self.log.read_text()}"

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def line(self, message: str) -> dict[str, object]:
        """The first line of this message; waits for it."""
        self.wait(f'"{message}"')
        return next(line for line in self.lines() if line["msg"] == message)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)


def both_etcdctls_work(address: str) -> None:
    """Ours puts there, the real one gets."""
    assert Etcdctl(address)("put", "k", "v").text == "OK\n"
    real = subprocess.run(
        [str(real_program("etcdctl")), "--endpoints", address, "get", "k"],
        capture_output=True,
        env={"ETCDCTL_API": "3"},
        timeout=SECONDS,
        check=True,
    )
    assert real.stdout == b"k\nv\n"


@contextmanager
def proxy(kind: str, directory: Path, *flags: str, program: Path = OURS) -> Iterator[Proxy]:
    running = Proxy(kind, directory, *flags, program=program)
    try:
        yield running
    finally:
        running.close()
