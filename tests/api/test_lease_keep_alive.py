"""Keep-alive streams by themselves: the order of answers, what holds a stream up, how it ends."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf.message import Message

from pyetcd._native import Meta
from pyetcd.api.keep_alive import BACKLOG_BYTES, OVERRUN, WAITING_MAX, Answers, KeepAlive
from pyetcd.api.leadership import Leadership
from pyetcd.api.watch import MALFORMED
from pyetcd.member.config import ServerConfig
from pyetcd.member.features import FeatureGates
from pyetcd.member.leases import CHECKPOINT, REVOKE, Leases
from pyetcd.mvcc.answer import Answer
from pyetcd.proto import errors
from pyetcd.proto.errors import INTERNAL, OK, RESOURCE_EXHAUSTED, UNAVAILABLE, EtcdError
from pyetcd.proto.rpc_pb2 import (
    LeaseCheckpointRequest,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
)
from pyetcd.proto.splice import response_header

CALL = 5
TTL = 10


class Loop:
    def __init__(self) -> None:
        self.now = 1000.0
        self.soon: deque[Callable[[], object]] = deque()
        self.timers: list[tuple[float, int, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[[], object], /) -> None:
        self.soon.append(callback)

    def call_at(self, when: float, callback: Callable[[], object], /) -> Any:
        entry = (when, len(self.timers), callback)
        heapq.heappush(self.timers, entry)
        return SimpleNamespace(cancel=lambda: self.timers.remove(entry) if entry in self.timers else None)

    def settle(self) -> None:
        while self.soon:
            self.soon.popleft()()

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        self.settle()
        while self.timers and self.timers[0][0] <= until:
            self.now, _, callback = heapq.heappop(self.timers)
            callback()
            self.settle()
        self.now = until


class Backend:
    commits = 0

    def scan(self, *arguments: object) -> list[tuple[bytes, bytes]]:
        return []

    def put(self, *arguments: object) -> None: ...

    def delete(self, *arguments: object) -> None: ...


@dataclass
class Proposal:
    kind: int
    request: Message
    done: Callable[[Any, Answer | None, Exception | None], None]
    token: Any


class Line:
    """One open stream of a member whose log is a list."""

    def __init__(self, features: str = "") -> None:
        self.loop = Loop()
        self.committed_index = self.applied_index = 9
        self.proposals: list[Proposal] = []
        self.refuses = False
        self.sent: list[LeaseKeepAliveResponse] = []
        self.end: tuple[int, str] | None = None
        self.backlog = 0
        self.revision = 3
        config = replace(ServerConfig(), features=FeatureGates().with_text(features))
        self.leases = Leases(
            config,
            Backend(),
            self,
            self.loop,
            delete_keys=lambda keys: None,
            propose=self.propose,
            flush=lambda: None,
            background=lambda job: list(job),
            cluster_has_checkpoints=lambda: True,
        )
        member = SimpleNamespace(
            leases=self.leases,
            elsewhere=self,
            is_certain=True,
            config=config,
            store=self,
            header=lambda revision: response_header(1, 2, revision, 4),
            leader=1,
            is_learner=False,
            auth=SimpleNamespace(enabled=False),
        )
        outbox = SimpleNamespace(finish=self.finish)
        self.leadership = Leadership(member)
        self.stream = KeepAlive(
            cast(Any, member),
            cast(Any, outbox),
            Answers(cast(Any, self), self.loop),
            self.leadership,
            CALL,
            Meta(peer="", authority="", headers=()),
        )

    def renew(self, lease_id: int, again: Any, answered: Any, fail: Any) -> None:
        """As `member.elsewhere` where this member is about to know by itself."""
        self.leases.when_primary(again, fail)

    def propose(
        self, term: int, kind: int, payload: bytes, request: Message, done: Any, token: Any, /
    ) -> None:
        if self.refuses:
            raise errors.TOO_MANY_REQUESTS
        self.proposals.append(Proposal(kind, request, done, token))

    def send_many(self, messages: Sequence[tuple[int, bytes]]) -> list[int]:
        assert self.end is None, "nothing is sent behind the end"
        for call, body in messages:
            assert call == CALL
            self.sent.append(LeaseKeepAliveResponse.FromString(body))
        return [self.backlog] * len(messages)

    def finish(self, call: int, code: int, message: str) -> None:
        assert self.end is None, "a stream ends once"
        self.end = code, message

    def ask(self, *leases: int) -> None:
        for lease in leases:
            self.stream.on_message(LeaseKeepAliveRequest(ID=lease).SerializeToString())

    def grant(self, *leases: int, ttl: int = TTL) -> None:
        for lease in leases:
            self.leases.lessor.grant(lease, ttl)

    def apply(self) -> None:
        """Apply what is proposed."""
        proposals, self.proposals = self.proposals, []
        for each in proposals:
            if isinstance(each.request, LeaseRevokeRequest):
                self.revision += 1
                self.leases.lessor.revoke(each.request.ID)
            else:
                assert isinstance(each.request, LeaseCheckpointRequest)
                for note in each.request.checkpoints:
                    self.leases.lessor.checkpoint(note.ID, note.remaining_TTL)
            each.done(each.token, Answer(self.revision, ()), None)
        self.loop.settle()

    def catch_up(self) -> None:
        """Apply what was committed."""
        self.applied_index = self.committed_index
        self.leases.applied()
        self.loop.settle()

    @property
    def answers(self) -> list[tuple[int, int]]:
        self.loop.settle()
        return [(each.ID, each.TTL) for each in self.sent]


def primary(features: str = "") -> Line:
    line = Line(features)
    line.leases.promote(1)
    return line


def test_each_lease_is_renewed_and_answered_with_its_ttl_and_a_header() -> None:
    line = primary()
    line.grant(1, 2)
    line.loop.advance(TTL - 1)
    line.ask(2, 1, 2)
    assert line.answers == [(2, TTL), (1, TTL), (2, TTL)]
    header = line.sent[0].header
    assert (header.cluster_id, header.member_id, header.revision, header.raft_term) == (1, 2, 3, 4)
    assert not line.proposals, "a renewal is no entry in the log"
    line.loop.advance(TTL - 1)
    assert not line.proposals


def test_a_lease_there_is_not_has_a_ttl_of_0() -> None:
    line = primary()
    line.ask(7, 0)
    assert line.answers == [(7, 0), (0, 0)]


def test_answers_leave_in_one_call_at_the_end_of_the_turn() -> None:
    line = primary()
    line.grant(1)
    line.ask(1, 1, 1)
    assert not line.sent
    assert len(line.loop.soon) == 1
    assert len(line.answers) == 3


def test_a_lease_that_is_not_there_yet_is_waited_for_as_long_as_the_log_is_behind() -> None:
    line = primary()
    line.committed_index += 1
    line.ask(1, 2)
    line.grant(2)
    assert line.answers == [], "those behind wait too"
    line.grant(1)
    line.catch_up()
    assert line.answers == [(1, TTL), (2, TTL)]


def test_a_log_that_stays_behind_ends_the_stream() -> None:
    line = primary()
    line.committed_index += 1
    line.ask(1)
    line.leases.tick(line.loop.now + 0.9)
    assert line.end is None
    line.leases.tick(line.loop.now + 1.0)
    assert line.end == (UNAVAILABLE, errors.TIMEOUT_WAIT_APPLIED_INDEX.message)
    line.catch_up()
    assert line.answers == []


def test_without_the_fast_path_every_renewal_waits_for_the_log() -> None:
    line = primary("FastLeaseKeepAlive=false")
    line.grant(1)
    line.ask(1)
    assert line.answers == [(1, TTL)]
    line.committed_index += 1
    line.ask(1)
    assert line.answers == [(1, TTL)]
    line.catch_up()
    assert line.answers == [(1, TTL), (1, TTL)]
    fast = primary()
    fast.grant(1)
    fast.committed_index += 1
    fast.ask(1)
    assert fast.answers == [(1, TTL)]


def test_a_lease_that_has_run_out_is_answered_when_its_revocation_is_applied() -> None:
    line = primary()
    line.grant(1)
    line.grant(2, ttl=100)
    line.loop.now += TTL  # its timer has not gone off yet
    line.ask(1, 2)
    assert line.answers == []
    assert [each.kind for each in line.proposals] == [REVOKE], "it is revoked at once, out of turn"
    line.apply()
    assert line.answers == [(1, 0), (2, 100)]


def test_a_lease_that_has_run_out_is_asked_for_again_where_the_leader_has_changed() -> None:
    line = primary()
    line.grant(1)
    line.loop.now += TTL
    line.ask(1)
    line.leases.demote()
    assert line.answers == []
    line.leases.promote(1)
    assert line.answers == [(1, TTL)]


def test_a_renewal_waits_for_a_leader_and_ends_the_stream_when_there_is_none() -> None:
    line = Line()
    line.grant(1)
    line.ask(1, 1)
    assert line.answers == []
    line.leases.promote(1)
    assert line.answers == [(1, TTL), (1, TTL)]
    line.leases.demote()
    line.ask(1)
    line.leases.tick(line.loop.now + 60)
    assert line.end == (UNAVAILABLE, "etcdserver: no leader")


def test_a_checkpoint_is_taken_back_before_a_renewal_is_answered() -> None:
    line = primary("LeaseCheckpoint=true")
    line.grant(1, ttl=1000)
    line.leases.lessor.checkpoint(1, 400)
    line.ask(1, 2)
    assert line.answers == []
    assert [each.kind for each in line.proposals] == [CHECKPOINT]
    line.apply()
    assert line.answers == [(1, 1000), (2, 0)]
    lease = line.leases.lessor.lookup(1)
    assert lease is not None
    assert line.leases.lessor.remaining_seconds(lease) == 1000


def test_a_renewal_is_answered_also_when_its_checkpoint_cannot_be_taken_back() -> None:
    line = primary("LeaseCheckpoint=true")
    line.grant(*range(1, 3001), ttl=1000)
    for lease in range(1, 3001):
        line.leases.lessor.checkpoint(lease, 400)
    line.backlog = BACKLOG_BYTES + 1
    line.ask(1)
    line.apply()
    line.refuses = True
    line.ask(*range(2, 3001))
    line.backlog = 0
    line.stream.on_writable()
    assert [ttl for _, ttl in line.answers] == [1000] * 3000
    last = line.leases.lessor.lookup(3000)
    assert last is not None
    assert line.leases.lessor.remaining_seconds(last) == 400


def test_a_stream_whose_client_has_closed_its_side_ends_when_all_is_answered() -> None:
    line = primary()
    line.grant(1)
    line.grant(2, ttl=100)
    line.ask(2)
    line.loop.now += TTL
    line.ask(1, 2)
    line.stream.on_half_close()
    assert line.end is None
    line.apply()
    assert line.answers == [(2, 100), (1, 0), (2, 100)]
    assert line.end == (OK, "")
    idle = primary()
    idle.stream.on_half_close()
    assert idle.end == (OK, "")


def test_answers_of_the_turn_come_before_the_end() -> None:
    line = primary()
    line.ask(1)
    line.stream.on_half_close()
    assert line.answers == [(1, 0)]
    assert line.end == (OK, "")


def test_a_malformed_message_ends_the_stream_behind_what_was_asked_before() -> None:
    line = primary()
    line.grant(1)
    line.loop.now += TTL
    line.ask(1)
    line.stream.on_message(b"\xff")
    line.ask(2)
    line.stream.on_half_close()
    assert line.end is None
    line.apply()
    assert line.answers == [(1, 0)]
    assert line.end == (INTERNAL, MALFORMED)


def test_a_client_that_does_not_read_gets_nothing_renewed_until_it_does() -> None:
    line = primary()
    line.grant(1)
    line.backlog = BACKLOG_BYTES + 1
    line.ask(1)
    assert line.answers == [(1, TTL)]
    line.ask(1, 1)
    assert line.answers == [(1, TTL)]
    line.backlog = 0
    line.stream.on_writable()
    assert line.answers == [(1, TTL)] * 3


def test_a_client_that_asks_and_never_reads_is_cut_off() -> None:
    line = primary()
    line.backlog = BACKLOG_BYTES + 1
    line.ask(1)
    line.loop.settle()
    line.ask(*range(WAITING_MAX))
    assert line.end is None
    line.ask(1)
    assert line.end == (RESOURCE_EXHAUSTED, OVERRUN)
    line.ask(1)
    line.stream.on_writable()
    assert line.answers == [(1, 0)]


def test_a_cancelled_stream_is_forgotten_whatever_it_waited_for() -> None:
    line = primary()
    line.grant(1)
    line.loop.now += TTL
    line.ask(1, 2)
    line.stream.on_half_close()
    line.stream.on_cancel()
    line.apply()
    assert line.answers == []
    assert line.end is None


def test_a_stream_that_wants_a_leader_ends_without_one() -> None:
    line = primary()
    meta = cast(Meta, SimpleNamespace(headers=[("hasleader", "true")]))
    line.leadership.admit(CALL, meta, line.stream.end)
    raft = cast(Any, line.leadership)._raft
    raft.leader = 0
    for _ in range(3):
        line.leadership.check()
    assert line.end == (UNAVAILABLE, "etcdserver: no leader")
    with pytest.raises(EtcdError, match="no leader"):
        line.leadership.admit(CALL, meta, line.stream.end)
