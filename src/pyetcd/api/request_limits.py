"""`--max-requests-per-user` and `--max-requests-per-connection`: how many requests a second one user, or one
connection, may make. Both are off by default; then nothing here is in the way of a request.

Each has a bucket that holds one second's worth and fills evenly; a request takes one out, and one that finds
it empty is refused with ResourceExhausted (429 over JSON) before anything is done for it. Each
message of a stream counts as a request; a stream that says too much is ended.

A user is who a good token or certificate names, so the limit per user acts while authentication is on. The
connections over Unix sockets have no address of their own and count as one. Whoever has made no request for
a second has a full bucket again and is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pyetcd._native import Meta
from pyetcd.api.around import Around
from pyetcd.api.dispatch import Admit, OpenStream, Outbox, Stream
from pyetcd.member.identity import Identity
from pyetcd.proto.errors import RESOURCE_EXHAUSTED, EtcdError

HEALTH: Final = "/grpc.health.v1.Health/"
FULL_SECONDS: Final = 1.0
TEXT: Final = "etcdserver: too many requests of this {}, at most {} a second"

Admission = Callable[[], Admit | None]


class Buckets:
    """One for each user or connection, by name. `clock`: monotonic seconds."""

    def __init__(self, a_second: int, of: str, clock: Callable[[], float]) -> None:
        self._a_second = a_second
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # name -> what was left, and when
        self._swept = clock()
        self._text = TEXT.format(of, a_second)

    def take(self, name: str) -> None:
        """EtcdError where there is nothing left."""
        now = self._clock()
        if now - self._swept > FULL_SECONDS:
            self._sweep(now)
        left, at = self._left.get(name, (self._a_second, now))
        left = min(self._a_second, left + (now - at) * self._a_second)
        if left < 1.0:
            self._left[name] = left, now
            raise EtcdError(RESOURCE_EXHAUSTED, self._text)
        self._left[name] = left - 1.0, now

    def _sweep(self, now: float) -> None:
        """So there are never more than have asked within two seconds."""
        self._swept = now
        self._left = {name: known for name, known in self._left.items() if now - known[1] < FULL_SECONDS}

    def __len__(self) -> int:
        return len(self._left)


class RequestLimits:
    """0 for no limit."""

    def __init__(
        self,
        per_user: int,
        per_connection: int,
        identity: Identity,
        outbox: Outbox,
        clock: Callable[[], float],
    ) -> None:
        self._users = Buckets(per_user, "user", clock) if per_user else None
        self._connections = Buckets(per_connection, "connection", clock) if per_connection else None
        self._identity = identity
        self._outbox = outbox

    def admission(self, others: Admission) -> Admission:
        """What unary calls must pass: these limits, and then what they must pass anyway."""

        def limited(method: str, payload: bytes, meta: Meta) -> None:
            if not method.startswith(HEALTH):
                self.take(meta)
            admit = others()
            if admit is not None:
                admit(method, payload, meta)

        return lambda: limited

    def streams(self, openers: Mapping[str, OpenStream]) -> dict[str, OpenStream]:
        """The same streams, whose messages are counted. Goes next to the services."""
        return {
            path: opener if path.startswith(HEALTH) else self._limited(opener)
            for path, opener in openers.items()
        }

    def _limited(self, opener: OpenStream) -> OpenStream:
        def opened(call: int, meta: Meta) -> Stream:
            self.take(meta)
            return _Limited(self, call, meta, opener(call, meta))

        return opened

    def take(self, meta: Meta) -> None:
        """EtcdError for a request too many."""
        if self._connections is not None:
            self._connections.take(meta.peer)
        if self._users is not None:
            name = self._user(meta)
            if name:
                self._users.take(name)

    def _user(self, meta: Meta) -> str:
        """Empty: nobody; whatever it asks for will say so."""
        try:
            caller = self._identity.caller(meta)
        except EtcdError:
            return ""
        return "" if caller is None else caller.name

    def end(self, call: int, error: EtcdError) -> None:
        """Finish a stream that said too much."""
        self._outbox.fail(call, error)


class _Limited(Around):
    """A stream whose messages are counted."""

    __slots__ = ("_call", "_has_begun", "_limits", "_meta")

    def __init__(self, limits: RequestLimits, call: int, meta: Meta, stream: Stream) -> None:
        super().__init__(stream)
        self._limits = limits
        self._call = call
        self._meta = meta
        self._has_begun = False  # its opening and the first message are one request

    def on_message(self, payload: bytes) -> None:
        try:
            if self._has_begun:
                self._limits.take(self._meta)
            self._has_begun = True
        except EtcdError as error:
            self.stream.on_cancel()
            self._limits.end(self._call, error)
            return
        self.stream.on_message(payload)
