"""The watches of the proxy at the cluster: those of one token share a stream.

A stream that breaks is opened again, at the next endpoint, and each watch goes on where it was: nothing is
lost and nothing comes twice. What ends for good is told with why.

Watches are made one after the other, as clientv3 does it: their ids are the other side's to choose (a proxy
before the cluster chooses them whatever is asked for), so the answer to a creation is known by its turn.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from pyetcd.proto.errors import INTERNAL, NO_LEADER, UNAVAILABLE, EtcdError
from pyetcd.proto.rpc_pb2 import (
    WatchCancelRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from pyetcd.proxy.calls import Caller
from pyetcd.proxy.upstream import Line, Upstream, status_text

WATCH: Final = "/etcdserverpb.Watch/Watch"
PAUSES_SECONDS: Final = (0.01, 1.0)  # before a stream is opened again: the first and the longest


class Watch(Protocol):
    """One of them, as its owner sees it."""

    def creation(self) -> WatchCreateRequest:
        """What to ask for, now: the revision is where it is to go on."""

    def told(self, response: WatchResponse) -> None: ...

    def lost(self, reason: str) -> None:
        """It will not be told anything any more."""


class WatchLine:
    """All watches of one token; with `has_leader` they end where no leader is known."""

    def __init__(self, upstream: Upstream, token: str, *, has_leader: bool = False) -> None:
        self._upstream = upstream
        self._caller = Caller(token)
        self._has_leader = has_leader
        self._watches: dict[int, Watch] = {}
        self._last = 0
        self._to_create: deque[int] = deque()
        self._creating = 0  # the number of the one that is being made
        self._numbers: dict[int, int] = {}  # by the other side's ids
        self._ids: dict[int, int] = {}
        self._line: Line | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pause = PAUSES_SECONDS[0]

    def __len__(self) -> int:
        return len(self._watches)

    def add(self, watch: Watch) -> int:
        """Returns its number, for `remove`."""
        self._last += 1
        self._watches[self._last] = watch
        self._to_create.append(self._last)
        if self._line is not None:
            self._create_next()
        elif self._timer is None:
            self._open()
        return self._last

    def remove(self, number: int) -> None:
        """Nothing more is told of it. Without any the stream is closed."""
        was_there = self._watches.pop(number, None) is not None
        if not self._watches:
            self.close()
        elif was_there and number in self._ids:
            self._cancel(self._ids.pop(number))

    def close(self) -> None:
        self._watches.clear()
        self._forget_stream()
        self._to_create.clear()
        if self._line is not None:
            self._line.cancel()
            self._line = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_message(self, message: bytes) -> None:
        assert self._line is not None
        self._line.read()
        self._pause = PAUSES_SECONDS[0]
        response = WatchResponse.FromString(message)
        if response.created:
            number, self._creating = self._creating, 0
            if not response.canceled and number in self._watches:
                self._numbers[response.watch_id] = number
                self._ids[number] = response.watch_id
            elif not response.canceled:
                self._cancel(response.watch_id)  # nobody wants it any more
            self._create_next()
        else:
            number = self._numbers.get(response.watch_id, 0)
        watch = self._watches.get(number)
        if watch is None:
            return
        if response.canceled:
            del self._watches[number]
            self._numbers.pop(self._ids.pop(number, 0), None)
        watch.told(response)

    def on_end(self, code: int, text: str) -> None:
        self._line = None
        self._forget_stream()
        if not self._watches:
            return
        if code in (UNAVAILABLE, INTERNAL) and text != NO_LEADER.message:
            self._open_later()
            return
        watches, self._watches = self._watches, {}
        for watch in watches.values():
            watch.lost(status_text(code, text))

    def _open_later(self) -> None:
        self._timer = self._upstream.loop.call_later(self._pause, self._open)
        self._pause = min(self._pause * 2, PAUSES_SECONDS[1])

    def _open(self) -> None:
        self._timer = None
        try:
            self._line = self._upstream.open(WATCH, self._caller, self, has_leader=self._has_leader)
        except EtcdError:
            self._open_later()
            return
        self._to_create = deque(self._watches)
        self._create_next()

    def _create_next(self) -> None:
        while self._to_create and not self._creating and self._line is not None:
            number = self._to_create.popleft()
            watch = self._watches.get(number)
            if watch is None:
                continue
            self._creating = number
            self._line.send(WatchRequest(create_request=watch.creation()).SerializeToString())

    def _cancel(self, watch_id: int) -> None:
        self._numbers.pop(watch_id, None)
        if self._line is not None:
            cancel = WatchRequest(cancel_request=WatchCancelRequest(watch_id=watch_id))
            self._line.send(cancel.SerializeToString())

    def _forget_stream(self) -> None:
        self._creating = 0
        self._numbers.clear()
        self._ids.clear()
