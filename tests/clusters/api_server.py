"""What a Kubernetes API server asks of etcd: guarded writes, lists in pages at one revision, watch caches
that begin at a list's revision and are proven fresh by progress notifications, and its compactor.

A cache checks every event against what it holds: none missing, none twice, none out of order. What it holds
whenever the server says "you have seen everything up to R" is kept, to be compared with the list at R.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message
from rpc import Client

from pyetcd.proto.kv_pb2 import Event, KeyValue
from pyetcd.proto.rpc_pb2 import (
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)

WAIT_SECONDS = 20.0
PAGE = 7
COMPACT_KEY = b"compact_rev_key"
EVERY_WATCH = -1  # the watch ID of an answer to a progress request

Items = Mapping[bytes, KeyValue]


def end_of(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes((prefix[-1] + 1,))


class Requests:
    """The requests of one API server, through one member."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def put(self, key: bytes, value: bytes, revision: int, lease: int = 0) -> tuple[bool, KeyValue | None]:
        """Create (revision 0) or update a key that is still as it was at `revision`. Whether it was written,
        and otherwise what is there."""
        put = RequestOp(request_put=PutRequest(key=key, value=value, lease=lease))
        return self._guarded(key, revision, put)

    def delete(self, key: bytes, revision: int) -> tuple[bool, KeyValue | None]:
        return self._guarded(key, revision, RequestOp(request_delete_range=DeleteRangeRequest(key=key)))

    def _guarded(self, key: bytes, revision: int, write: RequestOp) -> tuple[bool, KeyValue | None]:
        unchanged = Compare(
            target=Compare.CompareTarget.MOD,
            result=Compare.CompareResult.EQUAL,
            key=key,
            mod_revision=revision,
        )
        request = TxnRequest(
            compare=[unchanged],
            success=[write],
            failure=[RequestOp(request_range=RangeRequest(key=key))],
        )
        answer = self.client.ask("KV/Txn", request, TxnResponse)
        if answer.succeeded:
            return True, None
        found = answer.responses[0].response_range.kvs
        return False, found[0] if found else None

    def pages(self, prefix: bytes, revision: int = 0) -> Iterator[RangeResponse]:
        """A list, page by page, all at the revision of the first one."""
        start, end = prefix, end_of(prefix)
        while True:
            request = RangeRequest(key=start, range_end=end, limit=PAGE, revision=revision)
            page = self.client.ask("KV/Range", request, RangeResponse)
            assert len(page.kvs) == min(page.count, PAGE), (prefix, revision, page.count)
            assert page.more == (page.count > len(page.kvs)), (prefix, revision, page.count)
            yield page
            if not page.more:
                return
            revision = revision or page.header.revision
            start = page.kvs[-1].key + b"\0"

    def list(self, prefix: bytes, revision: int = 0) -> tuple[int, dict[bytes, KeyValue]]:
        """All there is, and the revision at which that was so. What the pages say of the rest must add up."""
        items: dict[bytes, KeyValue] = {}
        whole = -1
        for page in self.pages(prefix, revision):
            revision = revision or page.header.revision
            whole = len(items) + page.count if whole < 0 else whole
            assert len(items) + page.count == whole, f"page {page} of a list of {whole} at {revision}"
            items.update((item.key, item) for item in page.kvs)
        assert len(items) == whole
        return revision, items

    def current(self, prefix: bytes) -> int:
        """The revision of now, as a consistent read from a cache asks for it."""
        request = RangeRequest(key=prefix, range_end=end_of(prefix), count_only=True)
        return self.client.ask("KV/Range", request, RangeResponse).header.revision

    def compact(self, turn: int, revision: int) -> tuple[bool, int]:
        """One round of the compactor: only who finds the key as it knew it may compact. Whether it did, and
        the version of the key to go on with."""
        known = Compare(
            target=Compare.CompareTarget.VERSION,
            result=Compare.CompareResult.EQUAL,
            key=COMPACT_KEY,
            version=turn,
        )
        request = TxnRequest(
            compare=[known],
            success=[RequestOp(request_put=PutRequest(key=COMPACT_KEY, value=b"%d" % revision))],
            failure=[RequestOp(request_range=RangeRequest(key=COMPACT_KEY))],
        )
        answer = self.client.ask("KV/Txn", request, TxnResponse)
        if not answer.succeeded:
            found = answer.responses[0].response_range.kvs[0]
            return False, found.version
        if revision:
            self.client.ask("KV/Compact", CompactionRequest(revision=revision), CompactionResponse)
        return True, turn + 1


@dataclass(slots=True)
class Cache:
    """One resource as a watch cache holds it. `proven`: what it held at the revisions that the server has
    vouched for, the list's own first."""

    prefix: bytes
    revision: int
    items: dict[bytes, KeyValue]
    proven: dict[int, Items]
    events: int = 0

    def take(self, event: Event, header: int) -> None:
        now = event.kv
        before = self.items.get(now.key)
        shown = f"{now.key!r} at {now.mod_revision}, the cache at {self.revision}"
        assert now.mod_revision <= header, f"from the future: {shown}, the header at {header}"
        assert now.mod_revision >= self.revision, f"out of order: {shown}"
        assert before is None or before.mod_revision < now.mod_revision, f"twice: {shown}"
        assert all(revision < now.mod_revision for revision in list(self.proven)[-1:]), (
            f"vouched for: {shown}"
        )
        assert event.prev_kv == (before or KeyValue()), f"something was missed before {shown}"
        if event.type == Event.EventType.DELETE:
            assert before is not None, f"deletes nothing: {shown}"
            del self.items[now.key]
        else:
            assert now.version == (before.version + 1 if before is not None else 1), shown
            self.items[now.key] = now
        self.revision = now.mod_revision
        self.events += 1

    def vouched(self, revision: int) -> None:
        """The server says that nothing up to `revision` is missing."""
        assert revision >= self.revision, f"vouches for {revision} after events of {self.revision}"
        self.revision = revision
        self.proven[revision] = dict(self.items)


class WatchCaches:
    """Several resources listed at one revision and then watched over one stream, from `with` on. `wrong`: the
    first thing that was."""

    def __init__(self, client: Client, prefixes: Sequence[bytes], *, notified: bool) -> None:
        """`notified`: also take the notifications that come by themselves."""
        self.requests = Requests(client)
        self.caches: list[Cache] = []
        self.wrong: BaseException | None = None
        self.answered = 0  # progress requests
        self.told = 0  # notifications that came by themselves
        self._notified = notified
        self._prefixes = prefixes
        self._changed = threading.Condition()
        self._asked: queue.SimpleQueue[WatchRequest | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> WatchCaches:
        revision = 0
        for place, prefix in enumerate(self._prefixes):
            revision, items = self.requests.list(prefix, revision)
            self.caches.append(Cache(prefix, revision, items, {revision: dict(items)}))
            create = WatchCreateRequest(
                key=prefix,
                range_end=end_of(prefix),
                start_revision=revision + 1,
                progress_notify=self._notified,
                prev_kv=True,
                watch_id=place + 1,
            )
            self._asked.put(WatchRequest(create_request=create))
        self._call = self.requests.client.stream("Watch/Watch", self._sent(), WatchResponse)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._asked.put(None)
        self._call.cancel()
        self._thread.join(WAIT_SECONDS)

    def _sent(self) -> Iterator[Message]:
        while True:
            request = self._asked.get()
            if request is None:
                return
            yield request

    def _read(self) -> None:
        try:
            for answer in self._call:
                with self._changed:
                    self._take(answer)
                    self._changed.notify_all()
        except (grpc.RpcError, AssertionError) as error:
            cancelled = isinstance(error, grpc.RpcError) and error.code() == grpc.StatusCode.CANCELLED
            with self._changed:
                if not cancelled:
                    self.wrong = error
                self._changed.notify_all()

    def _take(self, answer: WatchResponse) -> None:
        assert not answer.canceled, answer
        if answer.created:
            return
        revision = answer.header.revision
        if answer.events:
            for event in answer.events:
                self.caches[answer.watch_id - 1].take(event, revision)
        elif answer.watch_id == EVERY_WATCH:
            self.answered += 1
            for cache in self.caches:
                cache.vouched(revision)
        else:
            self.told += 1
            self.caches[answer.watch_id - 1].vouched(revision)

    def ask_progress(self) -> None:
        self._asked.put(WatchRequest(progress_request=WatchProgressRequest()))

    def wait_fresh(self, revision: int) -> None:
        """Until every cache is known to have all up to `revision`: asks for progress again and again, as etcd
        answers only when all watches of the stream have caught up."""
        for _ in range(int(WAIT_SECONDS / 0.1)):
            self.ask_progress()
            with self._changed:
                self._changed.wait_for(lambda: self.wrong is not None or self._fresh(revision), 0.1)
                if self.wrong is not None:
                    raise self.wrong
                if self._fresh(revision):
                    return
        raise AssertionError(f"not fresh at {revision}: {[cache.revision for cache in self.caches]}")

    def _fresh(self, revision: int) -> bool:
        return all(max(cache.proven) >= revision for cache in self.caches)

    def take_proven(self) -> list[tuple[Cache, int, Items]]:
        """What is to be compared with lists. What was vouched for last stays known to the caches."""
        with self._changed:
            if self.wrong is not None:
                raise self.wrong
            taken = [(cache, at, items) for cache in self.caches for at, items in cache.proven.items()]
            for cache in self.caches:
                cache.proven = dict(list(cache.proven.items())[-1:])
            return taken

    def wait_told(self) -> None:
        """Until a notification has come by itself to each cache since now."""
        seen = self.told
        with self._changed:
            came = self._changed.wait_for(
                lambda: self.wrong is not None or self.told >= seen + len(self.caches), WAIT_SECONDS
            )
            if self.wrong is not None:
                raise self.wrong
        assert came, "no notification came by itself"
