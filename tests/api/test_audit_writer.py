"""The audit log's writer: bounded, in order, and honest about what it lost."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyetcd.api.audit_writer import AuditWriter
from pyetcd.logs.files import File


def test_lines_come_out_in_order_however_many_batches_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def write() -> None:
        with ThreadPoolExecutor(2) as executor:
            writer = AuditWriter(File(str(path)), executor, asyncio.get_running_loop(), lambda: "now")
            for number in range(5000):
                writer.write(b"%d" % number + b" " * 90)
                if number % 1000 == 0:
                    await asyncio.sleep(0)
            await writer.close()

    asyncio.run(write())
    assert [int(line) for line in path.read_text().splitlines()] == list(range(5000))


def test_what_does_not_fit_is_counted_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def write() -> int:
        goes_on = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            executor.submit(goes_on.wait)  # the disk is slow
            loop = asyncio.get_running_loop()
            writer = AuditWriter(File(str(path)), executor, loop, lambda: "now", waiting_bytes_max=100)
            for _ in range(15):
                writer.write(b"x" * 10)
            goes_on.set()
            while not path.stat().st_size:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.001)
            writer.write(b"y" * 10)
            await writer.close()
            return writer.lost_total

    assert asyncio.run(write()) == 5
    *lines, lost, last = path.read_text().splitlines()
    assert lines == ["x" * 10] * 10
    assert json.loads(lost) == {"ts": "now", "lost_lines": 5}
    assert last == "y" * 10


def test_lines_that_the_disk_refuses_are_counted_as_lost(tmp_path: Path) -> None:
    async def write() -> int:
        with ThreadPoolExecutor(1) as executor:
            loop = asyncio.get_running_loop()
            writer = AuditWriter(File("/dev/full"), executor, loop, lambda: "now")
            writer.write(b"one")
            writer.write(b"two")
            await writer.close()
            return writer.lost_total

    assert asyncio.run(write()) == 2
