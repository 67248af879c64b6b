"""Watch streams to real etcd and to pyetcd at once, and what came on them, compared.

How events are gathered into messages is each server's own business, and so is the order of messages about
different watchers. What is compared is a *transcript*: for each watch ID what was said about it, in order,
and apart from that the notices about no watcher. Both servers may take their time (real etcd looks after
watchers that are behind ten times a second), so a comparison waits until the transcripts are equal, at most
`SETTLE_SECONDS`.
"""

from __future__ import annotations

import queue
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
from servers import Server
from twins import Twins, shown

from pyetcd.proto.rpc_pb2 import (
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)

WATCH = "/etcdserverpb.Watch/Watch"
SETTLE_SECONDS = 15.0
NO_ID = -1
SLOW_WATCHERS = "etcd_debugging_mvcc_slow_watcher_total"

Item: TypeAlias = tuple[object, ...]


@dataclass
class Transcript:
    """What one stream has said."""

    watchers: dict[int, list[Item]] = field(default_factory=lambda: defaultdict(list))
    refusals: list[Item] = field(default_factory=list)
    notices: set[int] = field(default_factory=set)  # revisions of progress notices for the whole stream
    ids: set[int] = field(default_factory=set)  # those that a client may still cancel
    complaints: list[str] = field(default_factory=list)  # what no server may say

    def add(self, response: WatchResponse) -> None:
        revision = response.header.revision
        said = self.watchers[response.watch_id]
        if response.created or response.canceled:
            item = (
                "created" if response.created else "",
                "canceled" if response.canceled else "",
                response.cancel_reason,
                response.compact_revision,
                revision,
            )
            if response.created and response.canceled:
                self.refusals.append((response.watch_id, *item))
            else:
                said.append(item)
                if response.created:
                    self.ids.add(response.watch_id)
                elif not response.compact_revision:
                    self.ids.discard(response.watch_id)
        elif not response.events:
            if response.watch_id == NO_ID:
                self.notices.add(revision)
            else:
                said.append(("progress", revision))
        for event in response.events:
            if event.kv.mod_revision > revision:
                self.complaints.append(f"an event of a later revision than its header: {shown(response)}")
            said.append(("event", event.SerializeToString(deterministic=True)))

    def creations(self) -> int:
        """How many have been answered."""
        created = sum(item[0] == "created" for said in self.watchers.values() for item in said)
        return created + len(self.refusals)

    def text(self) -> str:
        lines = [f"{watch_id}: {said}" for watch_id, said in sorted(self.watchers.items())]
        return "\n".join([*lines, f"refusals: {self.refusals}", f"notices: {sorted(self.notices)}"])


class Stream:
    """One stream to one server, read by a thread."""

    def __init__(self, server: Server, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.transcript = Transcript()
        self.changed = threading.Condition()
        self.messages = 0
        self.responses: list[WatchResponse] = []
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.call = server.channel.stream_stream(WATCH)(self._sent(), metadata=metadata)
        threading.Thread(target=self._read, daemon=True).start()

    def _sent(self) -> Iterator[bytes]:
        while (request := self._requests.get()) is not None:
            yield request

    def _read(self) -> None:
        try:
            for body in self.call:
                response = WatchResponse.FromString(body)
                with self.changed:
                    self.messages += 1
                    self.responses.append(response)
                    self.transcript.add(response)
                    self.changed.notify_all()
        except grpc.RpcError:
            pass
        with self.changed:
            self.changed.notify_all()

    def send(self, request: WatchRequest | bytes) -> None:
        self._requests.put(request if isinstance(request, bytes) else request.SerializeToString())

    def wait_for(self, holds: Callable[[Transcript], bool], seconds: float = SETTLE_SECONDS) -> bool:
        """Wait until something is true of what was said; False when it is not in time."""
        with self.changed:
            return self.changed.wait_for(lambda: holds(self.transcript), seconds)

    def half_close(self) -> None:
        self._requests.put(None)

    def close(self) -> None:
        self.call.cancel()
        self._requests.put(None)


class TwinStreams:
    """The same stream to both servers."""

    def __init__(self, twins: Twins, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._twins = twins
        self.ours = Stream(twins.ours, metadata)
        self.theirs = Stream(twins.theirs, metadata)
        self.created = 0  # creations answered, refusals included

    def send(self, request: WatchRequest | bytes) -> None:
        text = shown(request) if isinstance(request, WatchRequest) else repr(request)
        self._twins.said.append(f"Watch {id(self):x}\n{text}")
        self.ours.send(request)
        self.theirs.send(request)

    def create(self, request: WatchCreateRequest) -> None:
        """Ask, and wait for the answer of both."""
        self.send(WatchRequest(create_request=request))
        self.created += 1
        for stream in (self.ours, self.theirs):
            answered = stream.wait_for(lambda said: said.creations() >= self.created)
            assert answered, "no answer to the creation"
        self.settle()

    def cancel(self, watch_id: int) -> None:
        """Ask, and wait for the answer of both; of an ID that is not in use there is none. A watcher that is
        behind would not hear all it wants.
        """
        wait_for_watchers(self._twins.theirs)
        self.settle()
        self.send(WatchRequest(cancel_request=WatchCancelRequest(watch_id=watch_id)))
        for stream in (self.ours, self.theirs):
            assert stream.wait_for(lambda said: watch_id not in said.ids), "no answer to the cancellation"
        self.settle()

    def request_progress(self) -> None:
        """Ask until both have said how far they are, since a server is silent while a watcher is behind."""
        self._twins.said.append(f"Watch {id(self):x} progress")
        current = self._twins.history.current
        deadline = time.monotonic() + SETTLE_SECONDS
        streams = (self.ours, self.theirs)
        while not all(current in stream.transcript.notices for stream in streams):
            if time.monotonic() > deadline:
                break
            for stream in streams:
                stream.send(WatchRequest(progress_request=WatchProgressRequest()))
                stream.wait_for(lambda said: current in said.notices, 0.1)
        self.settle()

    def settle(self) -> None:
        """Wait until both have said the same; fail if they do not."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not self._are_equal() and time.monotonic() < deadline:
            with self.ours.changed:
                self.ours.changed.wait(0.01)
        if not self._are_equal():
            self._twins.same("what the streams have said", self._text(self.ours), self._text(self.theirs))
        complaints = [*self.ours.transcript.complaints, *self.theirs.transcript.complaints]
        self._twins.same("what no server may say", complaints, [])

    def _are_equal(self) -> bool:
        with self.ours.changed, self.theirs.changed:
            ours, theirs = self.ours.transcript, self.theirs.transcript
            return (
                {key: said for key, said in ours.watchers.items() if said}
                == {key: said for key, said in theirs.watchers.items() if said}
                and ours.refusals == theirs.refusals
                and ours.notices == theirs.notices
            )

    def _text(self, stream: Stream) -> str:
        with stream.changed:
            return stream.transcript.text()

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def wait_for_watchers(server: Server) -> None:
    """Until no watcher of real etcd is behind: what is written next is then no past to any."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while slow_watchers(server) and time.monotonic() < deadline:
        time.sleep(0.02)  # nothing tells when it is so


def slow_watchers(server: Server) -> int:
    with urllib.request.urlopen(f"{server.client_url}/metrics", timeout=10) as reply:
        for line in reply.read().decode().splitlines():
            if line.startswith(SLOW_WATCHERS):
                return int(float(line.split()[1]))
    raise AssertionError(f"{SLOW_WATCHERS} is not among the metrics")
