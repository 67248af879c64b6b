"""Logs: lines in zap's shape, and outputs that never make their writer wait."""

import gzip
import json
import os
import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyetcd import logs
from pyetcd.logs import gotext, sinks
from pyetcd.logs.files import File, Rotation
from pyetcd.logs.journal import Journal
from pyetcd.logs.sinks import Sink, Writer, WriterLoop


class Memory:
    """Keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, bytes]] = []

    def write(self, level: int, line: bytes) -> None:
        self.lines.append((level, line))

    def attach(self, loop: WriterLoop | None) -> None: ...
    def flush(self, timeout_seconds: float) -> None: ...
    def close(self) -> None: ...

    def objects(self) -> list[dict[str, object]]:
        return [json.loads(line) for _, line in self.lines]


@pytest.fixture
def memory() -> Iterator[Memory]:
    sink = Memory()
    logs.setup("debug", "json", [sink])
    yield sink
    logs.setup("info", "json", [Writer(2)])


log = logs.get("test")


def test_a_line_is_compact_json_with_zaps_keys_in_order(memory: Memory) -> None:
    log.info("ready", {"size": 1, "name": "a"})
    (level, line), *_ = memory.lines
    assert level == logs.INFO
    assert re.fullmatch(
        rb'\{"level":"info","ts":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d{4})",'
        rb'"caller":"tests/test_logs.py:\d+","msg":"ready","size":1,"name":"a"\}\n',
        line,
    )


def test_values_are_rendered_as_go_renders_them(memory: Memory) -> None:
    log.warn(
        "values",
        {
            "took": timedelta(seconds=90.5),
            "bytes": b"k\xff",
            "list": ["a", 1],
            "tuple": ("a",),
            "error": ValueError("broken"),
            "nested": {"d": timedelta(milliseconds=1)},
            "none": None,
            "text": 'q"\n\u20ac',
        },
    )
    assert b'"text":"q\\"\\n\xe2\x82\xac"' in memory.lines[0][1]
    found = memory.objects()[0]
    assert {key: found[key] for key in list(found)[4:]} == {
        "took": "1m30.5s",
        "bytes": "k\ufffd",
        "list": ["a", 1],
        "tuple": ["a"],
        "error": "broken",
        "nested": {"d": "1ms"},
        "none": None,
        "text": 'q"\n\u20ac',
    }


def test_odd_values_cost_at_most_their_form(memory: Memory) -> None:
    loop: list[object] = []
    loop.append(loop)
    log.info("odd", {"nan": float("nan"), "inf": [float("-inf")], "loop": loop, "keys": {1: {(2, 3): "x"}}})
    found = memory.objects()[0]
    assert (found["nan"], found["inf"]) == ("NaN", ["-Inf"])
    assert found["keys"] == {"1": {"(2, 3)": "x"}}
    log.info("surrogate \udc80", {"a": "\udc80"})
    assert memory.objects()[1]["a"] == "?"


def test_an_unforeseen_error_brings_its_traceback(memory: Memory) -> None:
    try:
        raise RuntimeError("boom")
    except RuntimeError as error:
        log.warn("failed", {"call": 1}, exc=error)
    found = memory.objects()[0]
    assert (found["error"], found["call"]) == ("boom", 1)
    assert "test_an_unforeseen_error_brings_its_traceback" in str(found["stacktrace"])


def test_levels_below_the_threshold_are_not_written(memory: Memory) -> None:
    logs.set_level("warn")
    for write in (log.debug, log.info, log.warn, log.error, log.fatal):
        write(write.__name__)
    assert [found["level"] for found in memory.objects()] == ["warn", "error", "fatal"]
    assert not log.enabled(logs.INFO)


def test_console_format_is_zaps(memory: Memory) -> None:
    logs.setup("info", "console", [memory])
    log.info("updated", {"storage-version": "3.7", "list": [1, 2]})
    log.info("bare")
    first, second = (line.decode() for _, line in memory.lines)
    assert first.split("\t")[1] == "info"
    assert (
        first.split("\t", 2)[2].partition("\t")[2] == 'updated\t{"storage-version": "3.7", "list": [1, 2]}\n'
    )
    assert second.endswith("\tbare\n")


def test_a_storm_of_one_message_is_thinned(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs.time, "time_ns", lambda: 5_000_000_000)
    for _ in range(350):
        log.info("again")
    log.info("other")
    assert len(memory.lines) == 100 + 2 + 1
    monkeypatch.setattr(logs.time, "time_ns", lambda: 6_000_000_000)
    log.info("again")
    assert len(memory.lines) == 104


def test_a_room_has_one_log() -> None:
    assert logs.get("test") is log


class Loop:
    """An event loop of which only writers, and calls from other threads, are looked at."""

    def __init__(self) -> None:
        self.writers: dict[int, Callable[[], object]] = {}
        self.calls: list[Callable[[], object]] = []
        self.closed = False

    def add_writer(self, fd: int, callback: Callable[[], object], /) -> None:
        self.writers[fd] = callback

    def remove_writer(self, fd: int, /) -> None:
        del self.writers[fd]

    def call_soon_threadsafe(self, callback: Callable[[], object], /) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.calls.append(callback)


def read_all(fd: int) -> bytes:
    parts = []
    while select.select([fd], [], [], 0)[0]:
        parts.append(os.read(fd, 1 << 16))
        if not parts[-1]:
            break
    return b"".join(parts)


def test_a_reader_that_stalls_delays_nobody_and_gets_its_lines_later() -> None:
    reader, writer = os.pipe()
    sink, loop = Writer(writer), Loop()
    sink.attach(loop)
    sent = [b"%06d" % number + b"x" * 1000 + b"\n" for number in range(500)]
    for line in sent:
        sink.write(1, line)
    assert list(loop.writers) == [writer], "the pipe is full, the rest waits for the loop"
    got = read_all(reader)
    while loop.writers:
        loop.writers[writer]()
        got += read_all(reader)
    assert got == b"".join(sent)
    os.close(reader)
    os.close(writer)


@pytest.fixture
def attached(memory: Memory) -> Iterator[Loop]:
    loop = Loop()
    logs.attach(loop)
    yield loop
    logs.attach(None)


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_a_line_of_another_thread_is_written_by_the_loops(memory: Memory, attached: Loop) -> None:
    in_a_thread(lambda: log.info("from a thread"))
    assert memory.lines == []
    log.info("from the loop")
    attached.calls.pop()()
    assert [line["msg"] for line in memory.objects()] == ["from the loop", "from a thread"]


def test_once_the_loop_is_closed_a_thread_writes_its_lines_itself(memory: Memory, attached: Loop) -> None:
    attached.closed = True
    in_a_thread(lambda: log.info("late"))
    assert [line["msg"] for line in memory.objects()] == ["late"]


def test_what_a_stalled_reader_leaves_behind_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "PENDING_BYTES_MAX", 10_000)
    reader, writer = os.pipe()
    sink = Writer(writer)
    for _ in range(300):
        sink.write(1, b"x" * 999 + b"\n")
    assert sink.dropped > 0
    got = read_all(reader)
    sink.flush(1)
    got += read_all(reader)
    assert len(got) == (300 - sink.dropped) * 1000
    os.close(reader)
    os.close(writer)


def test_a_flush_gives_up_in_time() -> None:
    reader, writer = os.pipe()
    sink = Writer(writer)
    for _ in range(100):
        sink.write(1, b"x" * 1000)
    sink.flush(0.01)
    sink.close()
    os.close(reader)
    os.close(writer)


def test_a_broken_pipe_harms_nobody() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    sink = Writer(writer)
    sink.write(1, b"line\n")
    sink.flush(1)
    os.close(writer)


def test_log_files_are_private_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "etcd.log"
    for _ in range(2):
        sink = File(str(path))
        sink.write(1, b"line\n")
        sink.close()
    assert path.read_bytes() == b"line\nline\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_rotation_keeps_the_newest_backups(tmp_path: Path) -> None:
    path = tmp_path / "etcd.log"
    sink: Sink = File(str(path), Rotation(max_megabytes=1, max_backups=2))
    half = b"x" * (600 << 10) + b"\n"
    for number in range(5):
        sink.write(1, b"%d" % number + half)
        # names carry milliseconds: two rotations within one would share a backup
        select.select([], [], [], 0.002)
    sink.close()
    backups = sorted(entry for entry in tmp_path.iterdir() if entry != path)
    assert [entry.read_bytes()[:1] for entry in (*backups, path)] == [b"2", b"3", b"4"]
    assert all(
        re.fullmatch(r"etcd-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}\.log", entry.name) for entry in backups
    )


def test_rotation_compresses_and_forgets_by_age(tmp_path: Path) -> None:
    path = tmp_path / "etcd.log"
    old = tmp_path / "etcd-2001-01-01T00-00-00.000.log"
    other = tmp_path / "etcd-other.log"
    old.write_bytes(b"old")
    other.write_bytes(b"other")
    sink = File(str(path), Rotation(max_megabytes=1, max_age_days=30, compress=True))
    for _ in range(2):
        sink.write(1, b"y" * (700 << 10))
    sink.close()
    assert not old.exists()
    assert other.exists()
    (packed,) = tmp_path.glob("*.gz")
    assert gzip.decompress(packed.read_bytes()) == b"y" * (700 << 10)


def test_the_journal_gets_level_and_line(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(address)
        fallback = Memory()
        sink = Journal(fallback, address)
        sink.write(logs.WARN, b'{"msg":"a"}\n')
        line = b'{"msg":"a"}'
        assert journal.recv(4096) == (
            b"PRIORITY=4\nSYSLOG_IDENTIFIER=etcd\nMESSAGE\n" + struct.pack("<Q", len(line)) + line + b"\n"
        )
    sink.write(logs.INFO, b"lost\n")
    assert fallback.lines == [(logs.INFO, b"lost\n")]
    sink.close()


def test_no_journal_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Journal(Memory(), str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (1_500_000, "1.5ms"),
        (61_250_000_000, "1m1.25s"),
        (3_600_000_000_000, "1h0m0s"),
        (5_400_000_000_001, "1h30m0.000000001s"),
        (-2_000_000_000, "-2s"),
    ],
)
def test_durations_are_printed_as_go_prints_them(ns: int, text: str) -> None:
    assert gotext.duration_ns(ns) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_printed_duration_reads_back_as_itself(ns: int) -> None:
    assert gotext.parse_duration_ns(gotext.duration_ns(ns)) == ns


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1h15m30.918s", 4_530_918_000_000),
        ("-1.5h", -5_400_000_000_000),
        ("+5s", 5_000_000_000),
        ("0", 0),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("3us", 3_000),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, ns: int) -> None:
    assert gotext.parse_duration_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'time: invalid duration ""'),
        ("abc", 'time: invalid duration "abc"'),
        ("-", 'time: invalid duration "-"'),
        (".s", 'time: invalid duration ".s"'),
        ("5", 'time: missing unit in duration "5"'),
        ("5d", 'time: unknown unit "d" in duration "5d"'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
    ],
)
def test_bad_durations_are_refused_in_gos_words(text: str, error: str) -> None:
    with pytest.raises(gotext.GoValueError) as caught:
        gotext.parse_duration_ns(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "number"),
    [("0x1F", 31), ("010", 8), ("0b11", 3), ("0o17", 15), ("1_000", 1000), ("-7", -7), ("0", 0)],
)
def test_integers_take_gos_prefixes(text: str, number: int) -> None:
    assert gotext.parse_int(text) == number


@pytest.mark.parametrize("text", ["", "abc", "08", "1__0", "_1", "0x", "1.5", "٣"])
def test_bad_integers_are_refused(text: str) -> None:
    with pytest.raises(gotext.GoValueError, match="invalid syntax"):
        gotext.parse_int(text)


def test_integers_out_of_range_are_told_apart() -> None:
    with pytest.raises(gotext.GoRangeError):
        gotext.parse_uint("4294967296", 32)
    with pytest.raises(gotext.GoRangeError):
        gotext.parse_int("9223372036854775808")
    assert gotext.parse_int("-9223372036854775808") == -(2**63)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a b", '"a b"'),
        ('a"\\', '"a\\"\\\\"'),
        ("\n\x00", '"\\n\\x00"'),
        ("é", '"é"'),
        ("\udc80", '"\\x80"'),
        ("\u200b", '"\\u200b"'),
    ],
)
def test_text_is_quoted_as_go_quotes_it(text: str, quoted: str) -> None:
    assert gotext.quote(text) == quoted
