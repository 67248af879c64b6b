"""Who is a member, as clients of the proxy are told: the proxy itself, or all proxies that have registered
under its `--resolver-prefix`, so that clients that look for endpoints stay with proxies.

A proxy registers by a key with a lease of its own (client/v3/naming has the form), which it keeps alive; when
the lease is lost it registers anew. Which others there are is read once and then watched.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Final

from pyetcd import logs
from pyetcd.proto.errors import UNKNOWN, EtcdError
from pyetcd.proto.kv_pb2 import Event, KeyValue
from pyetcd.proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    Member,
    MemberListResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)
from pyetcd.proxy.broadcasts import Ranges
from pyetcd.proxy.calls import ENDED, NOBODY, Caller, Done, Handle, Kv, ask
from pyetcd.proxy.keeper import Keeper
from pyetcd.proxy.kv import PUT, RANGE
from pyetcd.proxy.namespace import prefix_end
from pyetcd.proxy.upstream import Upstream, status_text
from pyetcd.proxy.watch_news import News

MEMBER_LIST: Final = "/etcdserverpb.Cluster/MemberList"
GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
RETRY_SECONDS: Final = 1.0
ENDPOINTS_MAX: Final = 10_000

_log = logs.get("proxy")


class Members:
    """Answers MemberList."""

    def __init__(self, upstream: Upstream, advertised: str, registered: Registered | None) -> None:
        self._upstream = upstream
        self._advertised = advertised
        self._registered = registered

    def list(self, payload: bytes, caller: Caller, done: Done) -> Handle:
        if not self._advertised:
            return self._upstream.begin(MEMBER_LIST, payload, caller, done, reads=True)
        known = self._registered.members() if self._registered is not None else []
        members = known or [(socket.gethostname(), self._advertised)]
        answer = MemberListResponse(members=[Member(name=name, clientURLs=[url]) for name, url in members])
        done(answer.SerializeToString(), 0, "")
        return ENDED


class Registered:
    """The proxies that have registered under the prefix, this one included once it has."""

    def __init__(self, kv: Kv, ranges: Ranges, prefix: str, loop: asyncio.AbstractEventLoop) -> None:
        self.next_revision = 0
        self._kv = kv
        self._ranges = ranges
        self._prefix = prefix
        self._loop = loop
        self._found: dict[bytes, tuple[str, str]] = {}
        self._ended = asyncio.Event()

    def members(self) -> list[tuple[str, str]]:
        """Name and address of each. EtcdError where one has registered in a form that is none."""
        members = []
        for address, metadata in self._found.values():
            try:
                name = json.loads(metadata)["name"]
            except (ValueError, KeyError, TypeError):
                raise EtcdError(UNKNOWN, f"grpc-proxy: metadata of {address} cannot be read") from None
            members.append((str(name), address))
        return members

    async def follow(self) -> None:
        """Know them, until cancelled."""
        begin = f"{self._prefix}/".encode()
        span = (begin, prefix_end(begin))
        while True:
            try:
                await self._read(span)
            except EtcdError as error:
                fields = {"prefix": self._prefix, "error": status_text(error.code, error.message)}
                _log.warn("failed to establish endpoint watch", fields)
            else:
                self._ended.clear()
                self._ranges.add(self, span, "")
                try:
                    await self._ended.wait()
                finally:
                    self._ranges.remove(self)
                _log.info("endpoints watch channel closed")
            await asyncio.sleep(RETRY_SECONDS)

    async def _read(self, span: tuple[bytes, bytes]) -> None:
        request = RangeRequest(key=span[0], range_end=span[1], serializable=True).SerializeToString()
        answer = await ask(
            lambda done: self._kv.begin(RANGE, request, NOBODY, done), RangeResponse, self._loop
        )
        self._found.clear()
        for kv in answer.kvs:
            self._note(kv)
        self.next_revision = answer.header.revision + 1

    def tell(self, news: News) -> None:
        for event in news.events:
            if event.kv.mod_revision < self.next_revision:
                continue
            if event.type == Event.DELETE:
                self._found.pop(event.kv.key, None)
            else:
                self._note(event.kv)
        if news.last_revision >= self.next_revision:
            self.next_revision = news.last_revision + 1
        if news.canceled:
            self.end(news.reason)

    def tell_created(self) -> None: ...

    def end(self, reason: str) -> None:
        self._ended.set()

    def _note(self, kv: KeyValue) -> None:
        try:
            update = json.loads(kv.value)
            found = (str(update["Addr"]), str(update.get("Metadata", "")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warn("unmarshal endpoint update failed", {"key": kv.key, "error": str(error)})
            return
        if len(self._found) < ENDPOINTS_MAX or kv.key in self._found:
            self._found[kv.key] = found


class Registration:
    """This proxy's own."""

    def __init__(
        self, upstream: Upstream, kv: Kv, prefix: str, address: str, ttl: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._upstream = upstream
        self._kv = kv
        self._key = f"{prefix}/{address}".encode()
        self._address = address
        self._ttl = ttl
        self._loop = loop

    async def hold(self) -> None:
        """Be registered, until cancelled."""
        while True:
            try:
                lease = await self._register()
            except EtcdError as error:
                _log.warn("failed to create a session", {"error": status_text(error.code, error.message)})
            else:
                await Keeper(self._upstream, lease, self._ttl).lost()
                _log.warn("session expired; possible network partition or server restart")
                _log.warn("creating a new session to rejoin")
            await asyncio.sleep(RETRY_SECONDS)

    async def _register(self) -> int:
        grant = LeaseGrantRequest(TTL=self._ttl).SerializeToString()
        granted = await ask(
            lambda done: self._upstream.begin(GRANT, grant, NOBODY, done), LeaseGrantResponse, self._loop
        )
        metadata = json.dumps({"name": socket.gethostname()}, separators=(",", ":"))
        value = json.dumps(
            {"Op": 0, "Addr": self._address, "Metadata": metadata}, separators=(",", ":")
        ).encode()
        put = PutRequest(key=self._key, value=value, lease=granted.ID).SerializeToString()
        await ask(lambda done: self._kv.begin(PUT, put, NOBODY, done), PutResponse, self._loop)
        _log.info("registered session with lease", {"addr": self._address, "lease-ttl": self._ttl})
        return granted.ID
