"""After a crash: is everything there that must be, and nothing else?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from crash_load import SUM, Effect, Ledger
from crash_member import Crashable

from pyetcd.proto.kv_pb2 import Event, KeyValue
from pyetcd.proto.rpc_pb2 import (
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    RangeRequest,
    RangeResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

WATCH_SECONDS = 30


def check(member: Crashable, ledger: Ledger) -> int:
    """The member has just been started again. Settles what was unknown, and compares everything to the
    ledger. Returns the current revision."""
    revision = member.range(b"\0").header.revision
    assert revision >= ledger.seen, "the revision went back"
    base = _compacted(member, ledger)
    events = history(member, max(base + 1, 2), revision)
    _settle(ledger, events, base)
    assert sorted(ledger.effects) == list(range(2, revision + 1)), "every revision is somebody's"
    for number in range(max(base + 1, 2), revision + 1):
        assert _effect(events[number]) == ledger.effects[number], number
    _compare(at(member, revision), ledger, revision)
    if base > 1:
        _compare(at(member, base), ledger, base)
    _replay(member, ledger, base, revision, events)
    _check_leases(member, ledger)
    ledger.seen = revision
    return revision


def at(member: Crashable, revision: int) -> dict[bytes, KeyValue]:
    """All keys at a revision."""
    request = RangeRequest(key=b"\0", range_end=b"\0", revision=revision)
    found = member.call("KV/Range", request, RangeResponse)
    assert isinstance(found, RangeResponse)
    return {kv.key: kv for kv in found.kvs}


@contextmanager
def watching(member: Crashable, create: WatchCreateRequest) -> Iterator[Iterator[WatchResponse]]:
    """The responses of one watch on a stream of its own."""
    method = member.channel.stream_stream(
        "/etcdserverpb.Watch/Watch",
        request_serializer=WatchRequest.SerializeToString,
        response_deserializer=WatchResponse.FromString,
    )
    done = threading.Event()

    def requests() -> Iterator[WatchRequest]:
        yield WatchRequest(create_request=create)
        done.wait(WATCH_SECONDS)  # a stream that is half closed ends

    stream = method(requests(), timeout=WATCH_SECONDS)
    try:
        yield stream
    finally:
        done.set()
        stream.cancel()


def history(member: Crashable, start: int, end: int) -> dict[int, list[Event]]:
    """All events of the revisions from `start` (2 or more) to `end`, as a watch tells them."""
    events: dict[int, list[Event]] = {}
    if start > end:
        return events
    create = WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=start, prev_kv=True)
    with watching(member, create) as responses:
        for response in responses:
            assert not response.canceled, response
            for event in response.events:
                events.setdefault(event.kv.mod_revision, []).append(event)
            if events and max(events) >= end:
                break
    assert list(events) == sorted(events), "in order"
    return events


def _compacted(member: Crashable, ledger: Ledger) -> int:
    """The compacted revision: the acknowledged one, or the one of unknown outcome."""
    if ledger.unknown_compaction:
        found = 0
        with watching(member, WatchCreateRequest(key=b"no such key", start_revision=1)) as responses:
            assert next(responses).created
            if ledger.compacted:
                found = next(responses).compact_revision
            else:  # there may be nothing to come
                first = RangeRequest(key=b"\0", revision=1)
                try:
                    member.call("KV/Range", first, RangeResponse)
                except grpc.RpcError as error:
                    if "compacted" not in str(error.details()):
                        raise
                    found = next(responses).compact_revision
        assert found in (ledger.compacted, ledger.unknown_compaction)
        ledger.compacted = found
        ledger.unknown_compaction = 0
    return ledger.compacted


def _effect(events: list[Event]) -> Effect:
    return {event.kv.key: event.kv.value if event.type == Event.PUT else None for event in events}


def _settle(ledger: Ledger, events: dict[int, list[Event]], base: int) -> None:
    """Find what became of the requests of unknown outcome: whole revisions that nobody else claims."""
    unknown = ledger.unknown_effects
    for number in sorted(events):
        if number not in ledger.effects:
            effect = _effect(events[number])
            assert effect in unknown, f"revision {number} is nobody's: {effect}"
            unknown.remove(effect)
            ledger.effects[number] = effect
    unknown.clear()


def _compare(found: dict[bytes, KeyValue], ledger: Ledger, revision: int) -> None:
    assert {key: kv.value for key, kv in found.items()} == ledger.state(revision)
    for name in (b"m1", b"m2"):
        amounts = [int(kv.value) for key, kv in found.items() if key.startswith(name)]
        assert sum(amounts) in (0, SUM), "half of a transaction"


def _replay(
    member: Crashable, ledger: Ledger, base: int, revision: int, events: dict[int, list[Event]]
) -> None:
    """The history leads from the oldest state there is to the present one, in every field."""
    state = at(member, base) if base > 1 else {}
    for number in sorted(events):
        for event in events[number]:
            before = state.get(event.kv.key)
            if base <= 1 or (before is not None and before.mod_revision > base):
                assert (event.prev_kv if event.HasField("prev_kv") else None) == before
            if event.type == Event.DELETE:
                del state[event.kv.key]
            else:
                assert event.kv.version == (before.version + 1 if before is not None else 1)
                assert event.kv.create_revision == (before.create_revision if before is not None else number)
                state[event.kv.key] = event.kv
    assert state == at(member, revision)


def _check_leases(member: Crashable, ledger: Ledger) -> None:
    answer = member.call("Lease/LeaseLeases", LeaseLeasesRequest(), LeaseLeasesResponse)
    assert isinstance(answer, LeaseLeasesResponse)
    found = {lease.ID for lease in answer.leases}
    assert found >= ledger.leases - ledger.unknown_revokes, "an acknowledged lease is lost"
    assert found <= ledger.leases | ledger.unknown_grants, "a revoked lease is back"
    ledger.leases = found
    ledger.unknown_grants.clear()
    ledger.unknown_revokes.clear()
