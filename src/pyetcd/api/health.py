"""grpc.health.v1: the whole server is one service, "". It serves while the member does, unless the feature
gate StopGRPCServiceOnDefrag wants it to say otherwise during a defragmentation."""

from __future__ import annotations

from collections.abc import Mapping

from pyetcd import logs
from pyetcd._native import Meta
from pyetcd.api.dispatch import Body, OpenStream, Outbox, Stream, Unary
from pyetcd.api.one_request import OneRequest
from pyetcd.proto.errors import NOT_FOUND, EtcdError
from pyetcd.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from pyetcd.proto.splice import field_bytes

SERVICE_UNKNOWN = HealthCheckResponse(status=HealthCheckResponse.SERVICE_UNKNOWN).SerializeToString()

_log = logs.get("api")


class _Watch(OneRequest[HealthCheckRequest]):
    """One Health/Watch stream: the status at once, and each change of it."""

    def __init__(self, health: Health, call: int) -> None:
        self._health = health
        self._call = call

    def parse(self, payload: bytes) -> HealthCheckRequest:
        return HealthCheckRequest.FromString(payload)

    def begin(self, request: HealthCheckRequest) -> None:
        self._health.watched(self._call, request.service)

    def on_cancel(self) -> None:
        self._health.forget(self._call)

    def on_writable(self) -> None: ...


class Health:
    """The health service."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._serving = True
        self._watching: set[int] = set()
        self.unary: Mapping[str, Unary] = {
            "/grpc.health.v1.Health/Check": self.check,
            "/grpc.health.v1.Health/List": self.list,
        }
        self.streams: Mapping[str, OpenStream] = {"/grpc.health.v1.Health/Watch": self.watch}

    def set_serving(self, serving: bool, reason: str = "") -> None:
        """Say so, in the log as well."""
        fields = {"service": "", "status": "SERVING" if serving else "NOT_SERVING"}
        if serving:
            _log.info("grpc service status changed", fields)
        else:
            _log.warn("grpc service status changed", {**fields, "reason": reason})
        if serving != self._serving:
            self._serving = serving
            self._outbox.server.send_many([(call, self._status()) for call in sorted(self._watching)])

    def check(self, call: int, payload: bytes, meta: Meta) -> Body:
        if HealthCheckRequest.FromString(payload).service:
            raise EtcdError(NOT_FOUND, "unknown service")
        return self._status()

    def list(self, call: int, payload: bytes, meta: Meta) -> Body:
        return field_bytes(1, field_bytes(1, b"") + field_bytes(2, self._status()))  # {"": its status}

    def watch(self, call: int, meta: Meta) -> Stream:
        return _Watch(self, call)

    def watched(self, call: int, service: str) -> None:
        """A stream asks for a service's status: it is told that, and of changes."""
        if service:
            self._outbox.server.send_many([(call, SERVICE_UNKNOWN)])
            return
        self._watching.add(call)
        self._outbox.server.send_many([(call, self._status())])

    def forget(self, call: int) -> None:
        """The stream is gone."""
        self._watching.discard(call)

    def _status(self) -> bytes:
        status = HealthCheckResponse.SERVING if self._serving else HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse(status=status).SerializeToString()
