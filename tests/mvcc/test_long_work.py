"""Nothing long stops the loop: every slice of long work is short. Bounds are wide, for slow and shared
machines.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Generator, Iterator

import pytest
from mvcc_fakes import Background, Book, MemoryBackend

from pyetcd.mvcc.answer import Answer
from pyetcd.mvcc.record import key_of
from pyetcd.mvcc.store import Store
from pyetcd.proto.rpc_pb2 import DeleteRangeRequest, RangeRequest, RangeResponse

KEYS = 60_000
SLICE_SECONDS_MAX = 0.05  # they take 1 to 2 ms on an idle core


class Timed:
    """Runs jobs and remembers the longest slice, in seconds of this process's own time."""

    def __init__(self) -> None:
        self.longest = 0.0

    def run(self, job: Generator[None, None, object]) -> object:
        while True:
            began = time.process_time()
            try:
                next(job)
            except StopIteration as stop:
                return stop.value
            finally:
                self.longest = max(self.longest, time.process_time() - began)


class Full:
    def __init__(self) -> None:
        self.background = Background()
        self.store = Store(MemoryBackend(), Book(), self.background)
        for number in range(KEYS):
            self.store.put_simple(b"/registry/%08d" % (number * 7919 % KEYS), b"v" * 100)


@pytest.fixture(scope="module")
def full() -> Iterator[Full]:
    gc.disable()  # the server keeps the collector away from big maps; here it would find what pytest holds
    yield Full()
    gc.enable()


@pytest.mark.parametrize(
    "request_",
    [
        RangeRequest(key=b"\0", range_end=b"\0"),
        RangeRequest(key=b"\0", range_end=b"\0", revision=KEYS // 2),
        RangeRequest(
            key=b"\0", range_end=b"\0", sort_target=RangeRequest.MOD, sort_order=RangeRequest.DESCEND
        ),
        RangeRequest(
            key=b"\0",
            range_end=b"\0",
            sort_target=RangeRequest.VALUE,
            sort_order=RangeRequest.ASCEND,
            limit=5,
        ),
        RangeRequest(key=b"\0", range_end=b"\0", min_mod_revision=KEYS),
    ],
    ids=["all", "an old revision", "sorted", "the first by value", "filtered"],
)
def test_a_long_range_is_answered_in_short_slices(full: Full, request_: RangeRequest) -> None:
    timed = Timed()
    job = full.store.range(request_)
    assert not isinstance(job, Answer)
    answer = timed.run(job)
    assert isinstance(answer, Answer)
    assert timed.longest < SLICE_SECONDS_MAX
    response = RangeResponse.FromString(b"".join(answer.body))
    assert response.count >= KEYS // 2 - 1


def test_counting_needs_no_walk_now_or_shortly_ago(full: Full) -> None:
    revision = full.store.revision
    full.store.put_simple(b"/registry/new", b"v")
    full.store.delete_range(DeleteRangeRequest(key=b"/registry/new"))
    for at in (0, revision):
        began = time.process_time()
        answer = full.store.range(RangeRequest(key=b"\0", range_end=b"\0", count_only=True, revision=at))
        assert time.process_time() - began < 0.01
        assert isinstance(answer, Answer)
        assert RangeResponse.FromString(b"".join(answer.body)).count == KEYS


def test_paging_at_an_old_revision_while_others_write_costs_the_page_not_the_rest(full: Full) -> None:
    store = full.store
    revision = store.revision
    start, seen, left = b"/registry/", 0, KEYS
    longest = 0.0
    while True:
        began = time.process_time()
        answer = store.range(RangeRequest(key=start, range_end=b"/registry0", limit=500, revision=revision))
        longest = max(longest, time.process_time() - began)
        assert isinstance(answer, Answer), "a page is answered at once"
        response = RangeResponse.FromString(b"".join(answer.body))
        assert response.count == left
        seen += len(response.kvs)
        left -= len(response.kvs)
        if not response.more:
            break
        start = response.kvs[-1].key + b"\0"
        for number in range(20):
            store.put_simple(b"/registry/%08d-%d" % (seen + number * 50, number), b"fresh")
        store.delete_range(DeleteRangeRequest(key=b"/registry/%08d" % (seen + 100)))
    assert (seen, left) == (KEYS, 0)
    assert longest < SLICE_SECONDS_MAX


def test_deleting_most_keys_takes_a_moment_and_then_short_slices(full: Full) -> None:
    timed = Timed()
    began = time.process_time()
    answer = full.store.delete_range(
        DeleteRangeRequest(key=b"/registry/00010000", range_end=b"/registry/0005")
    )
    assert time.process_time() - began < SLICE_SECONDS_MAX
    assert isinstance(answer, Answer)
    while full.background.jobs:
        timed.run(full.background.jobs.pop())
    assert timed.longest < SLICE_SECONDS_MAX
    reader = full.store.events(full.store.revision)
    changes = reader.read(full.store.revision, 100)
    assert [change.key for change in changes] == sorted(change.key for change in changes)
    assert key_of(changes[0].record) == changes[0].key


def test_a_hash_is_taken_in_short_slices(full: Full) -> None:
    timed = Timed()
    timed.run(full.store.hash_kv(0))
    assert timed.longest < SLICE_SECONDS_MAX
