"""A Go program made with etcd's own client library does its work against pyetcd: keys, transactions, watches,
leases, and the recipes of `concurrency`, over restarts of the server as well.
"""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from servers import Etcd

REPORT_SECONDS = 60
STEPS = 20


class Client:
    """The program, running; its reports come through a thread, so that waiting for one has an end."""

    def __init__(self, program: Path, etcd: Etcd) -> None:
        self.process = subprocess.Popen(
            [str(program), f"127.0.0.1:{etcd.port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reports: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._reports.put(json.loads(line))
        self._reports.put(None)

    def reports(self) -> Iterator[dict[str, Any]]:
        while (report := self._reports.get(timeout=REPORT_SECONDS)) is not None:
            yield report

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_a_go_program_does_everything_it_does_with_etcd(goclient: Path, etcd: Etcd) -> None:
    client = Client(goclient, etcd)
    done: dict[str, str] = {}
    ways = iter((signal.SIGTERM, signal.SIGKILL))
    try:
        for report in client.reports():
            if report.get("restart"):
                etcd.restart(next(ways))
                client.go_on()
            else:
                done[report["step"]] = report.get("error", "")
    finally:
        client.close()
    assert {step: error for step, error in done.items() if error} == {}
    assert len(done) == STEPS
