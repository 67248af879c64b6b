"""Parts of the proxies that need no process: the cache, the turn of endpoints, ranges within a namespace."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.proto.errors import COMPACTED
from pyetcd.proto.rpc_pb2 import RangeRequest
from pyetcd.proxy.cache import ENTRIES_MAX, RangeCache
from pyetcd.proxy.namespace import prefix_end, prefixed_span
from pyetcd.proxy.remotes import Remote, Remotes

KEYS = st.binary(min_size=1, max_size=2)
ENDS = st.one_of(st.just(b""), st.just(b"\0"), st.binary(min_size=1, max_size=2))


def holds(key: bytes, end: bytes, one: bytes) -> bool:
    """Whether a range has a key, as etcd means it."""
    if not end:
        return one == key
    return one >= key and (end == b"\0" or one < end)


@given(st.lists(st.tuples(KEYS, ENDS), max_size=20), KEYS)
def test_a_write_makes_every_range_that_has_its_key_forgotten_and_no_other(
    ranges: list[tuple[bytes, bytes]], written: bytes
) -> None:
    cache = RangeCache()
    requests = [RangeRequest(key=key, range_end=end, serializable=True) for key, end in ranges]
    for request in requests:
        cache.add(request, "", b"answer", 1)
    cache.invalidate(written)
    for request in requests:
        kept = cache.get(request, "") is not None
        assert kept != holds(request.key, request.range_end, written)


def test_answers_are_kept_by_token_and_the_oldest_make_room() -> None:
    cache = RangeCache()
    request = RangeRequest(key=b"k", serializable=True)
    cache.add(request, "root's", b"secret", 1)
    assert cache.get(request, "") is None
    assert cache.get(request, "root's") == b"secret"
    for number in range(ENTRIES_MAX):
        cache.add(RangeRequest(key=b"%d" % number), "", b"x", 1)
    assert len(cache) == ENTRIES_MAX
    assert cache.get(request, "root's") is None


def test_an_answer_older_than_a_write_is_not_kept() -> None:
    cache = RangeCache()
    cache.invalidate(b"k", b"", 7)
    cache.add(RangeRequest(key=b"k"), "", b"old", 6)
    assert cache.get(RangeRequest(key=b"k"), "") is None
    cache.add(RangeRequest(key=b"k"), "", b"new", 7)
    assert cache.get(RangeRequest(key=b"k", serializable=True), "") == b"new"


def test_what_is_compacted_is_said_to_be() -> None:
    cache = RangeCache()
    old = RangeRequest(key=b"k", revision=3)
    cache.add(old, "", b"x", 9)
    assert cache.get(old, "") == b"x"
    cache.compact(5)
    with pytest.raises(COMPACTED):
        cache.get(old, "")


def test_endpoints_of_the_best_priority_are_chosen_by_weight() -> None:
    remotes = [Remote("a", 1, 1, 0), Remote("b", 1, 0, 3), Remote("c", 1, 0, 1), Remote("d", 1, 0, 0)]
    turns = Remotes(remotes, random.Random(1))
    picked = [turns.pick() for _ in range(4000)]
    counts = {remote.host: picked.count(remote) for remote in remotes}
    assert counts["a"] == 0
    assert 2.5 < counts["b"] / counts["c"] < 3.5
    assert 0 < counts["d"] < 100
    for remote in remotes[1:]:
        remote.is_live = False
    assert turns.pick() is remotes[0]
    remotes[0].is_live = False
    assert turns.pick() is None


@given(st.binary(min_size=1, max_size=2), KEYS, ENDS, st.binary(max_size=3))
def test_a_range_in_a_namespace_is_the_same_range_below_the_prefix(
    prefix: bytes, key: bytes, end: bytes, one: bytes
) -> None:
    inner = prefixed_span(prefix, key, end)
    assert holds(*inner, prefix + one) == holds(key, end, one)
    if one < prefix or (prefix_end(prefix) != b"\0" and one >= prefix_end(prefix)):
        assert not holds(*inner, one)
