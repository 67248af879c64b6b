"""Streams of clients that are kept open: what comes on each is collected, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType

import grpc
from google.protobuf.message import Message
from members import Member

from pyetcd.proto.rpc_pb2 import (
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

WAIT_SECONDS = 10.0


class Stream:
    """One stream to one member, from `with` on. `ended`: code and words, once it has ended."""

    def __init__(self, member: Member, path: str, kind: type[Message]) -> None:
        self.member = member
        self.ended: tuple[str, str] | None = None
        self._stopping = threading.Event()
        self._news = threading.Condition()
        self._call = member.client.stream(path, self._requests(), kind)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._call.cancel()
        self._thread.join(WAIT_SECONDS)

    def _requests(self) -> Iterator[Message]:
        raise NotImplementedError

    def _take(self, answer: object) -> None:
        raise NotImplementedError

    def _read(self) -> None:
        try:
            for answer in self._call:
                with self._news:
                    self._take(answer)
                    self._news.notify_all()
        except grpc.RpcError as error:
            ended = error.code().name, str(error.details())
        else:
            ended = "OK", ""
        with self._news:
            self.ended = ended
            self._news.notify_all()


class Watching(Stream):
    """A watch of a prefix; `seen` are the values in their order."""

    def __init__(self, member: Member, prefix: bytes) -> None:
        self.seen: list[bytes] = []
        self._prefix = prefix
        self._created = threading.Event()
        super().__init__(member, "Watch/Watch", WatchResponse)

    def __enter__(self) -> Watching:
        super().__enter__()
        assert self._created.wait(WAIT_SECONDS), "no watch was created"
        return self

    def _requests(self) -> Iterator[Message]:
        create = WatchCreateRequest(key=self._prefix, range_end=self._prefix[:-1] + b"0")
        yield WatchRequest(create_request=create)
        self._stopping.wait()

    def _take(self, answer: object) -> None:
        assert isinstance(answer, WatchResponse)
        if answer.created:
            self._created.set()
        self.seen += [event.kv.value for event in answer.events]

    def wait(self, value: bytes) -> None:
        with self._news:
            came = self._news.wait_for(lambda: value in self.seen or self.ended is not None, WAIT_SECONDS)
        assert came, f"{value!r} did not come from {self.member!r}"
        assert self.ended is None, f"the watch at {self.member!r} has ended: {self.ended}"


class KeepingAlive(Stream):
    """A lease is kept alive all `every` seconds. `renewed`: what it had to live, and when that was said."""

    def __init__(self, member: Member, lease: int, every: float) -> None:
        self.renewed: list[tuple[int, float]] = []
        self._lease = lease
        self._every = every
        super().__init__(member, "Lease/LeaseKeepAlive", LeaseKeepAliveResponse)

    def _requests(self) -> Iterator[Message]:
        while not self._stopping.wait(self._every):
            yield LeaseKeepAliveRequest(ID=self._lease)

    def _take(self, answer: object) -> None:
        assert isinstance(answer, LeaseKeepAliveResponse)
        self.renewed.append((answer.TTL, time.monotonic()))

    def wait(self, since: float) -> None:
        """Until it has been renewed after `since`."""
        with self._news:
            came = self._news.wait_for(
                lambda: any(at > since for _, at in self.renewed) or self.ended is not None, WAIT_SECONDS
            )
        assert came, f"lease {self._lease:x} was not renewed by {self.member!r}"
        assert self.ended is None, f"keeping alive at {self.member!r} has ended: {self.ended}"
