"""The log on the native appender and a real executor: nothing waits, everything arrives."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyetcd._native import Appender, Wake
from pyetcd.storage.files import OsFiles
from pyetcd.storage.wal import HardState, LogEntry, Wal

SEGMENT_BYTES = 1 << 20


def reopen(directory: str) -> list[LogEntry]:
    appender = Appender(Wake())
    wal, replay = Wal.open(OsFiles(), directory, appender, entry=LogEntry, segment_bytes=SEGMENT_BYTES)
    appender.close()
    wal.close()
    return replay.entries


def test_a_thousand_saves_over_many_segments_become_durable_in_order(tmp_path: Path) -> None:
    directory = str(tmp_path / "wal")
    saved = [LogEntry(1, i, 0, os.urandom(i * 13 % 20_000)) for i in range(1, 1001)]

    async def run() -> None:
        loop = asyncio.get_running_loop()
        news = asyncio.Event()
        wake = Wake()
        loop.add_reader(wake.fileno(), news.set)
        appender = Appender(wake)
        with ThreadPoolExecutor(1) as pool:

            def on_named() -> None:
                loop.call_soon_threadsafe(news.set)

            wal = Wal.create(
                OsFiles(),
                directory,
                b"meta",
                appender,
                executor=pool,
                on_named=on_named,
                segment_bytes=SEGMENT_BYTES,
            )
            seen = 0
            for each in saved:
                sequence = wal.save(HardState(1, 1, each.index - 1), [each], True)
                if each.index % 10:
                    continue
                while wal.completed() < sequence:
                    await news.wait()
                    news.clear()
                    wake.clear()
                assert wal.completed() >= seen
                seen = wal.completed()
            loop.remove_reader(wake.fileno())
            appender.close()
            wal.close()

    asyncio.run(run())
    names = sorted(path.name for path in Path(directory).iterdir())
    assert len(names) > 5
    assert all(name.endswith(".wal") for name in names)
    assert reopen(directory) == saved


def test_a_cut_that_was_not_named_yet_is_finished_by_close(tmp_path: Path) -> None:
    directory = str(tmp_path / "wal")
    appender = Appender(Wake())
    wal = Wal.create(OsFiles(), directory, b"meta", appender, segment_bytes=SEGMENT_BYTES)
    saved = [LogEntry(1, 1, 0, bytes(SEGMENT_BYTES)), LogEntry(1, 2, 0, b"behind the cut")]
    for each in saved:
        wal.save(None, [each], True)
    appender.close()
    wal.close()
    assert len(list(Path(directory).iterdir())) == 2
    assert reopen(directory) == saved


def test_a_failed_write_is_final(tmp_path: Path) -> None:
    appender = Appender(Wake())
    wal = Wal.create(OsFiles(), str(tmp_path / "wal"), b"meta", appender, segment_bytes=SEGMENT_BYTES)
    os.close(wal._segments[-1].fd)
    wal.save(None, [LogEntry(1, 1, 0, b"lost")], True)
    appender.close()
    for _ in range(2):
        with pytest.raises(OSError, match="Bad file descriptor"):
            wal.completed()
