"""KV.RangeStream: one range in many messages, no faster than the client reads."""

from __future__ import annotations

from pyetcd._native import Meta
from pyetcd.api.dispatch import Outbox
from pyetcd.api.one_request import OneRequest
from pyetcd.auth.caller import NOBODY, Caller
from pyetcd.member.jobs import Handle, Job
from pyetcd.member.member import Member
from pyetcd.mvcc import checks
from pyetcd.mvcc.record import MORE
from pyetcd.mvcc.stream import Stream, StreamMessage
from pyetcd.proto import errors, strict
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.rpc_pb2 import RangeRequest
from pyetcd.proto.splice import varint

BACKLOG_BYTES = 4 << 20  # unsent bytes beyond which reading waits for the client
_RANGE_RESPONSE = b"\x0a"  # field 1 of RangeStreamResponse


class RangeStream(OneRequest[RangeRequest]):
    """One open stream: a request comes in, messages go out until the range is done."""

    def __init__(self, member: Member, outbox: Outbox, call: int, meta: Meta) -> None:
        self._meta = meta
        self._caller: Caller | None = None
        self._member = member
        self._outbox = outbox
        self._call = call
        self._stream: Stream | None = None
        self._running: Handle | None = None
        self._times = member.times
        self._begun = 0.0  # when the reading of the next message began, loop time

    def parse(self, payload: bytes) -> RangeRequest:
        return strict.parse(RangeRequest, payload)

    def begin(self, request: RangeRequest) -> None:
        checks.check_range_stream(request)
        if request.serializable:
            self._read_from_store(request)
        else:
            self._member.when_current(lambda: self._read_from_store(request), self._fail)

    def _read_from_store(self, request: RangeRequest) -> None:
        auth = self._member.auth
        if auth.enabled:
            try:
                self._caller = self._member.identity.caller(self._meta)
                auth.check_read(self._caller or NOBODY, request.key, request.range_end)
            except EtcdError as error:
                self._fail(error)
                return
        self._stream = self._member.store.range_stream(request, self._member.config.max_request_bytes)
        self._resume()

    def _resume(self) -> None:
        if self._stream is not None and self._running is None:
            self._begun = self._times.clock()
            self._running = self._member.jobs.start(self._read(self._stream), self._paused, self._fail)

    def _read(self, stream: Stream) -> Job[bool]:
        """Send until the range is done (True) or the client is behind (False)."""
        for message in stream:
            if message is not None:
                self._note_range(message)
                head = self._member.header(message.revision) if message.revision else b""
                size = len(head) + message.size
                body = [_RANGE_RESPONSE + varint(size), head, *message.body]
                backlog = self._outbox.server.send_many([(self._call, body)])[0]
                if backlog < 0:  # the client has gone
                    return True
                if backlog > BACKLOG_BYTES:
                    return False
            yield
        return True

    def _note_range(self, message: StreamMessage) -> None:
        """Each message is a range to etcd, and so is the count of the rest."""
        now = self._times.clock()
        ranges = 2 if MORE in message.body else 1
        self._times.range_duration.cell("true").observe((now - self._begun) / ranges, ranges)
        self._begun = now

    def _paused(self, done: bool) -> None:
        self._running = None
        if done and self._is_outdated():
            self._fail(errors.AUTH_OLD_REVISION())
        elif done:
            self._stream = None
            self._outbox.finish(self._call, errors.OK, "")

    def _is_outdated(self) -> bool:
        """Users or roles have changed while the range was read."""
        return self._caller is not None and self._caller.revision not in (0, self._member.auth.revision)

    def _fail(self, error: Exception) -> None:
        if self._stream is not None:
            self._times.range_duration.cell("false").observe(self._times.clock() - self._begun)
        self._running = self._stream = None
        self._outbox.fail(self._call, error)

    def on_cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()
        self._running = self._stream = None

    def on_writable(self) -> None:
        self._resume()
