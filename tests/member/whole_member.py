"""A whole member in this process, on a disk of the test's choice, with nothing around it: no ports, no
threads.

What would run in a thread runs in place, so the order of what reaches the disk is the same each time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar, cast

from pyetcd.member.config import ServerConfig
from pyetcd.member.member import Member
from pyetcd.member.opening import Opened, open_member
from pyetcd.mvcc.answer import Answer, finish
from pyetcd.peer.wire import PeerWire
from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse
from pyetcd.storage.files import Files, OsFiles

SEGMENT_BYTES = 4 << 10
CURRENT_SECONDS = 20.0

NOWHERE = cast(PeerWire, SimpleNamespace(server=None))  # a member without others dials nobody

T = TypeVar("T")


class InPlace(Executor):
    """An executor that does it at once."""

    def submit(self, work: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(work(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class NowAppender:
    """Writes and syncs at once, through `Files`."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._sequence = 0

    def append(self, fd: int, offset: int, data: bytes | Sequence[bytes], sync: bool = True) -> int:
        self._files.pwrite(fd, data if isinstance(data, bytes) else b"".join(data), offset)
        if sync:
            self._files.fdatasync(fd)
        self._sequence += 1
        return self._sequence

    def completed(self) -> int:
        return self._sequence


class LaterAppender(NowAppender):
    """Writes and syncs a turn later, what has come together by then with one sync, as the log thread does."""

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self.on_done: Callable[[], object] = lambda: None
        self._queue: list[tuple[int, int, bytes, bool]] = []

    def append(self, fd: int, offset: int, data: bytes | Sequence[bytes], sync: bool = True) -> int:
        if not self._queue:
            asyncio.get_running_loop().call_soon(self.close)
        self._queue.append((fd, offset, data if isinstance(data, bytes) else b"".join(data), sync))
        return self._sequence + len(self._queue)

    def close(self) -> None:
        """Do what is queued."""
        queue, self._queue = self._queue, []
        for fd, offset, data, _ in queue:
            self._files.pwrite(fd, data, offset)
        for fd in {fd: None for fd, _, _, sync in queue if sync}:
            self._files.fdatasync(fd)
        self._sequence += len(queue)
        if queue:
            self.on_done()


def configured(directory: Path, **settings: object) -> ServerConfig:
    quick = {"heartbeat_interval_ms": 5, "election_timeout_ms": 50}
    return replace(ServerConfig(), data_dir=str(directory), **{**quick, **settings})


class UnsyncedFiles(OsFiles):
    """For what is thrown away a moment later."""

    def fdatasync(self, fd: int) -> None: ...
    def fsync(self, fd: int) -> None: ...
    def fsync_dir(self, path: str) -> None: ...


def opened(
    config: ServerConfig,
    files: Files,
    executor: Executor | None = None,
    appender: NowAppender | None = None,
) -> Opened:
    return open_member(
        config,
        files,
        executor or InPlace(),
        appender or NowAppender(files),
        random.Random(1),
        segment_bytes=SEGMENT_BYTES,
    )


@asynccontextmanager
async def serving(
    config: ServerConfig,
    files: Files,
    executor: Executor | None = None,
    failures: list[BaseException] | None = None,
    appender: LaterAppender | None = None,
) -> AsyncIterator[Member]:
    """A member that has applied all that is committed; it is stopped at the end. `failures` that are not
    asked for must not be."""
    failed: list[BaseException] = []
    loop = asyncio.get_running_loop()
    parts = opened(config, files, executor, appender)
    failures = failed if failures is None else failures
    member = Member(config, parts, loop, 1_700_000_000_000, NOWHERE, failures.append, lambda: None)
    if appender is not None:
        appender.on_done = member.on_wake
    member.start()
    try:
        await asyncio.wait_for(member.current(), CURRENT_SECONDS)
        yield member
    finally:
        if appender is not None:
            appender.close()
        await member.stop()
    assert not failed, failed


async def put(member: Member, key: bytes, value: bytes) -> int:
    """Returns the revision."""
    request = PutRequest(key=key, value=value)
    answer = await member.request(InternalRaftRequest.PUT_FIELD_NUMBER, request.SerializeToString(), request)
    return answer.revision


async def delete(member: Member, key: bytes) -> int:
    """Returns the revision."""
    request = DeleteRangeRequest(key=key)
    answer = await member.request(
        InternalRaftRequest.DELETE_RANGE_FIELD_NUMBER, request.SerializeToString(), request
    )
    return answer.revision


def content(member: Member) -> list[KeyValue]:
    """All keys as they are now."""
    work = member.store.range(RangeRequest(key=b"\0", range_end=b"\0"))
    answer = work if isinstance(work, Answer) else finish(work)
    return list(RangeResponse.FromString(b"".join(answer.body)).kvs)
