"""One watcher: events in order and none twice, through losses of the connection, as clientv3 gives them."""

from __future__ import annotations

import time

from pyetcd._native import RpcError
from pyetcd.cli.etcdctl.client import INTERNAL, UNAVAILABLE, CallError, Deadline
from pyetcd.cli.etcdctl.output import WatchAnswer
from pyetcd.proto import lite
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyetcd._native import ClientStream
    from pyetcd.cli.etcdctl.client import Client

WATCH = "/etcdserverpb.Watch/Watch"
NO_LEADER = "etcdserver: no leader"
COMPACTED = "etcdserver: mvcc: required revision has been compacted"
RECONNECT_SECONDS = (0.001, 0.1)  # the first pause and the longest
KEEPALIVE_SECONDS_MIN = 10.0  # gRPC's own lower bound, whatever --keepalive-time says


class Watcher:
    """Watches what `request`, a WatchCreateRequest, asks for."""

    def __init__(self, client: Client, request: Message, *, has_leader: bool = True) -> None:
        """With `has_leader`, a member that has lost its leader ends the watch."""
        self._client = client
        self._has_leader = has_leader
        self._request = request
        self._stream: ClientStream | None = None
        self._closed = False

    def answers(self) -> Iterator[WatchAnswer]:
        """Everything the watcher is told; ends when it is canceled or a failure cannot be mended."""
        pause, longest = RECONNECT_SECONDS
        while True:
            try:
                yield from self._on_one_stream()
                return
            except RpcError as error:
                failure = CallError(error.code, error.message)
            except CallError as error:
                failure = error
            if self._closed:
                return
            if failure.code not in (UNAVAILABLE, INTERNAL) or failure.message == NO_LEADER:
                yield _ended(str(failure))
                return
            self._client.next_endpoint()
            time.sleep(pause)
            pause = min(pause * 1.25, longest)

    def close(self) -> None:
        """End it, from another thread too; `answers` then ends without a word."""
        self._closed = True
        if self._stream is not None:
            self._stream.cancel()

    def request_progress(self) -> None:
        """Ask how far the watcher has come. Without a stream there is nobody to ask."""
        if self._stream is not None:
            progress = Message("etcdserverpb.WatchProgressRequest")
            self._stream.send(Message("etcdserverpb.WatchRequest", progress_request=progress).encode())

    def _on_one_stream(self) -> Iterator[WatchAnswer]:
        """What one stream tells. RpcError when it breaks; ends when the watcher is canceled."""
        stream = self._stream = self._client.stream(WATCH, Deadline(), has_leader=self._has_leader)
        if self._closed:  # before there was a stream to cancel
            stream.cancel()
            return
        stream.send(Message("etcdserverpb.WatchRequest", create_request=self._request).encode())
        while True:
            data = self._next(stream)
            if data is None:
                return
            answer = lite.decode("etcdserverpb.WatchResponse", data)
            if answer.flag("canceled"):
                yield from _cancellation(answer)
                return
            self._note_progress(answer)
            if not answer.flag("created"):
                yield WatchAnswer(answer.child("header"), answer.children("events"))

    def _next(self, stream: ClientStream) -> bytes | None:
        """The next message, or None at the end. When none comes for long, the server is asked for a sign of
        life; RpcError or CallError without one."""
        settings = self._client.settings
        while True:
            try:
                return stream.recv(max(settings.keepalive_seconds, KEEPALIVE_SECONDS_MIN))
            except TimeoutError:
                if not self._client.is_alive(settings.keepalive_timeout):
                    stream.cancel()
                    why = "keepalive ping failed to receive ACK within timeout"
                    raise CallError(UNAVAILABLE, why) from None

    def _note_progress(self, answer: Message) -> None:
        """Remember the revision from which a new stream has to go on."""
        events = answer.children("events")
        if events:
            reached = events[-1].child("kv").number("mod_revision")
        elif answer.flag("created") and self._request.number("start_revision"):
            return
        else:
            reached = answer.child("header").number("revision")
        self._request.values["start_revision"] = reached + 1


def _ended(error: str) -> WatchAnswer:
    """The last answer, of the client's own making."""
    return WatchAnswer(Message("etcdserverpb.ResponseHeader"), [], canceled=True, error=error)


def _cancellation(answer: Message) -> Iterator[WatchAnswer]:
    """What is said of a cancellation: one for compaction or of a watcher never begun; nothing of another."""
    compacted, reason = answer.number("compact_revision"), answer.text("cancel_reason")
    if answer.flag("created"):
        yield _ended(reason)
    elif compacted:
        yield WatchAnswer(
            answer.child("header"),
            answer.children("events"),
            compact_revision=compacted,
            canceled=True,
            error=COMPACTED,
            reason=reason,
        )
