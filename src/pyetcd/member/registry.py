"""The cluster that `--discovery-endpoints` names, asked through gRPC channels that block.

A server has no client of its own but for this: four calls, at whichever endpoint answers. Every blocking call
is short and runs in the executor, so that a start that waits for others can be ended at any time.

Promises are clientv3's: a call waits for an endpoint that can be reached up to its deadline; one that was
answered with Unavailable is repeated only if it reads; a watch goes on at another endpoint where one is lost,
also where it is silent and its server does not answer any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from pyetcd._native import Channel, ClientStream, RpcError
from pyetcd.cluster.endpoints import Target
from pyetcd.member.config import DiscoveryConfig
from pyetcd.member.discovery import Compacted, Registered, RegistryError
from pyetcd.proto import errors
from pyetcd.proto.kv_pb2 import KeyValue
from pyetcd.proto.rpc_pb2 import (
    AuthenticateRequest,
    AuthenticateResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from pyetcd.storage.files import Files

RETRY_SECONDS: Final = 0.1
LISTEN_SECONDS: Final = 0.5  # of each wait for a watch's next message
CLIENT_API_VERSION: Final = "3.7"
HEALTH: Final = "/grpc.health.v1.Health/Check"
NOT_CONNECTED: Final = "connection error: "  # how the wire begins when a call has never left
STALE_TOKEN: Final = ("etcdserver: invalid auth token", "etcdserver: revision of auth store is old")
AUTH_NOT_ENABLED: Final = "etcdserver: authentication is not enabled"
TOO_LATE: Final = "context deadline exceeded"

Answer = TypeVar("Answer", bound=Message)
T = TypeVar("T")


class _NoAddress(Exception):
    """The present endpoint cannot be dialled."""


@dataclass(frozen=True, slots=True)
class _Tls:
    ca: bytes | None
    cert: bytes | None
    key: bytes | None
    skip_verify: bool


class EtcdRegistry:
    """Fulfils `discovery.Registry`. `connect` first; `close` in the end."""

    def __init__(self, config: DiscoveryConfig, files: Files, executor: Executor) -> None:
        self._config = config
        self._files = files
        self._executor = executor
        self._targets = [Target(endpoint) for endpoint in config.endpoints]
        self._channels: list[Channel | None] = [None] * len(self._targets)
        self._current = 0
        self._tls: _Tls | None = None
        self._token = ""
        self._user, self._password = _credentials(config)

    async def connect(self) -> None:
        """Read certificates and log in. RegistryError."""
        self._tls = _read_tls(self._config, self._files)
        for at, target in enumerate(self._targets):
            if not target.problem:  # where it is no address, that is so until the time is over
                self._channels[at] = self._dial(target)
        if self._user and self._password:
            await self._authenticate(self._config.dial_timeout_seconds)

    def close(self) -> None:
        for channel in self._channels:
            if channel is not None:
                channel.close()

    async def get(self, key: str) -> str | None:
        found = await self._range(RangeRequest(key=key.encode()))
        return _text(found.kvs[0].value) if found.kvs else None

    async def get_prefix(self, prefix: str) -> tuple[Sequence[Registered], int]:
        found = await self._range(RangeRequest(key=prefix.encode(), range_end=_end(prefix)))
        return [_registered(kv) for kv in found.kvs], found.header.revision

    async def put(self, key: str, value: str) -> None:
        request = PutRequest(key=key.encode(), value=value.encode())
        seconds = self._config.request_timeout_seconds
        await self._call("KV/Put", request, PutResponse, seconds, reads=False)

    async def watch(self, prefix: str, revision: int) -> AsyncGenerator[Sequence[Registered], None]:
        while True:
            stream = await self._open_watch(prefix, revision)
            try:
                while (response := await self._next(stream)) is not None:
                    if response.compact_revision:
                        raise Compacted(errors.COMPACTED.message)
                    if response.canceled:
                        break
                    revision = max(revision, response.header.revision + 1) if response.events else revision
                    yield [_registered(event.kv) for event in response.events]
            finally:
                stream.cancel()
            self._turn()
            await asyncio.sleep(RETRY_SECONDS)

    async def _range(self, request: RangeRequest) -> RangeResponse:
        seconds = self._config.request_timeout_seconds
        return await self._call("KV/Range", request, RangeResponse, seconds, reads=True)

    # Watching

    async def _open_watch(self, prefix: str, revision: int) -> ClientStream:
        """At whichever endpoint can be reached, whenever that is."""
        create = WatchCreateRequest(key=prefix.encode(), range_end=_end(prefix), start_revision=revision)
        payload = WatchRequest(create_request=create).SerializeToString()
        while True:
            try:
                return await self._run(partial(self._begin_watch, payload))
            except (RpcError, _NoAddress):
                self._turn()
                await asyncio.sleep(RETRY_SECONDS)

    def _begin_watch(self, payload: bytes) -> ClientStream:
        stream = self._channel().stream("/etcdserverpb.Watch/Watch", self._metadata())
        stream.send(payload)
        return stream

    async def _next(self, stream: ClientStream) -> WatchResponse | None:
        """The next message; None when the stream is lost."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            try:
                data = await self._run(partial(stream.recv, LISTEN_SECONDS))
            except TimeoutError:
                if loop.time() - heard > self._config.keepalive_time_seconds:
                    if not await self._run(self._is_alive):
                        return None
                    heard = loop.time()
                continue
            except RpcError:
                return None
            return None if data is None else _parse(WatchResponse, data)

    def _is_alive(self) -> bool:
        try:
            self._channel().unary(HEALTH, b"", [], self._config.keepalive_timeout_seconds)
        except RpcError as error:
            return error.code not in (errors.UNAVAILABLE, errors.DEADLINE_EXCEEDED_CODE)
        return True

    # Calls

    async def _call(
        self, path: str, request: Message, response: type[Answer], seconds: float, *, reads: bool
    ) -> Answer:
        """One call, at one endpoint after another until the time is over. RegistryError."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        payload = request.SerializeToString()
        renewed = False
        while (left := end - loop.time()) > 0:
            try:
                data = await self._run(partial(self._once, f"/etcdserverpb.{path}", payload, left))
                return _parse(response, data)
            except _NoAddress:
                await self._next_try(end)
                continue
            except RpcError as error:
                failure = error
            if failure.message in STALE_TOKEN and not renewed and self._user:
                renewed = True
                await self._authenticate(left)
                continue
            has_left = not failure.message.startswith(NOT_CONNECTED)
            if failure.code != errors.UNAVAILABLE or (has_left and not reads):
                raise RegistryError(_said(failure))
            await self._next_try(end)
        raise RegistryError(TOO_LATE)

    async def _next_try(self, end: float) -> None:
        self._turn()
        left = end - asyncio.get_running_loop().time()
        await asyncio.sleep(min(RETRY_SECONDS, max(left, 0)))

    def _once(self, path: str, payload: bytes, seconds: float) -> bytes:
        return self._channel().unary(path, payload, self._metadata(), seconds)

    async def _authenticate(self, seconds: float) -> None:
        self._token = ""
        request = AuthenticateRequest(name=self._user, password=self._password)
        try:
            answer = await self._call("Auth/Authenticate", request, AuthenticateResponse, seconds, reads=True)
        except RegistryError as error:
            if str(error) != AUTH_NOT_ENABLED:
                raise
        else:
            self._token = answer.token

    def _metadata(self) -> list[tuple[str, str]]:
        metadata = [("client-api-version", CLIENT_API_VERSION)]
        return [*metadata, ("token", self._token)] if self._token else metadata

    def _turn(self) -> None:
        """To the next endpoint, after the present one failed."""
        self._current = (self._current + 1) % len(self._targets)

    def _channel(self) -> Channel:
        channel = self._channels[self._current]
        if channel is None:
            raise _NoAddress
        return channel

    def _dial(self, target: Target) -> Channel:
        """A channel, which connects when it is used. RegistryError where the certificates are none."""
        tls = self._tls
        try:
            return Channel(
                target.address,
                authority=target.authority,
                tls=target.speaks_tls(tls is not None),
                ca=tls.ca if tls else None,
                cert=tls.cert if tls else None,
                key=tls.key if tls else None,
                server_name=target.server_name,
                insecure_skip_verify=tls.skip_verify if tls else False,
                connect_timeout=self._config.dial_timeout_seconds or 2.0,
            )
        except ValueError as error:
            raise RegistryError(str(error)) from None

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _credentials(config: DiscoveryConfig) -> tuple[str, str]:
    if config.password:
        return config.user, config.password
    user, _, password = config.user.partition(":")
    return user, password


def _read_tls(config: DiscoveryConfig, files: Files) -> _Tls | None:
    """RegistryError where a file cannot be read."""
    has_files = bool(config.cert or config.key or config.cacert)
    if not has_files and config.insecure_transport and not config.insecure_skip_tls_verify:
        return None
    if bool(config.cert) != bool(config.key):
        raise RegistryError(
            f"KeyFile and CertFile must both be present[key: {config.key}, cert: {config.cert}]"
        )

    def read(path: str) -> bytes | None:
        if not path:
            return None
        try:
            return files.read(path)
        except OSError as error:
            raise RegistryError(f"open {path}: {(error.strerror or str(error)).lower()}") from None

    return _Tls(read(config.cacert), read(config.cert), read(config.key), config.insecure_skip_tls_verify)


def _parse(kind: type[Answer], data: bytes) -> Answer:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise RegistryError(f"rpc error: code = Internal desc = grpc: failed to unmarshal: {error}") from None


def _said(error: RpcError) -> str:
    """As clientv3 says it."""
    if error.code == errors.DEADLINE_EXCEEDED_CODE:
        return TOO_LATE
    if error.message.startswith("etcdserver: "):
        return error.message
    known = error.code < len(errors.CODE_NAMES)
    name = errors.CODE_NAMES[error.code] if known else f"Code({error.code})"
    return f"rpc error: code = {name} desc = {error.message}"


def _registered(kv: KeyValue) -> Registered:
    return Registered(_text(kv.key), _text(kv.value), kv.create_revision)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _end(prefix: str) -> bytes:
    """The end of the range of all keys that begin with `prefix`, which ends with an ASCII character."""
    data = prefix.encode()
    return data[:-1] + bytes((data[-1] + 1,))
