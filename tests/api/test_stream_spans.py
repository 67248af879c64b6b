"""What the span of a stream ends with."""

from __future__ import annotations

from pyetcd.api.tracing import StreamCalls

SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"


class Spans:
    """Tracing, of which the ends are kept."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, str]] = []

    def begin(self, path: str, meta: object, seconds: float) -> Spans:
        return self

    def is_recording(self) -> bool:
        return True

    def within(self, span: object, inner: object, seconds: float) -> None:
        pass

    def end(self, span: object, code: int, message: str) -> None:
        self.ends.append((code, message))


class Idle:
    def __init__(self) -> None:
        self.cancelled = 0

    def on_cancel(self) -> None:
        self.cancelled += 1


def test_a_stream_whose_service_fails_ends_with_what_it_fails_with() -> None:
    spans, service = Spans(), Idle()
    calls = StreamCalls(spans, lambda: 0.0)
    stream = calls.traced({SNAPSHOT: lambda call, meta: service})[SNAPSHOT](7, None)
    stream.on_cancel()  # the dispatcher lets go of it first
    calls.ended(7, 13, "broken")
    calls.ended(7, 1, "")
    assert service.cancelled == 1
    assert spans.ends == [(13, "broken")]
