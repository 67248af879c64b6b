"""Requests that a service of this member makes of the member itself: writes through the log, linearizable
reads, watches.

The lock and election services are recipes over these, as real etcd's are over a client within its server.
They pass neither the wire nor the dispatcher, and are in no count of gRPC's.
"""

from __future__ import annotations

import asyncio
from collections import deque

from pyetcd._native import Meta
from pyetcd.api.dispatch import Body
from pyetcd.api.local_calls import LocalCalls
from pyetcd.auth.caller import NOBODY
from pyetcd.member.member import Member
from pyetcd.member.quota import txn_cost
from pyetcd.mvcc import checks
from pyetcd.mvcc.answer import Answer
from pyetcd.mvcc.watch_group import Shape
from pyetcd.mvcc.watch_hub import AUTO_ID, WatchHub
from pyetcd.proto import errors
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import (
    DeleteRangeRequest,
    LeaseGrantRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
    WatchResponse,
)

TXN = InternalRaftRequest.TXN_FIELD_NUMBER
DELETE_RANGE = InternalRaftRequest.DELETE_RANGE_FIELD_NUMBER
GRANT = InternalRaftRequest.LEASE_GRANT_FIELD_NUMBER


class Inside:
    """Every method from the loop; each raises the EtcdError that a client would be told."""

    def __init__(
        self, member: Member, hub: WatchHub, local: LocalCalls, meta: Meta | None = None
    ) -> None:
        """`meta`: of the call on whose behalf."""
        self._meta = meta
        self._member = member
        self._hub = hub
        self._local = local

    def on_behalf_of(self, meta: Meta) -> Inside:
        """The same, with the permissions of this call's client."""
        return Inside(self._member, self._hub, self._local, meta)

    def _check_read(self, key: bytes, end: bytes) -> None:
        auth = self._member.auth
        if auth.enabled:
            caller = None if self._meta is None else self._member.identity.caller(self._meta)
            auth.check_read(caller or NOBODY, key, end)

    def header(self, revision: int) -> bytes:
        """The encoded header field of an answer."""
        return self._member.header(revision)

    async def txn(self, request: TxnRequest) -> TxnResponse:
        """Its response has a header with nothing but the revision."""
        member = self._member
        checks.check_txn(request, member.config.max_txn_ops)
        cost = txn_cost(request) if member.is_nearly_full() else 0
        answer = await member.request(TXN, request.SerializeToString(), request, cost, self._meta)
        response = TxnResponse.FromString(b"".join(answer.body))
        response.header.revision = answer.revision
        return response

    async def delete(self, key: bytes) -> int:
        """Delete a key, if it is there; returns the revision after that."""
        request = DeleteRangeRequest(key=key)
        checks.check_delete_range(request)
        payload = request.SerializeToString()
        return (await self._member.request(DELETE_RANGE, payload, request, meta=self._meta)).revision

    async def grant(self, ttl: int) -> int:
        """A new lease of so many seconds."""
        request = LeaseGrantRequest(ID=self._member.new_lease_id(), TTL=ttl)
        if self._meta is not None:
            self._member.identity.require(self._meta)
        await self._member.request(GRANT, request.SerializeToString(), request, meta=self._meta)
        return request.ID

    async def get(self, request: RangeRequest) -> RangeResponse:
        """Linearizable. Its response has a header with nothing but the revision."""
        checks.check_range(request)
        member = self._member
        times = member.times
        asked, begun = times.clock(), 0.0
        try:
            if not member.reads_are_current:
                await member.current()
            begun = times.clock()
            self._check_read(request.key, request.range_end)
            work = member.store.range(request)
            answer = work if isinstance(work, Answer) else await member.jobs.run(work)
        except Exception as error:
            times.read(request, asked, begun, None, error)
            raise
        times.read(request, asked, begun, answer, None)
        response = RangeResponse.FromString(b"".join(answer.body))
        response.header.revision = answer.revision
        return response

    def watch(self, key: bytes, end: bytes | None, revision: int) -> LocalWatch:
        """Watch a key, or the keys of [key, end), from `revision` on. To be closed."""
        self._check_read(key, end or b"")
        return LocalWatch(self._hub, self._local, Shape(key, end), revision)


class LocalWatch:
    """One watcher, and the responses that nobody has taken yet. The hub bounds those as it does for clients
    that read slowly."""

    def __init__(self, hub: WatchHub, local: LocalCalls, shape: Shape, revision: int) -> None:
        self._hub = hub
        self._local = local
        self._responses: deque[bytes] = deque()
        self._unread_bytes = 0
        self._news = asyncio.Event()
        self._call = local.open(self)
        self._stream = hub.open(self._call)
        hub.create(self._stream, AUTO_ID, shape, revision)

    def sent(self, body: Body) -> int:
        """From the hub."""
        response = body if isinstance(body, bytes) else b"".join(body)
        self._responses.append(response)
        self._unread_bytes += len(response)
        self._news.set()
        return self._unread_bytes

    def replied(self, body: Body) -> None:
        """A watch is no unary call."""

    def ended(self, code: int, message: str) -> None:
        """The hub ends no stream of ours."""

    async def next(self) -> WatchResponse:
        """The next response with events. Raises COMPACTED."""
        while True:
            while not self._responses:
                self._news.clear()
                await self._news.wait()
            data = self._responses.popleft()
            self._unread_bytes -= len(data)
            if not self._responses:
                self._hub.writable(self._stream)
            response = WatchResponse.FromString(data)
            if response.canceled:
                raise errors.COMPACTED
            if response.events:
                return response

    def close(self) -> None:
        self._hub.close(self._stream)
        self._local.close(self._call, errors.OK)
