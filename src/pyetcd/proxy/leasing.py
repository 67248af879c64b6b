"""`--experimental-leasing-prefix`: linearizable reads of keys that this proxy holds the lease of, by itself.

The protocol is that of clientv3's leasing package, so proxies of either kind share a prefix: see
`leased_keys` for it. Rules that hold here:

* A read of one key leases it, unless the key itself has a lease, somebody else holds it, or it was just
  taken.
* A write goes to the cluster together with the condition that nobody else holds its keys; who does is
  asked to let go, and then it is tried again. A write whose end is in doubt is not repeated.
* What the cluster does to a key beyond a plain put or deletion ends that it is held.
* What is read by one user is not told to another: calls with a token are answered by the cluster.
* Nothing is held longer than the session's lease lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Final

from google.protobuf.message import DecodeError

from pyetcd import logs
from pyetcd.proto import strict
from pyetcd.proto.errors import DEADLINE_EXCEEDED_CODE, INTERNAL, RESOURCE_EXHAUSTED, EtcdError
from pyetcd.proto.rpc_pb2 import (
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseGrantResponse,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from pyetcd.proxy.broadcasts import Ranges
from pyetcd.proxy.cache import Span
from pyetcd.proxy.calls import ENDED, NOBODY, Caller, Done, Handle, Kv, ask
from pyetcd.proxy.keeper import Keeper
from pyetcd.proxy.kv import COMPACT, DELETE_RANGE, PUT, RANGE, TXN, written
from pyetcd.proxy.leased_keys import REVOKE, Held, LeasedKeys
from pyetcd.proxy.members import GRANT
from pyetcd.proxy.namespace import prefix_end, prefixed_span
from pyetcd.proxy.upstream import TOO_LATE, Upstream, status_text

TTL_SECONDS: Final = 60
RETRY_SECONDS: Final = 1.0
TASKS_MAX: Final = 10_000

_log = logs.get("proxy")


class _Running:
    """A call that needs several steps."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def cancel(self) -> None:
        self._task.cancel()


class LeasingKv:
    """Key-value calls, made of `kv`. `hold` has to run."""

    def __init__(self, upstream: Upstream, kv: Kv, ranges: Ranges, prefix: bytes) -> None:
        self._upstream = upstream
        self._loop = upstream.loop
        self._kv = kv
        self._ranges = ranges
        self._prefix = prefix
        self._span: Span = (prefix, prefix_end(prefix))
        self._lease = 0
        self._keys: LeasedKeys | None = None
        self._ready = asyncio.Event()
        self._broken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, path: str, payload: bytes, caller: Caller, done: Done) -> Handle:
        if path == COMPACT:
            return self._kv.begin(path, payload, caller, done)
        if path == RANGE:
            request = strict.parse(RangeRequest, payload)
            held = self._keys.get(request.key) if self._keys is not None else None
            if caller.token or not _is_plain(request) or self._keys is None:
                return self._kv.begin(path, payload, caller, done)
            if held is not None and not held.writers:
                done(held.read(request), 0, "")
                return ENDED
            if held is None and (request.serializable or not self._keys.may_hold(request.key)):
                return self._kv.begin(path, payload, caller, done)
            return self._start(self._get(request, payload, caller), caller, done)
        if path == PUT:
            put = strict.parse(PutRequest, payload)
            return self._start(self._put(put, caller), caller, done)
        if path == DELETE_RANGE:
            deletion = strict.parse(DeleteRangeRequest, payload)
            return self._start(self._delete(deletion, caller), caller, done)
        return self._start(self._txn(strict.parse(TxnRequest, payload), payload, caller), caller, done)

    async def hold(self) -> None:
        """Have a session, until cancelled."""
        while True:
            try:
                lease = await self._open()
            except EtcdError as error:
                told = {"error": status_text(error.code, error.message)}
                _log.warn("failed to create a session for leasing", told)
            else:
                lost = self._loop.create_task(Keeper(self._upstream, lease, TTL_SECONDS).lost())
                broken = self._loop.create_task(self._broken.wait())
                try:
                    await asyncio.wait((lost, broken), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    lost.cancel()
                    broken.cancel()
                    self._close()
                _log.warn("the session for leasing is lost; creating a new one")
            await asyncio.sleep(RETRY_SECONDS)

    async def _open(self) -> int:
        grant = LeaseGrantRequest(TTL=TTL_SECONDS).SerializeToString()
        granted = await ask(
            lambda done: self._upstream.begin(GRANT, grant, NOBODY, done), LeaseGrantResponse, self._loop
        )
        count = RangeRequest(key=self._span[0], range_end=self._span[1], count_only=True).SerializeToString()
        now = await ask(lambda done: self._kv.begin(RANGE, count, NOBODY, done), RangeResponse, self._loop)
        self._broken.clear()
        self._lease = granted.ID
        revision = now.header.revision + 1
        self._keys = LeasedKeys(
            self._prefix, self._lease, revision, self._loop, self._asked, self._broken.set
        )
        self._ranges.add(self._keys, self._span, "")
        self._ready.set()
        return self._lease

    def _close(self) -> None:
        self._ready.clear()
        if self._keys is not None:
            self._ranges.remove(self._keys)
            self._keys = None

    async def _session(self) -> LeasedKeys:
        while self._keys is None:
            await self._ready.wait()
        return self._keys

    def _start(self, work: Coroutine[None, None, bytes], caller: Caller, done: Done) -> Handle:
        if len(self._tasks) >= TASKS_MAX:
            work.close()
            done(None, RESOURCE_EXHAUSTED, "grpc-proxy: too many calls wait for leases")
            return ENDED
        task = self._loop.create_task(self._finish(work, caller, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _Running(task)

    async def _finish(self, work: Coroutine[None, None, bytes], caller: Caller, done: Done) -> None:
        try:
            async with asyncio.timeout_at(caller.deadline):
                answer = await work
        except EtcdError as error:
            done(None, error.code, error.message)
        except TimeoutError:
            done(None, DEADLINE_EXCEEDED_CODE, TOO_LATE)
        except DecodeError as error:
            done(None, INTERNAL, str(error))
        else:
            done(answer, 0, "")

    async def _get(self, request: RangeRequest, payload: bytes, caller: Caller) -> bytes:
        keys = await self._session()
        held = keys.get(request.key)
        while held is not None and held.writers:
            await held.free.wait()
            held = keys.get(request.key)
        if held is not None and keys is self._keys:
            return held.read(request)
        txn = TxnRequest(
            compare=[
                self._unleased(request.key, 1),
                Compare(target=Compare.LEASE, result=Compare.EQUAL, key=request.key, lease=0),
            ]
        )
        read, own = RangeRequest(key=request.key), self._prefix + request.key
        txn.success.add().request_range.CopyFrom(read)
        txn.success.add().request_put.CopyFrom(PutRequest(key=own, lease=self._lease))
        txn.failure.add().request_range.CopyFrom(read)
        txn.failure.add().request_range.CopyFrom(RangeRequest(key=own))
        answer = await self._commit(txn, caller)
        found = answer.responses[0].response_range
        found.header.CopyFrom(answer.header)
        held = Held(found, answer.header.revision)
        is_ours = answer.succeeded
        if not is_ours:
            owners = answer.responses[1].response_range.kvs
            is_ours = bool(owners) and owners[0].lease == self._lease and owners[0].value != REVOKE
        told = held.read(request)
        if is_ours and keys is self._keys:
            keys.add(request.key, held)
        return told

    async def _put(self, request: PutRequest, caller: Caller) -> bytes:
        operation = RequestOp(request_put=request)
        is_plain = not (request.lease or request.ignore_lease or request.ignore_value)

        def wrote(held: Held, answer: TxnResponse) -> bool:
            if is_plain:
                held.put(request.key, request.value, answer.header)
            return is_plain

        answer = await self._write_one(request.key, operation, caller, wrote)
        response = answer.responses[0].response_put
        response.header.CopyFrom(answer.header)
        return response.SerializeToString()

    async def _delete(self, request: DeleteRangeRequest, caller: Caller) -> bytes:
        operation = RequestOp(request_delete_range=request)
        if request.range_end:
            answer = await self._write_many([operation], [(request.key, request.range_end)], caller)
        else:

            def wrote(held: Held, answer: TxnResponse) -> bool:
                held.delete(answer.header)
                return True

            answer = await self._write_one(request.key, operation, caller, wrote)
        response = answer.responses[0].response_delete_range
        response.header.CopyFrom(answer.header)
        return response.SerializeToString()

    async def _txn(self, request: TxnRequest, payload: bytes, caller: Caller) -> bytes:
        spans = list(written((*request.success, *request.failure)))
        if not spans:
            answer = await ask(
                lambda done: self._kv.begin(TXN, payload, caller, done), TxnResponse, self._loop
            )
            return answer.SerializeToString()
        answer = await self._write_many([RequestOp(request_txn=request)], spans, caller)
        response = answer.responses[0].response_txn
        response.header.CopyFrom(answer.header)
        return response.SerializeToString()

    async def _write_one(
        self,
        key: bytes,
        operation: RequestOp,
        caller: Caller,
        wrote: Callable[[Held, TxnResponse], bool],
    ) -> TxnResponse:
        """One key is written. `wrote` brings what is held up to date; False: it cannot be."""
        while True:
            keys = await self._session()
            waiter = keys.wait(key)
            held = keys.get(key)
            if held is not None:
                held.writers += 1
                held.free.clear()
            try:
                txn = TxnRequest(compare=[self._unleased(key, keys.revision(key) + 1)], success=[operation])
                revoke = PutRequest(key=self._prefix + key, value=REVOKE, ignore_lease=True)
                txn.failure.add().request_put.CopyFrom(revoke)
                answer = await self._commit(txn, caller)
                if answer.succeeded:
                    if held is not None and not wrote(held, answer):
                        self._let_go(keys, key, held)
                    return answer
                await waiter.after(answer.header.revision)
            except BaseException:
                if held is not None:
                    self._let_go(keys, key, held)  # who knows what it is now
                raise
            finally:
                keys.wait_no_more(key, waiter)
                if held is not None:
                    held.writers -= 1
                    if not held.writers:
                        held.free.set()

    async def _write_many(
        self, operations: list[RequestOp], spans: list[Span], caller: Caller
    ) -> TxnResponse:
        """Keys of several ranges are written; none of them is held afterwards."""
        while True:
            keys = await self._session()
            for key, end in spans:
                for each in keys.within(key, end) if end else [key]:
                    held = keys.get(each)
                    if held is not None:
                        self._let_go(keys, each, held)
            txn = TxnRequest(success=operations)
            for key, end in spans:
                owned = self._leasing_span(key, end)
                txn.compare.append(self._unleased(key, 1, owned[1]))
                txn.failure.add().request_range.CopyFrom(RangeRequest(key=owned[0], range_end=owned[1]))
            answer = await self._commit(txn, caller)
            if answer.succeeded:
                return answer
            held_by = {kv.key for response in answer.responses for kv in response.response_range.kvs}
            for leasing_key in sorted(held_by):
                await self._take(keys, leasing_key[len(self._prefix) :], caller)

    async def _take(self, keys: LeasedKeys, key: bytes, caller: Caller) -> None:
        """Have whoever holds a key let go of it."""
        waiter = keys.wait(key)
        try:
            revoke = PutRequest(key=self._prefix + key, value=REVOKE, ignore_lease=True)
            txn = TxnRequest(compare=[self._unleased(key, 1)])
            txn.failure.add().request_put.CopyFrom(revoke)
            answer = await self._commit(txn, caller)
            if not answer.succeeded:
                await waiter.after(answer.header.revision)
        finally:
            keys.wait_no_more(key, waiter)

    def _let_go(self, keys: LeasedKeys, key: bytes, held: Held) -> None:
        """Hold a key no more, of our own will."""
        keys.drop(key, held.revision)
        self._asked(key, held.revision + 1)

    def _asked(self, key: bytes, revision: int) -> None:
        """Delete our leasing key, as it was before this revision."""
        if len(self._tasks) < 2 * TASKS_MAX:
            task = self._loop.create_task(self._rescind(key, revision))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _rescind(self, key: bytes, revision: int) -> None:
        txn = TxnRequest(compare=[self._unleased(key, revision)])
        own = Compare(target=Compare.LEASE, result=Compare.EQUAL, key=self._prefix + key, lease=self._lease)
        txn.compare.append(own)
        deletion = DeleteRangeRequest(key=self._prefix + key)
        txn.success.add().request_delete_range.CopyFrom(deletion)
        keys = self._keys
        while keys is not None and keys is self._keys:
            try:
                await self._commit(txn, NOBODY)
                return
            except EtcdError:
                await asyncio.sleep(RETRY_SECONDS)

    def _unleased(self, key: bytes, revision: int, end: bytes = b"") -> Compare:
        """That nobody has leased a key at this revision or later."""
        return Compare(
            target=Compare.CREATE,
            result=Compare.LESS,
            key=self._prefix + key,
            range_end=end,
            create_revision=revision,
        )

    def _leasing_span(self, key: bytes, end: bytes) -> Span:
        return prefixed_span(self._prefix, key, end)

    async def _commit(self, txn: TxnRequest, caller: Caller) -> TxnResponse:
        payload = txn.SerializeToString()
        return await ask(lambda done: self._kv.begin(TXN, payload, caller, done), TxnResponse, self._loop)


def _is_plain(request: RangeRequest) -> bool:
    """One key, as it is now."""
    return bool(request.key) and not request.range_end and request.revision <= 0
