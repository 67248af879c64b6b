"""The log thread: order, shared fsyncs, errors that stay, and the wake-up."""

import os
import select

import pytest

from pyetcd._native import Appender, Wake


@pytest.fixture
def wake():
    return Wake()


@pytest.fixture
def appender(wake):
    made = Appender(wake)
    yield made
    made.close()


@pytest.fixture
def file(tmp_path):
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def wait_until(wake, appender, sequence):
    while appender.completed() < sequence:
        assert select.select([wake.fileno()], [], [], 10)[0], "the log thread never rang"
        wake.clear()


def contents(descriptor):
    return os.pread(descriptor, 1 << 26, 0)


def test_appends_are_numbered_and_land_at_their_offsets(wake, appender, file):
    assert appender.append(file, 0, b"hello ") == 1
    assert appender.append(file, 6, [b"wor", b"", b"ld"], sync=False) == 2
    assert appender.append(file, 20, (b"far",)) == 3
    wait_until(wake, appender, 3)
    assert contents(file) == b"hello world" + bytes(9) + b"far"


def test_a_later_append_to_the_same_place_wins(wake, appender, file):
    for number in range(500):
        appender.append(file, 0, b"%04d" % number, sync=number % 7 == 0)
    wait_until(wake, appender, 500)
    assert contents(file) == b"0499"


def test_appends_queued_during_an_fsync_share_the_next(wake, appender, file):
    sizes = [1, 1000, 70_000]
    data = [bytes([number % 251]) * sizes[number % 3] for number in range(600)]
    offset = 0
    for piece in data:
        last = appender.append(file, offset, piece)
        offset += len(piece)
    wait_until(wake, appender, last)
    assert contents(file) == b"".join(data)
    durations = appender.sync_seconds()
    assert 1 <= len(durations) < 600
    assert all(duration >= 0 for duration in durations)
    assert appender.sync_seconds() == []


def test_one_batch_may_span_files(wake, appender, file, tmp_path):
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    appender.append(file, 0, b"a", sync=False)
    appender.append(other, 0, b"b", sync=False)
    appender.append(file, 1, b"c")
    wait_until(wake, appender, appender.append(other, 1, b"d"))
    assert (contents(file), contents(other)) == (b"ac", b"bd")
    os.close(other)


def test_an_empty_append_completes(wake, appender, file):
    wait_until(wake, appender, appender.append(file, 0, b""))
    assert contents(file) == b""


def failing(kind, tmp_path):
    if kind == "read-only":
        (tmp_path / "sealed").write_bytes(b"")
        return os.open(tmp_path / "sealed", os.O_RDONLY), 9
    if kind == "full disk":
        return os.open("/dev/full", os.O_RDWR), 28
    return 9999, 9


@pytest.mark.parametrize("kind", ["read-only", "full disk", "closed"])
def test_the_first_error_is_final_and_nothing_after_it_happens(wake, appender, file, tmp_path, kind):
    wait_until(wake, appender, appender.append(file, 0, b"before"))
    bad, number = failing(kind, tmp_path)
    appender.append(bad, 0, b"lost")
    while True:
        assert select.select([wake.fileno()], [], [], 10)[0], "the failure was not announced"
        wake.clear()
        try:
            appender.completed()
        except OSError as error:
            assert error.errno == number  # noqa: PT017
            break
    appender.append(file, 6, b"after")
    for _ in range(2):
        with pytest.raises(OSError, match="pwrite"):
            appender.completed()
    appender.close()
    assert contents(file) == b"before"


def test_an_fsync_that_fails_is_an_error_too(wake, appender):
    # A pipe end can be neither written at an offset nor synced.
    reader, writer = os.pipe()
    appender.append(writer, 0, b"")
    with pytest.raises(OSError, match="fdatasync"):  # noqa: PT012
        while True:
            assert select.select([wake.fileno()], [], [], 10)[0]
            wake.clear()
            appender.completed()
    os.close(reader)
    os.close(writer)


def test_close_finishes_what_is_queued_and_refuses_more(wake, file):
    appender = Appender(wake)
    for number in range(100):
        appender.append(file, number, b"x")
    appender.close()
    assert appender.completed() == 100
    assert contents(file) == b"x" * 100
    with pytest.raises(ValueError, match="closed"):
        appender.append(file, 0, b"y")
    appender.close()


@pytest.mark.parametrize("data", ["text", [b"a", "b"], 7])
def test_only_bytes_can_be_appended(appender, file, data):
    with pytest.raises(TypeError):
        appender.append(file, 0, data)


def test_the_wake_is_readable_only_while_there_is_news(wake, appender, file):
    assert select.select([wake.fileno()], [], [], 0)[0] == []
    appender.append(file, 0, b"x")
    assert select.select([wake.fileno()], [], [], 10)[0]
    wake.clear()
    assert select.select([wake.fileno()], [], [], 0)[0] == []
    wake.clear()
