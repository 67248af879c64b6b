"""The KV service: decode, check, hand to the member, encode.

Put, DeleteRange and Txn go through the raft log; Range and read-only Txn are answered from the store,
linearizable ones once this
member knows that it has applied all that was acknowledged before. Small requests are answered within the
turn they came in;
those that touch many keys run as jobs.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from pyetcd._native import Meta
from pyetcd.api.dispatch import Body, OpenStream, Outbox, Unary
from pyetcd.api.range_stream import RangeStream
from pyetcd.auth.caller import NOBODY, Caller
from pyetcd.member.member import Member
from pyetcd.member.quota import KEY_COST, put_cost, txn_cost
from pyetcd.member.requests import Done
from pyetcd.mvcc import checks
from pyetcd.mvcc.answer import Answer
from pyetcd.proto import deep, errors, strict
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.plain_put import plain_put
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest

PUT: Final = InternalRaftRequest.PUT_FIELD_NUMBER
DELETE_RANGE: Final = InternalRaftRequest.DELETE_RANGE_FIELD_NUMBER
TXN: Final = InternalRaftRequest.TXN_FIELD_NUMBER
COMPACTION: Final = InternalRaftRequest.COMPACTION_FIELD_NUMBER

ROOM: Final = strict.SHORTEST - 1  # bytes beside keys and value too few for what only Go's parser refuses

Work: TypeAlias = Answer | Generator[None, None, Answer]


class Read(NamedTuple):
    """A read under way: when it came and when its reading began, by the loop's clock; 0.0: not yet."""

    call: int
    request: RangeRequest | TxnRequest
    asked: float
    begun: float
    caller: Caller | None  # None: authentication was off, or nobody said who it is


class KV:
    """etcdserverpb.KV."""

    def __init__(self, member: Member, outbox: Outbox) -> None:
        self._member = member
        self._store = member.store
        self._auth = member.auth
        self._outbox = outbox
        self._times = member.times
        self._clock = member.times.clock
        self._ranged = member.times.ranged
        self._told_seconds = member.times.told_seconds
        self._done: Done[int] = self._finish
        self.unary: Mapping[str, Unary] = {
            "/etcdserverpb.KV/Range": self.range,
            "/etcdserverpb.KV/Put": self.put,
            "/etcdserverpb.KV/DeleteRange": self.delete_range,
            "/etcdserverpb.KV/Txn": self.txn,
            "/etcdserverpb.KV/Compact": self.compact,
        }
        self.streams: Mapping[str, OpenStream] = {"/etcdserverpb.KV/RangeStream": self.range_stream}

    # Reads

    def range(self, call: int, payload: bytes, meta: Meta) -> Body | None:
        try:
            request = RangeRequest.FromString(payload)
        except DecodeError:
            request = strict.again(RangeRequest, payload)
        if len(payload) > len(request.key) + len(request.range_end) + ROOM:
            strict.check(request, payload)
        checks.check_range(request)
        member = self._member
        asked = self._clock()
        if not request.serializable and not member.reads_are_current:
            self._later(call, request, asked, meta)
            return None
        caller = None
        try:
            if self._auth.enabled:
                caller = self._permitted(request, meta)
            work = self._store.range(request)
        except EtcdError as error:
            self._times.read(request, asked, asked, None, error)
            raise
        took = self._clock() - asked
        if isinstance(work, Answer) and took < self._told_seconds:
            self._ranged(took)
            return member.encode(work)
        return self._now(Read(call, request, asked, asked, caller), work)

    def _permitted(self, request: RangeRequest | TxnRequest, meta: Meta) -> Caller | None:
        """Who may read this. Raises what refuses it."""
        caller = self._member.identity.caller(meta)
        if isinstance(request, RangeRequest):
            self._auth.check_read(caller or NOBODY, request.key, request.range_end)
        else:
            self._member.checks.txn(caller or NOBODY, request)
        if self._is_outdated(caller):  # signed by a member that is ahead of this one
            raise errors.AUTH_OLD_REVISION
        return caller

    def _is_outdated(self, caller: Caller | None) -> bool:
        return caller is not None and caller.revision not in (0, self._auth.revision)

    def _now(self, read: Read, work: Work) -> Body | None:
        """The answer if it is there, else start the job that will give it."""
        if isinstance(work, Answer):
            self._read_done(read, work, None)
            return self._member.encode(work)
        self._member.jobs.start(
            work,
            lambda answer: self._read_slowly(read, answer),
            lambda error: self._read_done(read, None, error, answers=True),
        )
        return None

    def _read_slowly(self, read: Read, answer: Answer) -> None:
        """What was permitted when the reading began may not be any more."""
        if self._is_outdated(read.caller):
            self._read_done(read, None, errors.AUTH_OLD_REVISION(), answers=True)
        else:
            self._read_done(read, answer, None, answers=True)

    def _later(self, call: int, request: RangeRequest | TxnRequest, asked: float, meta: Meta) -> None:
        """Read once this member is known to be current."""
        self._member.when_current(
            lambda: self._current(call, request, asked, meta),
            lambda error: self._read_done(Read(call, request, asked, 0.0, None), None, error, answers=True),
        )

    def _current(self, call: int, request: RangeRequest | TxnRequest, asked: float, meta: Meta) -> None:
        begun = self._clock()
        caller = None
        try:
            if self._auth.enabled:
                caller = self._permitted(request, meta)
            work = (
                self._store.range(request)
                if isinstance(request, RangeRequest)
                else self._store.txn_read(request)
            )
        except Exception as error:
            self._read_done(Read(call, request, asked, begun, caller), None, error, answers=True)
            return
        ended = self._clock()
        soon = ended - asked < self._told_seconds
        if soon and isinstance(work, Answer) and isinstance(request, RangeRequest):
            self._times.waited(asked, begun, ended)
            self._outbox.reply(call, self._member.encode(work))
            return
        body = self._now(Read(call, request, asked, begun, caller), work)
        if body is not None:
            self._outbox.reply(call, body)

    def _read_done(
        self, read: Read, answer: Answer | None, error: Exception | None, *, answers: bool = False
    ) -> None:
        """A read has ended; with `answers` the client is still to be told."""
        self._times.read(read.request, read.asked, read.begun, answer, error)
        if answers:
            self._finish(read.call, answer, error)

    def range_stream(self, call: int, meta: Meta) -> RangeStream:
        return RangeStream(self._member, self._outbox, call, meta)

    # Writes

    def put(self, call: int, payload: bytes, meta: Meta) -> Body | None:
        plain = plain_put(payload, 0, len(payload))
        if plain is not None and plain.key:
            self._member.propose(PUT, payload, plain, self._done, call, put_cost(plain), meta)
            return None
        try:
            request = PutRequest.FromString(payload)
        except DecodeError:
            request, payload = strict.parse_logged(PutRequest, payload)
        cost = put_cost(request)
        if len(payload) > cost - KEY_COST + ROOM:
            payload = strict.loggable(request, payload)
        checks.check_put(request)
        self._member.propose(PUT, payload, request, self._done, call, cost, meta)
        return None

    def delete_range(self, call: int, payload: bytes, meta: Meta) -> Body | None:
        request, payload = strict.parse_logged(DeleteRangeRequest, payload)
        checks.check_delete_range(request)
        self._member.propose(DELETE_RANGE, payload, request, self._done, call, meta=meta)
        return None

    def txn(self, call: int, payload: bytes, meta: Meta) -> Body | None:
        try:
            request = deep.txn_request(payload)
            payload = strict.loggable(request, payload)
        except DecodeError:
            payload = strict.canonical(TxnRequest, payload)
            request = deep.txn_request(payload)
        checks.check_txn(request, self._member.config.max_txn_ops)
        member = self._member
        if not checks.is_read_only(request):
            cost = txn_cost(request) if member.is_nearly_full() else 0
            member.propose(TXN, payload, request, self._done, call, cost, meta)
            return None
        asked = self._clock()
        if not checks.is_serializable(request) and not member.reads_are_current:
            self._later(call, request, asked, meta)
            return None
        caller = None
        try:
            if self._auth.enabled:
                caller = self._permitted(request, meta)
            work = self._store.txn_read(request)
        except EtcdError as error:
            self._times.read(request, asked, asked, None, error)
            raise
        return self._now(Read(call, request, asked, asked, caller), work)

    def compact(self, call: int, payload: bytes, meta: Meta) -> Body | None:
        request, payload = strict.parse_logged(CompactionRequest, payload)
        done = self._compacted if request.physical else self._done
        self._member.propose(COMPACTION, payload, request, done, call, meta=meta)
        return None

    def _compacted(self, call: int, answer: Answer | None, error: Exception | None) -> None:
        """A physical compaction answers once the space is free on disk, also that of an earlier one."""
        if answer is not None:
            body = answer.body
            self._member.after_compaction(
                lambda: self._finish(call, Answer(self._store.revision, body), None)
            )
        elif isinstance(error, errors.COMPACTED):
            self._member.after_compaction(lambda: self._finish(call, None, error))
        else:
            self._finish(call, None, error)

    def _finish(self, call: int, answer: Answer | None, error: Exception | None) -> None:
        if answer is not None:
            self._outbox.reply(call, self._member.encode(answer))
        else:
            assert error is not None, "a request ends with an answer or an error"
            self._outbox.fail(call, error)


__all__: Sequence[str] = ["KV"]
