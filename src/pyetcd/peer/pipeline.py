"""Messages as single requests, `POST /raft`: for when there is no stream, and for those who get none.

At most `POSTS_MAX` requests are under way and `QUEUE_MAX` messages wait; what is more is refused, which is
the caller's to report. Requests overtake each other: raft does not mind.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from pyetcd import logs
from pyetcd._native import FAILED, RESPONSE
from pyetcd.cluster.urls import Url
from pyetcd.peer.context import Link
from pyetcd.peer.headers import hex_id
from pyetcd.peer.posting import PostFailed, check_post_response
from pyetcd.peer.wire import RAFT_PATH, reason_of
from pyetcd.raft import Message, MessageType
from pyetcd.raft.codec import encode_message

NAME: Final = "pipeline"
POSTS_MAX: Final = 4
QUEUE_MAX: Final = 64
# etcd waits for as long as the connection seems to live; a member that is cut off without a word would keep
# all requests for minutes.
TIMEOUT_SECONDS: Final = 10.0
BYTES_PER_SECOND_MIN: Final = 1 << 20

_log = logs.get("peer")


class Pipeline:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._headers = link.identity.post_headers("application/protobuf")
        self._waiting: deque[Message] = deque()
        self._posts: set[_Post] = set()
        self._stopped = False
        _log.info("started HTTP pipelining with remote peer", _fields(link))

    def put(self, message: Message) -> bool:
        """False: there is no room for it."""
        if self._stopped:
            return True  # nobody is to hear of it any more
        if len(self._posts) < POSTS_MAX:
            self._post(message)
        elif len(self._waiting) < QUEUE_MAX:
            self._waiting.append(message)
        else:
            return False
        return True

    def stop(self) -> None:
        """Drop what waits and give up what is under way."""
        self._stopped = True
        self._waiting.clear()
        for post in self._posts:
            self._link.wire.hang_up(post.call)
        self._posts.clear()
        _log.info("stopped HTTP pipelining with remote peer", _fields(self._link))

    def _post(self, message: Message) -> None:
        link = self._link
        url = link.picker.pick()
        body = encode_message(message)
        post = _Post(self, message, url, len(body))
        self._posts.add(post)
        post.call = link.wire.dial(
            url,
            "POST",
            RAFT_PATH,
            self._headers,
            post,
            body=body,
            timeout_seconds=TIMEOUT_SECONDS + len(body) / BYTES_PER_SECOND_MIN,
        )

    def ended(self, post: _Post, error: PostFailed | None) -> None:
        """A request is over."""
        self._posts.discard(post)
        link, to = self._link, post.message.to
        is_snapshot = post.message.type == MessageType.MsgSnap
        if error is None:
            link.status.activate()
            link.counters.sent_bytes += post.size
            if is_snapshot:
                link.raft.report_snapshot(to, True)
        else:
            link.picker.unreachable(post.url)
            link.status.deactivate(NAME, "write", str(error))
            link.counters.sent_failures += 1
            link.raft.report_unreachable(to)
            if is_snapshot:
                link.raft.report_snapshot(to, False)
            if error.removed:
                link.raft.member_removed()
        if self._waiting and not self._stopped:
            self._post(self._waiting.popleft())


class _Post:
    """Owns one request."""

    __slots__ = ("_pipeline", "call", "message", "size", "url")

    def __init__(self, pipeline: Pipeline, message: Message, url: Url, size: int) -> None:
        self._pipeline = pipeline
        self.message = message
        self.url = url
        self.size = size
        self.call = 0

    def on_event(self, kind: int, payload: object) -> None:
        link = self._pipeline._link
        error: PostFailed | None = None
        if kind == RESPONSE:
            url = self.url.text + RAFT_PATH
            try:
                check_post_response(payload, url, link.id, link.identity.cluster_id)  # type: ignore[arg-type]
            except PostFailed as failed:
                error = failed
        elif kind == FAILED:
            error = PostFailed(reason_of(payload))
        else:
            return
        self._pipeline.ended(self, error)


def _fields(link: Link) -> logs.Fields:
    return {"local-member-id": hex_id(link.identity.local_id), "remote-peer-id": hex_id(link.id)}
