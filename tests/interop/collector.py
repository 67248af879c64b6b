"""An OpenTelemetry collector: takes spans over OTLP and keeps them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True)
class Seen:
    """A span, without its IDs and times. `parent`: the name of the span it is in, or None."""

    name: str
    kind: int
    attributes: dict[str, object]
    status: tuple[int, str]
    parent: str | None


class Collector:
    """Listens on a free port of 127.0.0.1."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spans: dict[bytes, Span] = {}
        self.resources: list[dict[str, object]] = []
        self._server = grpc.server(ThreadPoolExecutor(2))
        handler = grpc.unary_unary_rpc_method_handler(
            self._export,
            request_deserializer=ExportTraceServiceRequest.FromString,
            response_serializer=ExportTraceServiceResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),)
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()

    def _export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        with self._changed:
            for resource_spans in request.resource_spans:
                self.resources.append(_plain(resource_spans.resource.attributes))
                for scope_spans in resource_spans.scope_spans:
                    self._spans.update((span.span_id, span) for span in scope_spans.spans)
            self._changed.notify_all()
        return ExportTraceServiceResponse()

    def spans(self) -> list[Span]:
        """In the order they ended."""
        with self._changed:
            return sorted(self._spans.values(), key=lambda span: span.end_time_unix_nano)

    def wait(self, count: int, seconds: float = 20.0) -> None:
        """Until there are so many spans."""
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self._spans) >= count, seconds)
        assert enough, f"{len(self._spans)} spans, not {count}"

    def seen(self) -> list[Seen]:
        names = {span.span_id: span.name for span in self.spans()}
        return [
            Seen(
                span.name,
                span.kind,
                _plain(span.attributes),
                (span.status.code, span.status.message),
                names.get(span.parent_span_id),
            )
            for span in self.spans()
        ]


def _plain(attributes: list[KeyValue]) -> dict[str, object]:
    return {each.key: _value(each.value) for each in attributes}


def _value(value: AnyValue) -> object:
    return getattr(value, value.WhichOneof("value"))
