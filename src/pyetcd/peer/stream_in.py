"""What another member says on streams: we ask for one, read until it ends, and ask again.

Rules that hold here:

* A new attempt is made at most every `RETRY_SECONDS`, with the URL that works; silence for the timeout of
  reads ends a stream, since the other side sends link heartbeats.
* Whatever arrives that is no stream of messages ends this stream, is logged, and does no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

from pyetcd import logs
from pyetcd._native import FAILED, HALF_CLOSE, MESSAGE, RESPONSE
from pyetcd.cluster.urls import Url
from pyetcd.logs import quote
from pyetcd.peer import kinds
from pyetcd.peer.context import Link
from pyetcd.peer.frames import BadStream, MessageDecoder
from pyetcd.peer.headers import CLUSTER_ID_MISMATCH, INCOMPATIBLE_VERSION, header, hex_id, sends_streams
from pyetcd.peer.kinds import StreamKind
from pyetcd.peer.msgappv2 import MsgAppV2Decoder
from pyetcd.peer.posting import REMOVED
from pyetcd.peer.wire import reason_of
from pyetcd.raft import Message

if TYPE_CHECKING:
    from pyetcd._native import HttpResponse

RETRY_SECONDS: Final = 0.1
REFUSAL_BYTES_MAX: Final = 4096  # of an answer that is no stream, as much as is read

_log = logs.get("peer")


class Decoder(Protocol):
    def feed(self, chunk: bytes) -> list[Message]: ...


class IncomingStream:
    """One kind of stream from one other member. Starts by itself; `receive` is called with each message."""

    def __init__(self, link: Link, kind: StreamKind, receive: Callable[[Message], None]) -> None:
        self._link = link
        self._kind = kind
        self._receive = receive
        self._attempt: _Attempt | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._dialled_at = 0.0
        self._stopped = False
        _log.info("started stream reader with remote peer", self._fields())
        self._dial()

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._attempt is not None:
            self._link.wire.hang_up(self._attempt.call)
            self._attempt = None
        _log.info("stopped stream reader with remote peer", self._fields())

    def _dial(self) -> None:
        link = self._link
        self._timer = None
        self._dialled_at = link.loop.time()
        url = link.picker.pick()
        path = f"{self._kind.path}/{hex_id(link.identity.local_id)}"
        _log.debug(
            "dial stream reader",
            {"from": hex_id(link.identity.local_id), "to": hex_id(link.id), "address": url.text + path},
        )
        attempt = self._attempt = _Attempt(self, url)
        attempt.call = link.wire.dial(
            url,
            "GET",
            path,
            link.identity.stream_headers(link.id),
            attempt,
            stream=True,
            idle_timeout_seconds=link.timeouts.read_seconds,
        )

    def _again(self) -> None:
        """This attempt is over: make another, but not too soon."""
        self._attempt = None
        if not self._stopped:
            wait = self._dialled_at + RETRY_SECONDS - self._link.loop.time()
            self._timer = self._link.loop.call_later(max(wait, 0), self._dial)

    def decoder(self) -> Decoder:
        """For a new stream."""
        if self._kind is kinds.MSGAPP:
            return MsgAppV2Decoder(self._link.identity.local_id, self._link.id)
        return MessageDecoder()

    def hang_up(self, attempt: _Attempt) -> None:
        """Nothing more is wanted of this answer."""
        self._link.wire.hang_up(attempt.call)

    def established(self) -> None:
        self._link.status.activate()
        _log.info("established TCP streaming connection with remote peer", self._fields())

    def received(self, attempt: _Attempt, chunk: bytes, decoder: Decoder) -> None:
        """A piece of the stream."""
        link = self._link
        link.counters.received_bytes += len(chunk)
        try:
            messages = decoder.feed(chunk)
        except BadStream as error:
            self.hang_up(attempt)
            self.lost(str(error))
            return
        for message in messages:
            if self._stopped:
                return
            self._receive(message)

    def lost(self, reason: str) -> None:
        """The stream has ended for a reason in Go's words, `EOF` when the other side has ended it."""
        _log.warn("lost TCP streaming connection with remote peer", {**self._fields(), "error": reason})
        if reason != "EOF" and "closed" not in reason:
            self._link.status.deactivate(self._kind.text, "read", reason)
        self._again()

    def not_dialled(self, url: Url, reason: str | None) -> None:
        """There is no stream to be had. `reason` None: the other side is too old to have one."""
        self._link.picker.unreachable(url)
        if reason is not None:
            self._link.status.deactivate(self._kind.text, "dial", reason)
        self._again()

    def refused(self, url: Url, response: HttpResponse, body: bytes) -> None:
        """The whole of an answer that is no stream."""
        link = self._link
        local, remote = hex_id(link.identity.local_id), hex_id(link.id)
        status = response.status
        if status == HTTPStatus.GONE:
            link.raft.member_removed()
            self.not_dialled(url, REMOVED)
        elif status == HTTPStatus.NOT_FOUND:
            self.not_dialled(url, f"peer {remote} failed to find local node {local}")
        elif status == HTTPStatus.PRECONDITION_FAILED:
            self.not_dialled(url, self._precondition(response, body.decode("utf-8", "replace")))
        else:
            self.not_dialled(url, f"unhandled http status {status}")

    def _precondition(self, response: HttpResponse, body: str) -> str:
        link = self._link
        text = body.removesuffix("\n")
        local, remote = hex_id(link.identity.local_id), hex_id(link.id)
        if text == INCOMPATIBLE_VERSION:
            _log.warn(
                "request sent was ignored by remote peer due to server version incompatibility",
                {"local-member-id": local, "remote-peer-id": remote, "error": text},
            )
            return text
        if text == CLUSTER_ID_MISMATCH:
            _log.warn(
                "request sent was ignored by remote peer due to cluster ID mismatch",
                {
                    "remote-peer-id": remote,
                    "remote-peer-cluster-id": header(response.headers, "x-etcd-cluster-id"),
                    "local-member-id": local,
                    "local-member-cluster-id": hex_id(link.identity.cluster_id),
                    "error": text,
                },
            )
            return text
        return f"unhandled error {quote(body)} when precondition failed"

    def _fields(self) -> dict[str, object]:
        return {
            "stream-reader-type": self._kind.text,
            "local-member-id": hex_id(self._link.identity.local_id),
            "remote-peer-id": hex_id(self._link.id),
        }


class _Attempt:
    """Owns one request for the stream, from the dial to its end."""

    __slots__ = ("_body", "_decoder", "_response", "_stream", "_url", "call")

    def __init__(self, stream: IncomingStream, url: Url) -> None:
        self._stream = stream
        self._url = url
        self.call = 0
        self._response: HttpResponse | None = None  # of an answer that is no stream
        self._body = b""
        self._decoder: Decoder | None = None

    def on_event(self, kind: int, payload: object) -> None:
        if kind == MESSAGE:
            self._message(payload)  # type: ignore[arg-type]
        elif kind == RESPONSE:
            self._answered(payload)  # type: ignore[arg-type]
        elif kind == HALF_CLOSE:
            if self._response is not None:
                self._stream.refused(self._url, self._response, self._body)
            else:
                self._stream.lost("EOF")
        elif kind == FAILED:
            if self._decoder is not None:
                self._stream.lost(reason_of(payload))
            elif self._response is not None:  # what it says has been cut, its status has not
                self._stream.refused(self._url, self._response, self._body)
            else:
                self._stream.not_dialled(self._url, reason_of(payload))

    def _answered(self, response: HttpResponse) -> None:
        stream = self._stream
        if not sends_streams(header(response.headers, "x-server-version")):
            stream.hang_up(self)
            stream.not_dialled(self._url, None)
        elif response.status == HTTPStatus.OK:
            self._decoder = stream.decoder()
            stream.established()
            if response.body:
                self._message(response.body)
        elif response.status == HTTPStatus.PRECONDITION_FAILED:  # its text says why
            self._response, self._body = response, response.body[:REFUSAL_BYTES_MAX]
        else:
            stream.hang_up(self)
            stream.refused(self._url, response, b"")

    def _message(self, chunk: bytes) -> None:
        if self._decoder is not None:
            self._stream.received(self, chunk, self._decoder)
        elif self._response is not None:
            self._body = (self._body + chunk)[:REFUSAL_BYTES_MAX]
            if len(self._body) == REFUSAL_BYTES_MAX:  # nobody has so much to say
                self._stream.hang_up(self)
                self._stream.refused(self._url, self._response, self._body)
