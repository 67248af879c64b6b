"""Times of entries and requests: every one counted, slow ones told."""

from __future__ import annotations

import json

import pytest

from pyetcd.member.apply_times import GROUP_MAX, Groups
from pyetcd.member.phases import Phases
from pyetcd.member.request_text import proposal_text, request_text
from pyetcd.member.request_times import GATHERED_MAX, RequestTimes
from pyetcd.member.slow_requests import SlowRequests
from pyetcd.metrics import HistogramVec, Registry
from pyetcd.mvcc.answer import Answer
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest, RequestHeader
from pyetcd.proto.rpc_pb2 import (
    AlarmRequest,
    AuthUserAddRequest,
    Compare,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)

PUT, TXN = InternalRaftRequest.PUT_FIELD_NUMBER, InternalRaftRequest.TXN_FIELD_NUMBER
REQUEST = PutRequest(key=b"k", value=b"v")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def times_of(clock: Clock, warn_seconds: float) -> RequestTimes:
    return RequestTimes(clock, warn_seconds, SlowRequests(clock, Phases(clock)))


def entry(request: PutRequest, request_id: int) -> bytes:
    """As this member writes it: the header first."""
    header = RequestHeader(ID=request_id).SerializeToString()
    payload = request.SerializeToString()
    return b"\xa2\x06" + bytes([len(header)]) + header + b"\x22" + bytes([len(payload)]) + payload


def shown(family: HistogramVec) -> dict[str, float]:
    """Counts and sums of a family, by their labels."""
    registry = Registry()
    registry.add(family)
    lines = registry.expose().decode().splitlines()
    numbers = dict(line.rsplit(" ", 1) for line in lines if "_bucket" not in line and line[0] != "#")
    return {name.partition("seconds_")[2]: float(value) for name, value in numbers.items()}


def told(captured: pytest.CaptureFixture[str], message: str) -> list[dict[str, object]]:
    lines = (json.loads(line) for line in captured.readouterr().err.splitlines())
    return [line for line in lines if line["msg"] == message]


def test_entries_of_a_group_share_its_time_and_each_waited_its_own() -> None:
    clock = Clock()
    times = times_of(clock, 10.0)
    groups = Groups(times, lambda: 0)
    groups.open(PUT)
    for since in (99.0, 99.5):
        groups.since.append(since)
    groups.unanswered += 1
    clock.now += 0.3
    groups.count()
    groups.open(TXN)
    groups.since.append(100.2)
    clock.now += 0.1
    groups.count()
    labels = '{op="Put",success="true",version="v3"}'
    applied = shown(times.apply_duration)
    assert applied[f"count{labels}"] == 3
    assert applied[f"sum{labels}"] == pytest.approx(0.3)
    assert applied['sum{op="Txn",success="true",version="v3"}'] == pytest.approx(0.1)
    answered = shown(times.request_duration)
    assert answered['count{success="true",type="Put"}'] == 2
    assert answered['sum{success="true",type="Put"}'] == pytest.approx(1.3 + 0.8)
    assert answered['sum{success="true",type="Txn"}'] == pytest.approx(0.2)


def test_an_entry_that_goes_its_own_way_takes_its_share_along() -> None:
    clock = Clock()
    times = times_of(clock, 10.0)
    groups = Groups(times, lambda: 0)
    groups.open(PUT)
    groups.since += [99.0, 99.0]
    clock.now += 0.3
    assert groups.leave() == pytest.approx(100.2)
    labels = '{op="Put",success="true",version="v3"}'
    assert shown(times.apply_duration)[f"sum{labels}"] == pytest.approx(0.2)
    groups.open(PUT)
    assert groups.leave() == pytest.approx(clock.now), "alone in its group"


def test_a_new_group_begins_when_its_first_entry_comes() -> None:
    clock = Clock()
    times = times_of(clock, 10.0)
    groups = Groups(times, lambda: 0)
    groups.open(PUT)
    groups.count()
    clock.now += 5
    groups.open(PUT)
    groups.since.append(104.0)
    clock.now += 0.25
    groups.count()
    assert shown(times.apply_duration)['sum{op="Put",success="true",version="v3"}'] == 0.25


@pytest.mark.parametrize(("warn_seconds", "mask"), [(0.1, GROUP_MAX - 1), (0.001, 0), (1e-9, 0)])
def test_groups_are_single_entries_where_the_limit_is_short(warn_seconds: float, mask: int) -> None:
    assert Groups(times_of(Clock(), warn_seconds), lambda: 0).mask == mask


def test_a_slow_group_is_told_by_its_last_entry(capfd: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    times = times_of(clock, 0.1)
    groups = Groups(times, lambda: 0)
    for last in ((PUT, REQUEST, entry(REQUEST, 7), Answer(300, (b"abc",))), None):
        groups.open(PUT)
        groups.since.append(99.0)
        clock.now += 0.25
        groups.count(last)
    first, second = told(capfd, "apply request took too long")
    assert (first["took"], first["expected-duration"], first["prefix"]) == ("250ms", "100ms", "")
    assert first["request"] == 'header:<ID:7 > put:<key:"k" value_size:1>'
    assert first["response"] == "size:8", "three bytes of header, two of the revision, three more"
    assert second["request"] == "entries of kind Put"
    assert times.slow == 2


def test_reads_are_counted_and_slow_ones_told(capfd: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    times = times_of(clock, 0.5)
    clock.now = 102.0
    record = bytes.fromhex("0a016b10022002")
    answer = Answer(2, (b"\x12" + bytes([len(record)]), record, b"\x20\x01"))
    times.read(RangeRequest(key=b"k"), 100.0, 101.5, answer, None)
    times.read(RangeRequest(key=b"k", revision=9), 101.75, 101.75, None, ValueError("gone"))
    times.read(RangeRequest(key=b"k"), 100.0, 0.0, None, ValueError("no leader"))
    times.read(TxnRequest(), 100.0, 101.75, Answer(2, ()), None)
    times.ranged(0.25)
    times.fold()
    requests = shown(times.request_duration)
    assert requests['sum{success="true",type="Range"}'] == 2.25
    assert requests['sum{success="false",type="Range"}'] == 2.25
    assert requests['sum{success="true",type="ReadonlyTxn"}'] == 0.25, (
        "its waiting does not count, as in etcd"
    )
    ranges = shown(times.range_duration)
    assert ranges == {
        'sum{success="true"}': 0.75,
        'count{success="true"}': 2,
        'sum{success="false"}': 0.25,
        'count{success="false"}': 1,
    }, "what never began to read was no range"
    slow = told(capfd, "apply request took too long")
    assert [line["prefix"] for line in slow] == ["read-only range "] * 2
    assert slow[0]["response"] == "range_response_count:1 size:15"
    assert (slow[1]["response"], slow[1]["error"]) == ("", "no leader")


def test_what_has_gathered_is_counted_once_there_is_enough_of_it() -> None:
    times = times_of(Clock(), 1.0)
    for _ in range(GATHERED_MAX - 1):
        times.ranged(0.1)
    times.settle()
    assert sum(times.range_duration.cell("true").counts) == 0
    times.ranged(0.1)
    times.settle()
    assert sum(times.range_duration.cell("true").counts) == GATHERED_MAX


def test_requests_are_shown_without_values_and_secrets() -> None:
    put = RequestOp(request_put=PutRequest(key=b"p", value=b"secret", prev_kv=True))
    txn = TxnRequest(
        compare=[
            Compare(result=1, target=3, key=b"k", value=b"secret", range_end=b"l"),
            Compare(key=b"z", version=0),
        ],
        success=[put, RequestOp(request_txn=TxnRequest(failure=[put]))],
        failure=[RequestOp(request_range=RangeRequest(key=b"\x00\xff", sort_order=2, limit=3))],
    )
    assert request_text(txn) == (
        'compare:<result:GREATER target:VALUE key:"k" value_size:6 range_end:"l" key:"z" version:0> '
        'success:<request_put:<key:"p" value_size:6 prev_kv:true> '
        'request_txn:<compare:<> success:<> failure:<request_put:<key:"p" value_size:6 prev_kv:true>>>> '
        'failure:<request_range:{key:"\\x00\\xff" limit:3 sort_order:DESCEND}>'
    )
    user = AuthUserAddRequest(name="ann", password="secret", hashedPassword="hidden")
    assert proposal_text(1100, user, 3) == 'header:<ID:3 > auth_user_add:<name:"ann">'
    assert proposal_text(8, LeaseGrantRequest(TTL=5, ID=1), 3) == "header:{ID:3} lease_grant:{TTL:5 ID:1}"
    alarm = AlarmRequest(action=1, memberID=9, alarm=1)
    assert proposal_text(10, alarm, 3) == "header:{ID:3} alarm:{action:ACTIVATE memberID:9 alarm:NOSPACE}"
