"""Keep-alive streams: a client names a lease, it is renewed, and the client is told its time to live.

This is the hottest thing about leases, so a renewal is a plain call of the lessor: no task, no entry in the
log; the answers of a turn leave together.

Rules that hold here, as in etcd:

* Leases are renewed in the order in which they are asked for. A renewal that has to wait (for the end of a
  lease that has run out, for the log, for a leader) holds up those behind it.
* A lease there is not has a TTL of 0. That is said only when all that is committed is applied: it may just
  have been granted. Without the feature FastLeaseKeepAlive every renewal waits for that.
* When the client closes its side, all it asked for is answered before the stream ends.
* A client that does not read its answers gets nothing renewed, and is cut off in the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from google.protobuf.message import DecodeError

from pyetcd import logs
from pyetcd._native import Meta
from pyetcd.api.dispatch import Outbox
from pyetcd.api.leadership import Leadership
from pyetcd.api.local_calls import Wire
from pyetcd.api.watch import MALFORMED
from pyetcd.lease.deadlines import Loop
from pyetcd.lease.lessor import NotRenewed
from pyetcd.member.member import Member
from pyetcd.proto import errors, strict
from pyetcd.proto.errors import INTERNAL, OK, RESOURCE_EXHAUSTED, UNKNOWN, EtcdError
from pyetcd.proto.rpc_pb2 import LeaseKeepAliveRequest, LeaseKeepAliveResponse

BACKLOG_BYTES = 1 << 20  # unsent answers beyond which a stream renews nothing more until they are read
WAITING_MAX = 16_384  # renewals asked for on one stream while it is held up
OVERRUN = "etcdserver: too many requests on a keep-alive stream whose answers are not read"
FAST = "FastLeaseKeepAlive"

_log = logs.get("api")


class Answers:
    """What a turn has to say on keep-alive streams, sent in one call of the wire."""

    def __init__(self, server: Wire, loop: Loop) -> None:
        self._server = server
        self._loop = loop
        self._streams: list[KeepAlive] = []
        self._messages: list[tuple[int, bytes]] = []

    def add(self, stream: KeepAlive, body: bytes) -> None:
        if not self._messages:
            self._loop.call_soon(self.flush)
        self._streams.append(stream)
        self._messages.append((stream.call, body))

    def flush(self) -> None:
        if not self._messages:
            return
        streams, self._streams = self._streams, []
        messages, self._messages = self._messages, []
        backlogs = self._server.send_many(messages)
        if max(backlogs) > BACKLOG_BYTES:
            for stream, backlog in zip(streams, backlogs, strict=True):
                if backlog > BACKLOG_BYTES:
                    stream.is_full = True


class KeepAlive:
    """One open stream."""

    __slots__ = (
        "_answers",
        "_end",
        "_is_fast",
        "_is_going",
        "_is_held",
        "_is_open",
        "_leadership",
        "_leases",
        "_member",
        "_meta",
        "_outbox",
        "_waiting",
        "call",
        "is_full",
    )

    def __init__(
        self,
        member: Member,
        outbox: Outbox,
        answers: Answers,
        leadership: Leadership,
        call: int,
        meta: Meta,
    ) -> None:
        self.call = call
        self._meta = meta
        self.is_full = False  # the client does not read
        self._member = member
        self._leases = member.leases
        self._is_fast = member.config.feature(FAST)
        self._outbox = outbox
        self._answers = answers
        self._leadership = leadership
        self._waiting: deque[int] = deque()  # leases to be renewed behind the one that holds the stream up
        self._is_held = False
        self._is_going = False
        self._is_open = True
        self._end: EtcdError | None = None  # how it ends once all that waits is answered

    # What happens to it

    def on_message(self, payload: bytes) -> None:
        if self._end is not None or not self._is_open:
            return
        try:
            lease_id = strict.parse(LeaseKeepAliveRequest, payload).ID
        except DecodeError:
            self._end_behind(EtcdError(INTERNAL, MALFORMED))
            return
        if not self._is_held and not self.is_full:
            self._renew(lease_id)
        elif len(self._waiting) < WAITING_MAX:
            self._waiting.append(lease_id)
        else:
            _log.warn("closing a keep-alive stream with too many requests", {"call": self.call})
            self.end(EtcdError(RESOURCE_EXHAUSTED, OVERRUN))

    def on_half_close(self) -> None:
        self._end_behind(EtcdError(OK, ""))

    def on_cancel(self) -> None:
        self._is_open = False
        self._waiting.clear()
        self._leadership.forget(self.call)

    def on_writable(self) -> None:
        self.is_full = False
        self._go_on()

    def end(self, error: EtcdError) -> None:
        """Finish the stream, behind the answers given."""
        if self._is_open:
            self.on_cancel()
            self._answers.flush()
            self._outbox.finish(self.call, error.code, error.message)

    def _end_behind(self, error: EtcdError) -> None:
        """Finish the stream when all that was asked for is answered."""
        if self._end is None:
            self._end = error
            self._go_on()

    # Renewals, one after the other

    def _go_on(self) -> None:
        """Renew what waits, as far as that goes."""
        if self._is_going:  # from below, by a renewal that had to wait for nothing
            return
        self._is_going = True
        while self._waiting and not self._is_held and not self.is_full:
            self._renew(self._waiting.popleft())
        self._is_going = False
        if self._end is not None and not self._is_held and not self._waiting:
            self.end(self._end)

    def _renew(self, lease_id: int) -> None:
        if not self._member.is_certain:
            self._hold(lambda go: self._member.when_current(go, self._fail), lease_id)
        elif self._is_fast or self._leases.is_applied:
            self._try(lease_id)
        else:
            self._hold(lambda go: self._leases.when_applied(go, self._fail), lease_id, applied=True)

    def _try(self, lease_id: int, *, applied: bool = False, keep_checkpoint: bool = False) -> None:
        """Renew and answer, or hold the stream up until one can tell. `applied`: has been waited for."""
        leases = self._leases
        if self._member.auth.enabled:
            try:
                self._check(lease_id)
            except EtcdError as error:
                self._fail(error)
                return
        ttl = leases.lessor.renew(lease_id, keep_checkpoint=keep_checkpoint)
        if not isinstance(ttl, NotRenewed):
            self._answer(lease_id, ttl)
        elif ttl is NotRenewed.UNKNOWN:
            if applied or leases.is_applied:
                self._answer(lease_id, 0)
            else:
                self._hold(lambda go: leases.when_applied(go, self._fail), lease_id, applied=True)
        elif ttl is NotRenewed.EXPIRED:
            self._hold(lambda go: leases.when_ended(lease_id, go), lease_id)
        elif ttl is NotRenewed.CHECKPOINTED:
            self._hold_for_checkpoint(lease_id)
        else:
            self._is_held = True
            self._member.elsewhere.renew(
                lease_id,
                lambda: self._again(lease_id, False, False),
                lambda ttl: self._told(lease_id, ttl),
                lambda error: self._not_told(lease_id, error),
            )

    def _check(self, lease_id: int) -> None:
        """Renewing a lease is writing all its keys. Raises what refuses it."""
        caller = self._member.identity.caller(self._meta)
        if caller is None:
            raise errors.USER_EMPTY
        self._member.checks.write_lease(caller, lease_id)

    def _told(self, lease_id: int, ttl: int) -> None:
        """The leader has answered."""
        if self._is_open:
            self._is_held = False
            self._answer(lease_id, ttl)
            self._go_on()

    def _not_told(self, lease_id: int, error: Exception) -> None:
        if isinstance(error, errors.LEASE_NOT_FOUND):
            self._told(lease_id, 0)
        else:
            self._fail(error)

    def _answer(self, lease_id: int, ttl: int) -> None:
        header = self._member.header(self._member.store.revision)
        body = LeaseKeepAliveResponse(ID=lease_id, TTL=ttl).SerializeToString()
        self._answers.add(self, header + body)

    def _hold(
        self, wait: Callable[[Callable[[], None]], object], lease_id: int, *, applied: bool = False
    ) -> None:
        """Let everything wait until `wait` calls what it is given; then try this lease again, and go on."""
        self._is_held = True
        wait(lambda: self._again(lease_id, applied, False))

    def _hold_for_checkpoint(self, lease_id: int) -> None:
        self._is_held = True
        checkpointer = self._leases.checkpointer
        checkpointer.take_back(lease_id, lambda error: self._again(lease_id, False, error is not None))

    def _again(self, lease_id: int, applied: bool, keep_checkpoint: bool) -> None:
        if not self._is_open:
            return
        self._is_held = False
        self._try(lease_id, applied=applied, keep_checkpoint=keep_checkpoint)
        self._go_on()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, EtcdError):
            self.end(error)
        else:
            self.end(EtcdError(UNKNOWN, str(error)))
