"""`--audit-log-path`: a line of JSON for each call of a client, over gRPC and the JSON gateway alike.

A line says when a call began (`ts`), who made it, from where, which RPC, of which keys (`audit_fields`), and
how it ended. `user` is the one whose token came with it and was good when it came, `certificate` the name in
the client's certificate; who was refused for want of either has neither. Calls that are refused are noted
like others. What comes to no RPC (an unknown method, a message larger than is taken, JSON that is none) is
not.

* A unary call is noted at its end, as the wire tells of it (`Outbox.on_slow`, asked to name every call).
* A stream is noted at its end, or when it is refused at the door, with the keys of its first message and the
  number of messages.
* A watch is noted when it is asked for, permitted or not, since streams of watches stay for days.

A member without an audit log pays nothing for it: no hook is set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from pyetcd import logs
from pyetcd._native import HttpRequest, HttpResponse, Meta
from pyetcd.api.around import Around
from pyetcd.api.audit_fields import Fields, fields_of, range_fields
from pyetcd.api.dispatch import Body, Event, OpenStream, Stream
from pyetcd.member.identity import BEARER
from pyetcd.proto.errors import CODE_NAMES, INTERNAL, OK, EtcdError
from pyetcd.proto.rpc_pb2 import LeaseKeepAliveRequest

WATCH: Final = "/etcdserverpb.Watch/Watch"
KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
HEALTH: Final = "/grpc.health.v1.Health/"
NAMES_MAX: Final = 10_000
LEASES_MAX: Final = 64  # named of a stream of renewals

Permit = Callable[[Meta, bytes, bytes], None]


class Lines(Protocol):
    def write(self, line: bytes) -> None: ...


class Names:
    """Whose tokens those are that were good lately. A token never changes its owner."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def note(self, token: str, name: str) -> None:
        names = self._names
        if token not in names:
            if len(names) >= NAMES_MAX:
                del names[next(iter(names))]
            names[token] = name

    def of(self, meta: Meta) -> str:
        token = meta.token
        return "" if token is None else self._names.get(token.removeprefix(BEARER), "")


class _Open:
    """A stream that has not ended."""

    __slots__ = ("began", "fields", "leases", "messages", "meta", "path")

    def __init__(self, path: str, meta: Meta, began: float) -> None:
        self.path = path
        self.meta = meta
        self.began = began
        self.messages = 0
        self.fields: Fields = {}
        self.leases: set[int] = set()


class Audit:
    """Makes the lines. `methods`: the wire's, in its order; `clock`: monotonic seconds."""

    def __init__(self, methods: list[str], lines: Lines, clock: Callable[[], float]) -> None:
        self._methods = methods
        self._lines = lines
        self._clock = clock
        self._open: dict[int, _Open] = {}
        self._gateway: set[int] = set()  # what is known (Meta, by id) of open streams that came as JSON
        self.names = Names()

    def note(
        self,
        event: Event,
        body: Body | None,
        seconds: float,
        code: int,
        message: str,
    ) -> None:
        """A unary call has ended. Fits `Outbox.on_slow`."""
        _, call, method, payload, meta = event
        path = self._methods[method]
        if path.startswith(HEALTH):
            return
        assert not isinstance(payload, HttpRequest | HttpResponse | None)
        assert meta is not None
        self._say(path, call < 0, meta, seconds, fields_of(path, payload), code, message)

    def outside(self, streams: Mapping[str, OpenStream]) -> dict[str, OpenStream]:
        """The same streams, noted from their opening on. Goes around whatever else may refuse them."""
        return {path: self._opener(path, opener) for path, opener in streams.items()}

    def _opener(self, path: str, opener: OpenStream) -> OpenStream:
        if path.startswith(HEALTH):
            return opener

        def opened(call: int, meta: Meta) -> Stream:
            self._open[call] = _Open(path, meta, self._clock())
            if call < 0:
                self._gateway.add(id(meta))
            try:
                return opener(call, meta)
            except EtcdError as error:
                self.ended(call, error.code, error.message)
                raise
            except Exception:
                self.ended(call, INTERNAL, "")
                raise

        return opened

    def inside(self, streams: Mapping[str, OpenStream]) -> dict[str, OpenStream]:
        """The same streams, whose messages are looked at. Goes next to the services."""
        return {
            path: opener if path == WATCH or path.startswith(HEALTH) else self._listening(opener)
            for path, opener in streams.items()
        }

    def _listening(self, opener: OpenStream) -> OpenStream:
        return lambda call, meta: _Heard(self, call, opener(call, meta))

    def heard(self, call: int, payload: bytes) -> None:
        stream = self._open.get(call)
        if stream is None:
            return
        stream.messages += 1
        if stream.path == KEEP_ALIVE:
            if len(stream.leases) < LEASES_MAX:
                stream.leases.add(_lease_of(payload))
        elif stream.messages == 1:
            stream.fields = fields_of(stream.path, payload)

    def ended(self, call: int, code: int, message: str) -> None:
        """A stream has ended. Fits `Outbox.on_stream_end`."""
        stream = self._open.pop(call, None)
        if stream is None:
            return
        self._gateway.discard(id(stream.meta))
        fields = stream.fields
        if stream.path != WATCH:
            fields["messages"] = stream.messages
        if stream.leases:
            fields["leases"] = sorted(stream.leases)
        seconds = self._clock() - stream.began
        self._say(stream.path, call < 0, stream.meta, seconds, fields, code, message)

    def watches(self, permit: Permit) -> Permit:
        """What says whether a range may be watched, and notes the answer."""

        def noted(meta: Meta, key: bytes, range_end: bytes) -> None:
            code, message = OK, ""
            try:
                permit(meta, key, range_end)
            except EtcdError as error:
                code, message = error.code, error.message
                raise
            finally:
                fields: Fields = {"watch": "create", **range_fields(key, range_end)}
                self._say(WATCH, id(meta) in self._gateway, meta, 0.0, fields, code, message)

        return noted

    def _say(
        self,
        path: str,
        is_json: bool,
        meta: Meta,
        seconds: float,
        fields: Fields,
        code: int,
        message: str,
    ) -> None:
        line: Fields = {"ts": logs.ago(seconds)}
        user = self.names.of(meta)
        if user:
            line["user"] = user
        certificates = meta.certificate_names
        if certificates:
            line["certificate"] = certificates[0]
        line["remote"] = meta.peer
        if is_json:
            line["via"] = "gateway"
        line["rpc"] = path
        if fields:
            line["request"] = fields
        line["code"] = CODE_NAMES[code] if 0 <= code < len(CODE_NAMES) else str(code)
        if message:
            line["error"] = message
        line["seconds"] = round(seconds, 6)
        self._lines.write(json.dumps(line, separators=(",", ":")).encode())


class _Heard(Around):
    """A stream whose messages are told of."""

    __slots__ = ("_audit", "_call")

    def __init__(self, audit: Audit, call: int, stream: Stream) -> None:
        super().__init__(stream)
        self._audit = audit
        self._call = call

    def on_message(self, payload: bytes) -> None:
        self._audit.heard(self._call, payload)
        self.stream.on_message(payload)


def _lease_of(payload: bytes) -> int:
    """0 for what is no message; its service says so."""
    try:
        return LeaseKeepAliveRequest.FromString(payload).ID
    except DecodeError:
        return 0
