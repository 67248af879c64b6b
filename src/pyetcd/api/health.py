"""grpc.health.v1: the whole server is one service, "", that serves while the member does."""

from __future__ import annotations

from collections.abc import Mapping

from pyetcd._native import Meta
from pyetcd.api.dispatch import Body, OpenStream, Outbox, Stream, Unary
from pyetcd.api.local_calls import Wire
from pyetcd.api.one_request import OneRequest
from pyetcd.proto.errors import NOT_FOUND, EtcdError
from pyetcd.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from pyetcd.proto.splice import field_bytes

SERVING = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()
LISTED = field_bytes(1, field_bytes(1, b"") + field_bytes(2, SERVING))  # {"": SERVING}
SERVICE_UNKNOWN = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()


class _Watch(OneRequest[HealthCheckRequest]):
    """One Health/Watch stream: the status once; it does not change while the server can answer."""

    def __init__(self, server: Wire, call: int) -> None:
        self._server = server
        self._call = call

    def parse(self, payload: bytes) -> HealthCheckRequest:
        return HealthCheckRequest.FromString(payload)

    def begin(self, request: HealthCheckRequest) -> None:
        self._server.send_many([(self._call, SERVICE_UNKNOWN if request.service else SERVING)])

    def on_cancel(self) -> None: ...

    def on_writable(self) -> None: ...


class Health:
    """The health service."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.unary: Mapping[str, Unary] = {
            "/grpc.health.v1.Health/Check": self.check,
            "/grpc.health.v1.Health/List": self.list,
        }
        self.streams: Mapping[str, OpenStream] = {"/grpc.health.v1.Health/Watch": self.watch}

    def check(self, call: int, payload: bytes, meta: Meta) -> Body:
        if HealthCheckRequest.FromString(payload).service:
            raise EtcdError(NOT_FOUND, "unknown service")
        return SERVING

    def list(self, call: int, payload: bytes, meta: Meta) -> Body:
        return LISTED

    def watch(self, call: int, meta: Meta) -> Stream:
        return _Watch(self._outbox.server, call)
