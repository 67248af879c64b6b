"""`--enable-distributed-tracing`: spans of gRPC calls, sent to an OpenTelemetry collector (OTLP over gRPC).

Spans are as those of etcd's interceptors: one of kind server for each call, named after its method, child of
what the client's `traceparent` says, and within it one for what the member does (`span_attributes`). They are
made when a call has ended, from when it came and how long it took, which the wire keeps anyway: a member
without tracing pays nothing for it. What is not sampled is not looked at.

The packages come with the extra `tracing`; where they are missing the start is refused. They send from a
thread of their own, from a queue that is bounded; what does not fit is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pyetcd import logs
from pyetcd._native import Meta
from pyetcd.api.around import Around
from pyetcd.api.dispatch import Body, Event, OpenStream, Stream
from pyetcd.api.span_attributes import Inner, inner_of_message, inner_of_unary
from pyetcd.member.config import TracingConfig
from pyetcd.proto import errors

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

RATE_MAX: Final = 1_000_000
FLUSH_MILLISECONDS: Final = 2_000  # at the end, for what has gathered

# What a server is to blame for: the statuses that make its span one of an error.
_FAULTS: Final = frozenset(
    (
        errors.UNKNOWN,
        errors.DEADLINE_EXCEEDED_CODE,
        errors.UNIMPLEMENTED,
        errors.INTERNAL,
        errors.UNAVAILABLE,
        errors.DATA_LOSS,
    )
)
_DOOR: Final = frozenset((errors.NO_LEADER.message, errors.NOT_SUPPORTED_FOR_LEARNER.message))
_STATUS_NAMES: Final = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)

_log = logs.get("embed")

Soon = Callable[[Callable[[], None]], object]
"""Has something run on the loop, from any thread."""


class TracingUnavailable(Exception):
    """Tracing is wanted and the packages for it are not there."""


class Tracing:
    """Makes spans and sends them. `unix`: the time of day, in seconds."""

    def __init__(self, config: TracingConfig, unix: Callable[[], float], soon: Soon) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased
        except ImportError as error:
            raise TracingUnavailable(
                f"--enable-distributed-tracing needs packages that are not installed ({error}): "
                "pip install 'pyetcd[tracing]'"
            ) from None
        from opentelemetry.baggage.propagation import W3CBaggagePropagator
        from opentelemetry.propagators.composite import CompositePropagator
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        _tell_in_log(soon)
        self._unix = unix
        named: dict[str, str] = {"service.name": config.service_name}
        if config.instance_id:
            named["service.instance.id"] = config.instance_id
        rate = config.sampling_rate_per_million
        root = TraceIdRatioBased(rate / RATE_MAX) if rate else ALWAYS_OFF
        self._provider = TracerProvider(
            resource=OTELResourceDetector().detect().merge(Resource(named)),
            sampler=ParentBased(root),
            shutdown_on_exit=False,
        )
        self._exporter = OTLPSpanExporter(endpoint=config.address, insecure=True)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("pyetcd")
        self._propagator = CompositePropagator((TraceContextTextMapPropagator(), W3CBaggagePropagator()))
        fields = {
            "address": config.address,
            "service-name": config.service_name,
            "service-instance-id": config.instance_id,
            "sampling-rate": rate,
        }
        _log.debug("distributed tracing enabled", fields)
        _log.info("distributed tracing setup enabled")

    def close(self) -> None:
        """Send what has gathered, as far as that goes soon. Blocks."""
        self._provider.force_flush(FLUSH_MILLISECONDS)
        self._exporter.shutdown()
        self._provider.shutdown()

    def begin(self, path: str, meta: Meta | None, seconds_ago: float) -> Span:
        """The span of a call of this method."""
        from opentelemetry.trace import SpanKind

        context: Context = self._propagator.extract(dict(meta.headers) if meta is not None else {})
        name = path[1:]
        attributes = {"rpc.method": name, "rpc.system.name": "grpc"}
        begun = self._nanoseconds() - round(seconds_ago * 1e9)
        return self._tracer.start_span(name, context, SpanKind.SERVER, attributes, start_time=begun)

    def end(self, span: Span, code: int, message: str) -> None:
        """The call has ended with this gRPC status."""
        from opentelemetry.trace import Status, StatusCode

        name = _STATUS_NAMES[code] if 0 <= code < len(_STATUS_NAMES) else f"CODE({code})"
        span.set_attribute("rpc.response.status_code", name)
        if code in _FAULTS:
            span.set_status(Status(StatusCode.ERROR, message))
        span.end(self._nanoseconds())

    def within(self, span: Span, inner: Inner, seconds_ago: float) -> None:
        """What the member did for it, until now."""
        from opentelemetry.trace import set_span_in_context

        name, attributes = inner
        ended = self._nanoseconds()
        context = set_span_in_context(span)
        begun = ended - round(seconds_ago * 1e9)
        self._tracer.start_span(name, context, attributes=attributes, start_time=begun).end(ended)

    def _nanoseconds(self) -> int:
        return round(self._unix() * 1e9)


class UnaryCalls:
    """Spans of unary calls. `methods`: the wire's, in its order. `note` fits `Outbox.on_slow`."""

    def __init__(self, tracing: Tracing, methods: Sequence[str]) -> None:
        self._tracing = tracing
        self._methods = methods

    def note(self, event: Event, body: Body | None, seconds: float, code: int, message: str) -> None:
        _, _, method, payload, meta = event
        path = self._methods[method]
        span = self._tracing.begin(path, meta, seconds)
        if span.is_recording() and isinstance(payload, bytes) and not _at_the_door(code, message):
            inner = inner_of_unary(path, payload)
            if inner is not None:
                self._tracing.within(span, inner, seconds)
        self._tracing.end(span, code, message)


def _at_the_door(code: int, message: str) -> bool:
    """Whether a call was refused before the member had anything to do with it."""
    if code == errors.INVALID_ARGUMENT:
        return message != errors.REQUEST_TOO_LARGE.message
    return message in _DOOR


class StreamCalls:
    """Spans of streams, from their opening to their end. `ended` fits `Outbox.on_stream_end`.

    `clock`: monotonic seconds.
    """

    def __init__(self, tracing: Tracing, clock: Callable[[], float]) -> None:
        self._tracing = tracing
        self._clock = clock
        self._open: dict[int, _Traced] = {}

    def traced(self, streams: Mapping[str, OpenStream]) -> dict[str, OpenStream]:
        """The same streams, with their spans."""
        return {path: self._opener(path, opener) for path, opener in streams.items()}

    def _opener(self, path: str, opener: OpenStream) -> OpenStream:
        def opened(call: int, meta: Meta) -> Stream:
            span = self._tracing.begin(path, meta, 0.0)
            if not span.is_recording():
                return opener(call, meta)
            try:
                stream = opener(call, meta)
            except errors.EtcdError as error:
                self._tracing.end(span, error.code, error.message)
                raise
            traced = _Traced(path, span, stream, self, self._clock())
            self._open[call] = traced
            return traced

        return opened

    def ended(self, call: int, code: int, message: str) -> None:
        """This side has ended the stream, or the client has."""
        traced = self._open.pop(call, None)
        if traced is None:
            return
        if traced.inner is not None:
            self._tracing.within(traced.span, traced.inner, self._clock() - traced.begun)
        self._tracing.end(traced.span, code, message)

    def said(self, traced: _Traced, inner: Inner, seconds: float) -> None:
        self._tracing.within(traced.span, inner, seconds)

    def now(self) -> float:
        return self._clock()


class _Traced(Around):
    """A stream with a span. `inner`: what takes as long as the stream itself."""

    __slots__ = ("_all", "_path", "begun", "inner", "span")

    def __init__(
        self, path: str, span: Span, stream: Stream, all_streams: StreamCalls, begun: float
    ) -> None:
        super().__init__(stream)
        self._path = path
        self._all = all_streams
        self.span = span
        self.begun = begun
        self.inner: Inner | None = None

    def on_message(self, payload: bytes) -> None:
        inner, is_whole = inner_of_message(self._path, payload)
        if inner is None or is_whole:
            self.inner = inner
            self.stream.on_message(payload)
            return
        begun = self._all.now()
        self.stream.on_message(payload)
        self._all.said(self, inner, self._all.now() - begun)


class _InLog(logging.Handler):
    """What the packages have to say, which they may from any thread, becomes lines of our log."""

    def __init__(self, soon: Soon) -> None:
        super().__init__(logging.WARNING)
        self._soon = soon

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        try:
            self._soon(lambda: _log.warn("distributed tracing", {"error": text}))
        except RuntimeError:
            pass  # the loop has ended, and with it the log's reader


def _tell_in_log(soon: Soon) -> None:
    logger = logging.getLogger("opentelemetry")
    logger.handlers = [_InLog(soon)]
    logger.propagate = False


