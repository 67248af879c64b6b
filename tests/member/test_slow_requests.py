"""Phases of writes, and the lines about slow requests."""

from __future__ import annotations

import json

import pytest

from pyetcd.member.phases import BATCHES_MAX, Phases, Spent
from pyetcd.member.slow_requests import LINES_PER_SECOND, SlowRequests
from pyetcd.proto.plain_put import PlainPut
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import CompactionRequest, DeleteRangeRequest, RangeRequest, TxnRequest
from pyetcd.raft import Entry

PUT, TXN = InternalRaftRequest.PUT_FIELD_NUMBER, InternalRaftRequest.TXN_FIELD_NUMBER
COMPACTION = InternalRaftRequest.COMPACTION_FIELD_NUMBER
DELETE_RANGE = InternalRaftRequest.DELETE_RANGE_FIELD_NUMBER


class Log:
    """A member's log that goes through its stations at moments of the test's choosing."""

    def __init__(self) -> None:
        self.now = 0.0
        self.phases = Phases(lambda: self.now)
        self.slow = SlowRequests(lambda: self.now, self.phases)

    def propose(self, at: float) -> None:
        self.now = at
        self.phases.proposed()

    def append(self, at: float, *indexes: int, term: int = 1) -> None:
        self.now = at
        self.phases.appended([Entry(term, index, 0, b"", 0) for index in indexes])

    def durable(self, at: float) -> None:
        self.now = at
        self.phases.durable()

    def commit(self, at: float, last: int) -> None:
        self.now = at
        self.phases.committed(last)

    def of(self, index: int, since: float, ended: float) -> tuple[float, ...]:
        spent = self.phases.of(index, since, ended)
        assert spent is not None
        return tuple(round(seconds, 6) for seconds in spent)


def traces(captured: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    lines = (json.loads(line) for line in captured.readouterr().err.splitlines())
    return [line for line in lines if line["msg"] == "trace"]


def test_the_phases_of_a_write_add_up_to_all_of_its_time() -> None:
    log = Log()
    log.propose(100.2)
    log.append(100.2, 5, 6)
    log.append(100.3, 7)
    log.durable(100.7)
    log.durable(100.75)
    log.commit(101.0, 6)
    log.commit(101.5, 7)
    assert log.of(6, 100.0, 101.1) == (0.2, 0.3, 0.5, 0.1)
    assert log.of(7, 0.0, 101.6) == (0.0, 0.75, 0.45, 0.1), "nobody here waited for it"


def test_what_a_follower_has_handed_to_the_leader_spends_the_way_there_in_raft() -> None:
    log = Log()
    log.propose(100.1)
    log.append(101.1, 9)
    log.durable(101.2)
    log.commit(101.4, 9)
    assert log.of(9, 100.0, 101.4) == (0.1, 1.2, 0.1, 0.0)


def test_an_entry_that_was_replaced_counts_from_its_replacement() -> None:
    log = Log()
    log.append(100.0, 5, 6)
    log.durable(100.1)
    log.append(103.0, 6, term=2)
    log.durable(103.5)
    log.commit(103.6, 6)
    assert log.of(6, 0.0, 103.6) == (0.0, 0.1, 0.5, 0.0)


def test_nothing_is_said_of_entries_whose_stamps_are_gone_or_not_there_yet() -> None:
    log = Log()
    assert log.phases.of(1, 0.0, 1.0) is None
    for index in range(1, BATCHES_MAX + 2):
        log.append(1.0, index)
        assert log.phases.of(index, 0.0, 1.0) is None, "not durable"
        log.durable(1.0)
        assert log.phases.of(index, 0.0, 1.0) is None, "not committed"
        log.commit(1.0, index)
    assert log.phases.of(1, 0.0, 2.0) is None
    assert log.of(2, 0.0, 2.0) == (0.0, 0.0, 0.0, 1.0)


def test_the_longest_phase_is_named() -> None:
    assert Spent(0.1, 0.2, 0.3, 0.1).longest == "fsync"
    assert Spent(0.4, 0.2, 0.3, 0.1).longest == "queue"


def test_a_slow_write_is_told_in_etcds_form_with_its_phases(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.propose(100.01)
    log.append(100.01, 5)
    log.durable(100.26)
    log.commit(100.27, 5)
    log.slow.wrote(PUT, PlainPut(b'k"', b"secret", 0), 5, 100.0, 100.28, 100.29, 300)
    (line,) = traces(capfd)
    assert line["level"] == "info"
    assert line["operation"] == "put"
    assert line["detail"] == '{key:k"; req_size:12; response_revision:300; }'
    assert line["duration"] == "290ms"
    assert line["steps"] == ["'process raft request'  (duration: 280ms)", "'apply'  (duration: 10ms)"]
    assert line["step_count"] == 2
    assert {"trace_id", "start", "end"} < line.keys()
    phases = [line[name] for name in ("queue", "raft", "fsync", "apply")]
    assert (phases, line["longest-phase"]) == (["10ms", "10ms", "250ms", "20ms"], "fsync")


def test_other_slow_requests_have_etcds_names_for_what_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.slow.wrote(TXN, TxnRequest(), 5, 100.0, 100.2, 100.2, 0)
    log.slow.wrote(COMPACTION, CompactionRequest(revision=7), 5, 100.0, 100.2, 100.2, 9)
    log.slow.wrote(DELETE_RANGE, DeleteRangeRequest(key=b"a", range_end=b"b"), 5, 100.0, 100.2, 100.2, 9)
    log.slow.read(RangeRequest(key=b"a"), 100.0, 100.2, 100.25, 3, 9)
    log.slow.read(TxnRequest(), 100.0, 0.0, 107.0, None, 0)
    log.slow.agreed(100.0, 100.2, 100.3, 12, 10)
    told = [(line["operation"], line["detail"]) for line in traces(capfd)]
    assert told == [
        ("transaction", "{read_only:false; }"),
        ("compact", "{revision:7; response_revision:9; }"),
        ("delete_range", "{key:a; range_end:b; response_revision:9; }"),
        ("range", "{range_begin:a; range_end:; response_count:3; response_revision:9; }"),
        ("transaction", "{read_only:true; }"),
        ("linearizableReadLoop", "{readStateIndex:12; appliedIndex:10; }"),
    ]


def test_a_thousand_slow_requests_at_once_are_not_a_thousand_lines(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.now = 100.0
    put = PlainPut(b"k", b"v", 0)
    for _ in range(1000):
        log.slow.wrote(PUT, put, 5, 99.0, 99.9, 100.0, 0)
    log.now = 101.0
    log.slow.wrote(PUT, put, 5, 100.0, 100.9, 101.0, 0)
    lines = traces(capfd)
    assert len(lines) == LINES_PER_SECOND + 1
    assert lines[-1]["left-out"] == 1000 - LINES_PER_SECOND
