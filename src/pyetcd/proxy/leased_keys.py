"""Which keys this proxy holds the lease of (`--experimental-leasing-prefix`), and what they are.

A key is held by a leasing key, the prefix before its name, that has this proxy's lease. Who wants to
write it puts `REVOKE` there and waits until it is deleted; one watch of the whole prefix sees both. While
a key is held nobody writes it but through its holder, so its holder may answer linearizable reads by
itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from pyetcd.proto.kv_pb2 import Event
from pyetcd.proto.rpc_pb2 import RangeRequest, RangeResponse, ResponseHeader
from pyetcd.proxy.watch_news import News

REVOKE: Final = b"REVOKE"
KEYS_MAX: Final = 10_000
NOTES_MAX: Final = 100_000
BACK_OFF_SECONDS: Final = 2.0  # before a key that was taken away is leased again


class Held:
    """A key that is held since `revision`. `writers`: how many write it just now; readers wait for them."""

    __slots__ = ("answer", "free", "revision", "writers")

    def __init__(self, answer: RangeResponse, revision: int) -> None:
        self.answer = answer
        self.revision = revision
        self.writers = 0
        self.free = asyncio.Event()
        self.free.set()

    def read(self, request: RangeRequest) -> bytes:
        """The answer to a request for this key at the latest revision."""
        told = RangeResponse(header=self.answer.header, count=self.answer.count)
        if self.answer.kvs and not request.count_only:
            kv = self.answer.kvs[0]
            wanted = (
                request.min_mod_revision <= kv.mod_revision
                and (not request.max_mod_revision or kv.mod_revision <= request.max_mod_revision)
                and request.min_create_revision <= kv.create_revision
                and (not request.max_create_revision or kv.create_revision <= request.max_create_revision)
            )
            if wanted:
                copy = told.kvs.add()
                copy.CopyFrom(kv)
                if request.keys_only:
                    copy.value = b""
        return told.SerializeToString()

    def put(self, key: bytes, value: bytes, header: ResponseHeader) -> None:
        """It was written, at the header's revision, by us."""
        if not self.answer.kvs:
            self.answer.kvs.add(key=key, create_revision=header.revision)
            self.answer.count = 1
        kv = self.answer.kvs[0]
        kv.version += 1
        if kv.mod_revision < header.revision:
            kv.mod_revision, kv.value = header.revision, value
            self.answer.header.CopyFrom(header)

    def delete(self, header: ResponseHeader) -> None:
        if header.revision >= self.answer.header.revision:
            del self.answer.kvs[:]
            self.answer.count = 0
            self.answer.header.CopyFrom(header)


class Waiter:
    """Who waits for a leasing key's deletion. `deleted`: the latest revision at which it was."""

    __slots__ = ("deleted", "happened")

    def __init__(self) -> None:
        self.deleted = 0
        self.happened = asyncio.Event()

    async def after(self, revision: int) -> None:
        while self.deleted <= revision:
            self.happened.clear()
            await self.happened.wait()


class LeasedKeys:
    """All keys that are held, for one session; as a receiver it is told of the leasing keys.

    `asked`: somebody wants a key, by a revocation at this revision. `broken`: what happens to leasing keys is
    not known any more.
    """

    def __init__(
        self,
        prefix: bytes,
        lease: int,
        revision: int,
        loop: asyncio.AbstractEventLoop,
        asked: Callable[[bytes, int], None],
        broken: Callable[[], None],
    ) -> None:
        self.next_revision = revision
        self._hidden = len(prefix)
        self._lease = lease
        self._loop = loop
        self._asked = asked
        self._broken = broken
        self._held: dict[bytes, Held] = {}
        self._taken: dict[bytes, tuple[float, int]] = {}  # when, and at which revision
        self._waiters: dict[bytes, list[Waiter]] = {}

    def get(self, key: bytes) -> Held | None:
        return self._held.get(key)

    def revision(self, key: bytes) -> int:
        """Since when it is held; 0: it is not."""
        held = self._held.get(key)
        return held.revision if held is not None else 0

    def may_hold(self, key: bytes) -> bool:
        taken = self._taken.get(key)
        rested = taken is None or self._loop.time() - taken[0] > BACK_OFF_SECONDS
        return rested and len(self._held) < KEYS_MAX

    def add(self, key: bytes, held: Held) -> None:
        """It is ours, unless it was taken away meanwhile."""
        taken = self._taken.get(key)
        if taken is None or taken[1] < held.revision:
            self._held[key] = held

    def drop(self, key: bytes, revision: int = 0) -> Held | None:
        """Hold it no more; at `revision` somebody has asked for it or taken it."""
        if revision:
            self._taken[key] = (self._loop.time(), max(revision, self._taken.get(key, (0.0, 0))[1]))
            while len(self._taken) > NOTES_MAX:
                del self._taken[next(iter(self._taken))]
        return self._held.pop(key, None)

    def within(self, key: bytes, end: bytes) -> list[bytes]:
        """The keys of a range that are held."""
        return [each for each in self._held if key <= each and (end == b"\0" or each < end)]

    def wait(self, key: bytes) -> Waiter:
        waiter = Waiter()
        self._waiters.setdefault(key, []).append(waiter)
        return waiter

    def wait_no_more(self, key: bytes, waiter: Waiter) -> None:
        waiters = self._waiters.get(key, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._waiters.pop(key, None)

    def tell(self, news: News) -> None:
        for event in news.events:
            if event.kv.mod_revision >= self.next_revision:
                self._happened(event)
        if news.last_revision >= self.next_revision:
            self.next_revision = news.last_revision + 1
        if news.canceled:
            self._broken()

    def tell_created(self) -> None: ...

    def end(self, reason: str) -> None:
        self._broken()

    def _happened(self, event: Event) -> None:
        key, revision = event.kv.key[self._hidden :], event.kv.mod_revision
        if event.type == Event.DELETE:
            if 0 < self.revision(key) < revision:
                self.drop(key, revision)
            for waiter in self._waiters.get(key, ()):
                waiter.deleted = revision
                waiter.happened.set()
        elif event.kv.value == REVOKE and event.kv.lease == self._lease:
            self.drop(key, revision)
            self._asked(key, revision)
