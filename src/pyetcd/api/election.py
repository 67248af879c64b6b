"""The election service: candidates stand in line, the first one leads, and the value of its key is what it
proclaims.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pyetcd._native import Meta
from pyetcd.api import line
from pyetcd.api.dispatch import AsyncUnary, Body, OpenStream, Outbox
from pyetcd.api.inside import Inside
from pyetcd.api.leadership import Leadership
from pyetcd.api.one_request import OneRequest
from pyetcd.proto import errors, strict
from pyetcd.proto.election_pb2 import (
    CampaignRequest,
    CampaignResponse,
    LeaderKey,
    LeaderRequest,
    LeaderResponse,
    ProclaimRequest,
    ResignRequest,
)
from pyetcd.proto.errors import UNKNOWN, EtcdError
from pyetcd.proto.kv_pb2 import Event, KeyValue
from pyetcd.proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp

NOT_LEADER = "election: not leader"
NO_LEADER = "election: no leader"
MISSING_LEADER_KEY = '"leader" field must be provided'
BACKLOG_BYTES = 1 << 20  # unsent bytes beyond which an observer waits for its client


class Election:
    """v3electionpb.Election."""

    def __init__(self, inside: Inside, outbox: Outbox, leadership: Leadership) -> None:
        self._inside = inside
        self._outbox = outbox
        self._leadership = leadership
        self._leaving: set[asyncio.Task[None]] = set()
        self.coroutines: Mapping[str, AsyncUnary] = {
            "/v3electionpb.Election/Campaign": self.campaign,
            "/v3electionpb.Election/Proclaim": self.proclaim,
            "/v3electionpb.Election/Leader": self.leader,
            "/v3electionpb.Election/Resign": self.resign,
        }
        self.streams: Mapping[str, OpenStream] = {"/v3electionpb.Election/Observe": self.observe}

    async def campaign(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(CampaignRequest, payload)
        try:
            leader, revision = await self._campaign(self._inside.on_behalf_of(meta), request)
        except EtcdError as error:
            raise line.as_told(error) from None
        return [self._inside.header(revision), CampaignResponse(leader=leader).SerializeToString()]

    async def proclaim(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(ProclaimRequest, payload)
        if not request.HasField("leader"):
            raise EtcdError(UNKNOWN, MISSING_LEADER_KEY)
        inside = self._inside.on_behalf_of(meta)
        try:
            lease = await line.session(inside, request.leader.lease)
            return inside.header(await self._proclaim(inside, request.leader, lease, request.value))
        except EtcdError as error:
            raise line.as_told(error) from None

    async def leader(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(LeaderRequest, payload)
        try:
            inside = self._inside.on_behalf_of(meta)
            found = await inside.get(line.first_in(line.prefix_of(request.name)))
        except EtcdError as error:
            raise line.as_told(error) from None
        if not found.kvs:
            raise EtcdError(UNKNOWN, NO_LEADER)
        return _told(self._inside, found.header.revision, found.kvs[0])

    async def resign(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(ResignRequest, payload)
        if not request.HasField("leader"):
            raise EtcdError(UNKNOWN, MISSING_LEADER_KEY)
        inside = self._inside.on_behalf_of(meta)
        try:
            await line.session(inside, request.leader.lease)  # in vain, but real etcd grants one too
            return inside.header(await self._resign(inside, request.leader))
        except EtcdError as error:
            raise line.as_told(error) from None

    def observe(self, call: int, meta: Meta) -> Observer:
        observer = Observer(self._inside.on_behalf_of(meta), self._outbox, self._leadership, call)
        self._leadership.admit(call, meta, observer.end)
        return observer

    async def _campaign(self, inside: Inside, request: CampaignRequest) -> tuple[LeaderKey, int]:
        """What is won, and the revision of joining the line."""
        lease = await line.session(inside, request.lease)
        prefix = line.prefix_of(request.name)
        key = line.key_of(prefix, lease)
        put = RequestOp(request_put=PutRequest(key=key, value=request.value, lease=lease))
        own = RequestOp(request_range=RangeRequest(key=key))
        joined = await inside.txn(line.only_if(line.created_at(key, 0), put, own))
        won = LeaderKey(name=request.name, key=key, rev=joined.header.revision, lease=lease)
        if not joined.succeeded:
            present = joined.responses[0].response_range.kvs[0]
            won.rev = present.create_revision
            if present.value != request.value:
                try:
                    await self._proclaim(inside, won, lease, request.value)
                except BaseException:
                    self._leave(inside, won)
                    raise
        try:
            await line.until_first(inside, prefix, won.rev)
        except asyncio.CancelledError:  # the client has gone: nobody is to wait for one who does not lead
            self._leave(inside, won)
            raise
        return won, joined.header.revision

    async def _proclaim(self, inside: Inside, leader: LeaderKey, lease: int, value: bytes) -> int:
        """The revision of it. Raises NOT_LEADER."""
        put = RequestOp(request_put=PutRequest(key=leader.key, value=value, lease=lease))
        done = await inside.txn(line.only_if(line.created_at(leader.key, leader.rev), put))
        if not done.succeeded:
            raise EtcdError(UNKNOWN, NOT_LEADER)
        return done.header.revision

    async def _resign(self, inside: Inside, leader: LeaderKey) -> int:
        """The revision after it, whether it was the leader or not."""
        delete = RequestOp(request_delete_range=DeleteRangeRequest(key=leader.key))
        done = await inside.txn(line.only_if(line.created_at(leader.key, leader.rev), delete))
        return done.header.revision

    def _leave(self, inside: Inside, candidate: LeaderKey) -> None:
        async def leave() -> None:
            try:
                await self._resign(inside, candidate)
            except EtcdError:
                pass  # it leaves with its lease

        task = asyncio.get_running_loop().create_task(leave())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


class Observer(OneRequest[LeaderRequest]):
    """One stream of leaders and what they proclaim."""

    def __init__(self, inside: Inside, outbox: Outbox, leadership: Leadership, call: int) -> None:
        self._inside = inside
        self._outbox = outbox
        self._leadership = leadership
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()

    def parse(self, payload: bytes) -> LeaderRequest:
        return strict.parse(LeaderRequest, payload)

    def begin(self, request: LeaderRequest) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(line.prefix_of(request.name)))

    def end(self, error: Exception) -> None:
        """From our side."""
        self.on_cancel()
        self._outbox.fail(self._call, error)

    def on_cancel(self) -> None:
        self._leadership.forget(self._call)
        if self._task is not None:
            self._task.cancel()

    def on_writable(self) -> None:
        self._writable.set()

    async def _run(self, prefix: bytes) -> None:
        try:
            while True:
                await self._tell_of_one(prefix)
        except EtcdError:  # real etcd ends such a stream as if all had been said
            self._leadership.forget(self._call)
            self._outbox.finish(self._call, errors.OK, "")
        except Exception as error:
            self.end(error)

    async def _tell_of_one(self, prefix: bytes) -> None:
        """Tell of the present leader, or the next there is, until it leads no more."""
        found = await self._inside.get(line.first_in(prefix))
        if found.kvs:
            revision, leader = found.header.revision, found.kvs[0]
        else:
            leader = await line.until_put(self._inside, prefix, found.header.revision)
            revision = leader.mod_revision
        await self._tell(revision, leader)
        watch = self._inside.watch(leader.key, None, revision + 1)
        try:
            while True:
                response = await watch.next()
                for event in response.events:
                    if event.type == Event.DELETE:
                        return
                    await self._tell(response.header.revision, event.kv)
        finally:
            watch.close()

    async def _tell(self, revision: int, leader: KeyValue) -> None:
        """Send one message, and return when there is room for more."""
        self._writable.clear()
        message = _told(self._inside, revision, leader)
        backlog = self._outbox.server.send_many([(self._call, message)])[0]
        if backlog < 0 or backlog > BACKLOG_BYTES:
            await self._writable.wait()


def _told(inside: Inside, revision: int, leader: KeyValue) -> list[bytes]:
    return [inside.header(revision), LeaderResponse(kv=leader).SerializeToString()]
