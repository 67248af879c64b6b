"""The Watch service: reads what clients ask for on their streams and hands it to the hub, which answers on
its own.

What the hub is given here is already in etcd's terms: an empty key stands for the smallest one, a range end
of one zero byte for no end at all. Permission is asked for once, when a watcher is created, before anything
is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from google.protobuf.message import DecodeError

from pyetcd import logs
from pyetcd._native import Meta
from pyetcd.api.dispatch import OpenStream
from pyetcd.api.leadership import Leadership
from pyetcd.mvcc.watch_group import Shape, WatchStream
from pyetcd.mvcc.watch_hub import WatchHub
from pyetcd.mvcc.watch_index import FROM_KEY
from pyetcd.proto import errors, strict
from pyetcd.proto.errors import CODE_NAMES, INTERNAL, RESOURCE_EXHAUSTED, EtcdError
from pyetcd.proto.rpc_pb2 import WatchCreateRequest, WatchRequest

Finish = Callable[[int, int, str], None]
"""`(call, gRPC code, message)`: finish a stream from our side and forget it."""

Permit = Callable[[Meta, bytes, bytes], None]
"""`(meta of the stream, key, range_end)`: raises the EtcdError that says why this range may not be watched.
"""

MALFORMED = "grpc: failed to unmarshal the received message: proto: cannot parse invalid wire-format data"
OVERRUN = "etcdserver: too many requests on a watch stream whose answers are not read"

_SMALLEST_KEY = b"\x00"
_NO_END = b"\x00"
_TOLD_AS_THEY_ARE = (
    errors.INVALID_AUTH_TOKEN,
    errors.AUTH_OLD_REVISION,
    errors.USER_EMPTY,
    errors.PERMISSION_DENIED,
)

_log = logs.get("api")


class Watch:
    """etcdserverpb.Watch."""

    def __init__(self, hub: WatchHub, leadership: Leadership, finish: Finish, permit: Permit) -> None:
        self._hub = hub
        self._leadership = leadership
        self._finish = finish
        self._permit = permit
        self._open: dict[int, WatchCall] = {}
        self.streams: Mapping[str, OpenStream] = {"/etcdserverpb.Watch/Watch": self.watch}
        hub.set_overrun(self._overrun)

    def watch(self, call: int, meta: Meta) -> WatchCall:
        self._leadership.admit(call, meta, lambda error: self.end(call, error.code, error.message))
        stream = self._open[call] = WatchCall(self, self._hub, self._permit, call, meta)
        return stream

    def end(self, call: int, code: int, message: str) -> None:
        """Finish a stream from our side."""
        if call in self._open:
            self.closed(call)
            self._finish(call, code, message)

    def closed(self, call: int) -> None:
        """The stream takes nothing more."""
        stream = self._open.pop(call, None)
        if stream is not None:
            self._leadership.forget(call)
            self._hub.close(stream.watchers)

    def _overrun(self, call: int) -> None:
        _log.warn("closing a watch stream whose client does not read", {"call": call})
        self.end(call, RESOURCE_EXHAUSTED, OVERRUN)


class WatchCall:
    """One open stream."""

    __slots__ = ("_call", "_hub", "_meta", "_permit", "_service", "watchers")

    def __init__(self, service: Watch, hub: WatchHub, permit: Permit, call: int, meta: Meta) -> None:
        self._service = service
        self._hub = hub
        self._permit = permit
        self._call = call
        self._meta = meta
        self.watchers: WatchStream = hub.open(call)

    def on_message(self, payload: bytes) -> None:
        try:
            request = strict.parse(WatchRequest, payload)
        except DecodeError:
            raise EtcdError(INTERNAL, MALFORMED) from None
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._create(request.create_request)
        elif kind == "cancel_request":
            self._hub.cancel(self.watchers, request.cancel_request.watch_id)
        elif kind == "progress_request":
            self._hub.request_progress(self.watchers)
        else:
            _log.info("invalid watch request received in gRPC stream")

    def _create(self, request: WatchCreateRequest) -> None:
        key = request.key or _SMALLEST_KEY
        if request.start_revision < 0:
            self._hub.refuse(self.watchers, errors.COMPACTED.message)
            return
        try:
            self._permit(self._meta, key, request.range_end)
        except EtcdError as error:
            self._hub.refuse(self.watchers, _as_go_prints(error))
            return
        end: bytes | None = request.range_end
        if not end:
            end = None
        elif end == _NO_END:
            end = FROM_KEY
        filters = request.filters
        shape = Shape(
            key,
            end,
            no_put=WatchCreateRequest.NOPUT in filters,
            no_delete=WatchCreateRequest.NODELETE in filters,
            prev_kv=request.prev_kv,
            fragment=request.fragment,
        )
        self._hub.create(
            self.watchers, request.watch_id, shape, request.start_revision, request.progress_notify
        )

    def on_half_close(self) -> None:
        """The client has said all it will; events keep coming, as from etcd."""

    def on_cancel(self) -> None:
        self._service.closed(self._call)

    def on_writable(self) -> None:
        self._hub.writable(self.watchers)


def _as_go_prints(error: EtcdError) -> str:
    """Why a watcher is not permitted, as etcd words it; what is not about permission becomes a plain
    denial.
    """
    if not isinstance(error, _TOLD_AS_THEY_ARE):
        _log.error("unexpected error code", {"error": error})
        error = errors.PERMISSION_DENIED()
    return f"rpc error: code = {CODE_NAMES[error.code]} desc = {error.message}"
