"""A store and its naive twin, driven alike."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message
from mvcc_fakes import Background, Book, MemoryBackend
from mvcc_twin import Twin

from pyetcd.mvcc import checks, deletion, ranges, reader, sorting, stream, txn, writer
from pyetcd.mvcc.answer import Answer, Job, Unfinished, finish
from pyetcd.mvcc.compaction import CompactionConfig
from pyetcd.mvcc.restore import restore
from pyetcd.mvcc.store import Store
from pyetcd.proto.errors import EtcdError
from pyetcd.proto.rpc_pb2 import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from pyetcd.storage import schema
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import OsFiles

LEASES = (7, 1 << 62)
TINY = (
    (reader, "SLICE_KEYS", 2),
    (reader, "COUNT_KEYS", 2),
    (ranges, "SLICE_KEYS", 2),
    (ranges, "AT_ONCE_SLICES", 1),
    (deletion, "SLICE_KEYS", 1),
    (txn, "AT_ONCE_SLICES", 1),
    (txn, "AT_ONCE_KEYS", 1),
    (writer, "AT_ONCE_KEYS", 1),
    (sorting, "RUN", 2),
    (ranges, "TOP_ROWS", 2),
    (stream, "SLICE_KEYS", 2),
)
"""Slices of one or two keys, so that everything that can be cut into slices is."""


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except EtcdError as error:
        return (error.code, error.message)


def decode(kind: type[Message], work: Answer | Job[Answer] | Unfinished) -> Message:
    if isinstance(work, Unfinished):
        work = finish(work.steps)
    answer = work if isinstance(work, Answer) else finish(work)
    response = kind.FromString(b"".join(answer.body))
    response.header.revision = answer.revision  # type: ignore[attr-defined]
    return response


class Pair:
    """The store under test and its twin, driven alike."""

    def __init__(self, path: str | None = None) -> None:
        """`path`: keep the keys in a real backend there."""
        self.path = path
        self.backend = self.open()
        self.book = Book(*LEASES)
        self.background = Background()
        self.store = Store(self.backend, self.book, self.background, None, CompactionConfig(7, 0.0))
        self.twin = Twin(set(LEASES))
        self.told: list[int] = []
        self.listen()

    def open(self) -> MemoryBackend | Backend:
        if self.path is None:
            return MemoryBackend()
        backend = Backend.open(OsFiles(), self.path, None, sync=False)
        schema.create_buckets(backend)
        return backend

    def listen(self) -> None:
        self.store.watch(
            lambda revision, changes: self.told.append(revision),
            lambda revision, spans: self.told.append(revision),
        )

    async def apply(self, request: object) -> None:
        store, twin = self.store, self.twin
        if isinstance(request, PutRequest):
            mine = outcome(lambda: decode(PutResponse, store.put(request)))
            theirs = outcome(lambda: twin.put(request))
        elif isinstance(request, DeleteRangeRequest):
            mine = outcome(lambda: decode(DeleteRangeResponse, store.delete_range(request)))
            theirs = outcome(lambda: twin.delete_range(request))
        elif isinstance(request, RangeRequest):
            mine = outcome(lambda: decode(RangeResponse, store.range(request)))
            theirs = outcome(lambda: twin.range(request))
        elif isinstance(request, TxnRequest):
            apply = store.txn_read if checks.is_read_only(request) else store.txn
            mine = outcome(lambda: decode(TxnResponse, apply(request)))
            theirs = outcome(lambda: twin.txn(request))
        elif isinstance(request, int):
            mine = outcome(lambda: store.compact(request))
            theirs = outcome(lambda: twin.compact(request))
            await store.compacted()
        elif request == "background":
            self.background.step()
            return
        else:
            await self.restart()
            return
        assert mine == theirs, request

    async def restart(self) -> None:
        await self.store.close()
        if isinstance(self.backend, Backend):
            await self.backend.close()
            self.backend = self.open()
        else:
            assert not self.backend.held
        restored = finish(restore(self.backend))
        assert restored.leases == self.book.keys
        self.background = Background()
        self.store = Store(self.backend, self.book, self.background, restored, CompactionConfig(7, 0.0))
        self.twin.hashes.clear()
        self.store.resume_compaction()
        self.listen()

    async def check_all(self) -> None:
        store, twin = self.store, self.twin
        for revision in range(max(twin.compacted, 1), twin.revision + 1):
            for request in (
                RangeRequest(key=b"\0", range_end=b"\0", revision=revision),
                RangeRequest(key=b"b", range_end=b"d", revision=revision, limit=1),
            ):
                assert outcome(lambda: decode(RangeResponse, store.range(request))) == outcome(  # noqa: B023
                    lambda: twin.range(request)  # noqa: B023
                )
        self.background.run()
        assert self.backend.scan(b"key", b"") == twin.stored()
        self.check_index()
        assert self.told == sorted(set(self.told))
        if twin.revision > 1:
            assert self.told[-1] == twin.revision
        if isinstance(self.backend, MemoryBackend):
            assert not self.backend.held

    def check_index(self) -> None:
        """The index is what a restart would make of the backend: nothing is missing, nothing is left over."""
        have, restored = self.store._reader.index, finish(restore(self.backend)).index
        assert have.live == restored.live
        assert {key: _listed(past) for key, past in have.history.items()} == {
            key: _listed(past) for key, past in restored.history.items()
        }
        assert list(have.keys) == sorted(have.live)
        assert list(have.dead) == sorted(key for key in have.history if key not in have.live)

    async def close(self) -> None:
        await self.store.close()
        if isinstance(self.backend, Backend):
            await self.backend.close()


def _listed(past: int | list[int]) -> list[int]:
    return [past] if isinstance(past, int) else past
