"""The lock service: who is first in line has the lock, until its key is deleted or its lease ends.

What Lock returns is the key; the revision in its header, or the key's create revision, grows with every
holder and so serves as a fencing token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pyetcd._native import Meta
from pyetcd.api import line
from pyetcd.api.dispatch import AsyncUnary, Body
from pyetcd.api.inside import Inside
from pyetcd.proto import strict
from pyetcd.proto.errors import UNKNOWN, EtcdError
from pyetcd.proto.lock_pb2 import LockRequest, LockResponse, UnlockRequest
from pyetcd.proto.rpc_pb2 import PutRequest, RangeRequest, RequestOp, TxnRequest

SESSION_EXPIRED = "mutex: session is expired"


class Lock:
    """v3lockpb.Lock."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._leaving: set[asyncio.Task[None]] = set()
        self.coroutines: Mapping[str, AsyncUnary] = {
            "/v3lockpb.Lock/Lock": self.lock,
            "/v3lockpb.Lock/Unlock": self.unlock,
        }

    async def lock(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(LockRequest, payload)
        try:
            key, revision = await self._acquire(self._inside.on_behalf_of(meta), request.name, request.lease)
        except EtcdError as error:
            raise line.as_told(error) from None
        return [self._inside.header(revision), LockResponse(key=key).SerializeToString()]

    async def unlock(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(UnlockRequest, payload)
        try:
            revision = await self._inside.on_behalf_of(meta).delete(request.key)
        except EtcdError as error:
            raise line.as_told(error) from None
        return self._inside.header(revision)

    async def _acquire(self, inside: Inside, name: bytes, lease: int) -> tuple[bytes, int]:
        """The key, and the revision at which it was found to have the lock."""
        lease = await line.session(inside, lease)
        prefix = line.prefix_of(name)
        key = line.key_of(prefix, lease)
        own = RequestOp(request_range=RangeRequest(key=key))
        first = RequestOp(request_range=line.first_in(prefix))
        joined = await inside.txn(
            TxnRequest(
                compare=[line.created_at(key, 0)],
                success=[RequestOp(request_put=PutRequest(key=key, lease=lease)), first],
                failure=[own, first],
            )
        )
        created = joined.header.revision
        if not joined.succeeded:
            created = joined.responses[0].response_range.kvs[0].create_revision
        holders = joined.responses[1].response_range.kvs
        if not holders or holders[0].create_revision == created:
            return key, joined.header.revision
        try:
            await line.until_first(inside, prefix, created)
            found = await inside.get(RangeRequest(key=key))
        except BaseException:  # also when the client has gone: nobody is to wait for one who does not come
            self._leave(inside, key)
            raise
        if not found.kvs:
            raise EtcdError(UNKNOWN, SESSION_EXPIRED)
        return key, found.header.revision

    def _leave(self, inside: Inside, key: bytes) -> None:
        async def leave() -> None:
            try:
                await inside.delete(key)
            except EtcdError:
                pass  # it leaves with its lease

        task = asyncio.get_running_loop().create_task(leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
