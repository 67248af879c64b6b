"""How the first members of a cluster find each other through another etcd cluster: `--discovery-token`.

Somebody has put how many they are under `/_etcd/registry/<token>/_config/size`. Each member puts its URLs
under `/_etcd/registry/<token>/members/<id>` and waits until so many have; who came first counts, by the
revision at which a key was made. Keys, retries, log lines and texts are those of etcd's api/v3discovery.

The registry may be away for a while: everything is tried again, with pauses that grow to about four minutes.
"""

from __future__ import annotations

import asyncio
import posixpath
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Protocol

from pyetcd import logs
from pyetcd.cluster.bootstrap import BadCluster
from pyetcd.cluster.urls import UrlError, parse_cluster

PREFIX: Final = "/_etcd/registry"
BACKOFF_DOUBLINGS_MAX: Final = 8

_log = logs.get("discovery")


class RegistryError(Exception):
    """The registry could not be asked, or said no. The text is clientv3's."""


class Compacted(RegistryError):
    """What was to be watched is gone; it must be read again."""


class DiscoveryFailed(BadCluster):
    """The cluster cannot begin so. The text is etcd's."""

    def __init__(self, why: str) -> None:
        super().__init__(f"failed to join discovery cluster ({why})")


class _Failed(Exception):
    """Why, in etcd's words."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A key of the registry, with the revision at which it was made."""

    key: str
    value: str
    create_revision: int


class Registry(Protocol):
    """The cluster that is asked. Every method raises RegistryError."""

    async def get(self, key: str) -> str | None: ...

    async def get_prefix(self, prefix: str) -> tuple[Sequence[Registered], int]:
        """Keys with their values, and the revision as of which they were read."""

    async def put(self, key: str, value: str) -> None: ...

    def watch(self, prefix: str, revision: int) -> AsyncGenerator[Sequence[Registered], None]:
        """What changes from `revision` on; goes on for ever. Compacted."""


Sleep = Callable[[float], Awaitable[None]]


class Discovery:
    """One member's way to its cluster. `endpoints` is for log lines."""

    def __init__(
        self,
        registry: Registry,
        token: str,
        member_id: int,
        endpoints: str,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._registry = registry
        self._sleep = sleep
        self._about = {"discovery-token": token, "discovery-endpoints": endpoints}
        root = posixpath.normpath(f"{PREFIX}/{token}")
        self._size_key = f"{root}/_config/size"
        self._members_prefix = f"{root}/members"
        self._own_key = f"{self._members_prefix}/{member_id:x}"
        self._retries = 0
        self._found: list[Registered] = []

    async def join(self, own: str) -> str:
        """Register as `own`, in the form of `--initial-cluster`; the whole cluster in that form.
        DiscoveryFailed."""
        try:
            cluster = await self._join(own)
        except _Failed as error:
            _log.error(
                "discovery failed to join cluster", {**self._about, "cluster": "", "error": str(error)}
            )
            raise DiscoveryFailed(str(error)) from None
        _log.info("discovery joined cluster successfully", {**self._about, "cluster": cluster})
        return cluster

    async def _join(self, own: str) -> str:
        await self._check()
        await self._register(own)
        size, revision = await self._check()
        while len(self._found) < size:
            try:
                await self._wait_for_others(size, revision)
            except Compacted:
                size, revision = await self._check()
        cluster = ",".join(each.value for each in self._found[:size])
        try:
            parse_cluster(cluster)
        except UrlError:
            raise _Failed("discovery: invalid peer URL") from None
        return cluster

    async def _check(self) -> tuple[int, int]:
        """Read who is there. How many there should be, and as of which revision."""
        while True:
            try:
                size = await self._size()
                revision = await self._read_members()
            except RegistryError:
                await self._back_off("cluster status check")
                continue
            self._retries = 0
            for place, member in enumerate(self._found):
                if member.key == self._own_key:
                    break
                if place >= size - 1:
                    raise _Failed("discovery: cluster is full")
            return size, revision

    async def _size(self) -> int:
        try:
            text = await self._registry.get(self._size_key)
        except RegistryError as error:
            self._warn(
                "failed to get cluster size from discovery service",
                {"clusterSizeKey": self._size_key, "error": str(error)},
            )
            raise
        if text is None:
            raise _Failed("discovery: size key not found")
        if re.fullmatch(r"\+?[0-9]{1,18}", text, re.ASCII) is None or int(text) == 0:
            raise _Failed("discovery: size key is bad")
        return int(text)

    async def _read_members(self) -> int:
        try:
            found, revision = await self._registry.get_prefix(self._members_prefix)
        except RegistryError as error:
            self._warn(
                "failed to get cluster members from discovery service",
                {"membersKeyPrefix": self._members_prefix, "error": str(error)},
            )
            raise
        self._found = []
        for each in found:
            self._add(each)
        return revision

    async def _register(self, own: str) -> None:
        while True:
            try:
                await self._registry.put(self._own_key, own)
            except RegistryError as error:
                self._warn(
                    "failed to register members itself to the discovery service",
                    {"memberKey": self._own_key, "error": str(error)},
                )
                await self._back_off("register member itself")
                continue
            self._retries = 0
            fields = {**self._about, "memberKey": self._own_key, "memberInfo": own}
            _log.info("register member itself successfully", fields)
            return

    async def _wait_for_others(self, size: int, revision: int) -> None:
        changes = self._registry.watch(self._members_prefix, revision + 1)
        counts = {"clusterSize": size, "found-peers": len(self._found)}
        _log.info("waiting for peers from discovery service", {**self._about, **counts})
        async with aclosing(changes):
            async for changed in changes:
                for each in changed:
                    self._add(each)
                if len(self._found) >= size:
                    break
        counts = {"clusterSize": size, "found-peers": len(self._found)}
        _log.info("found all needed peers from discovery service", {**self._about, **counts})

    def _add(self, registered: Registered) -> None:
        key, value = registered.key.strip(), registered.value.strip()
        fields = {"memberKey": key, "memberInfo": value}
        if not key.startswith(self._members_prefix):
            self._warn("invalid peer registry key", fields)
        elif "=" not in value:
            self._warn("invalid peer info returned from discovery service", fields)
        elif any(each.key == key for each in self._found):
            self._warn("found duplicate peer from discovery service", fields)
        else:
            self._found.append(Registered(key, value, registered.create_revision))
            self._found.sort(key=lambda each: each.create_revision)
            _log.info("found peer from discovery service", {**self._about, **fields})

    async def _back_off(self, step: str) -> None:
        self._retries += 1
        seconds = float(1 << min(self._retries, BACKOFF_DOUBLINGS_MAX))
        fields = {"reason": step, "backoff": logs.duration(seconds)}
        self._warn("retry connecting to discovery service", fields)
        await self._sleep(seconds)

    def _warn(self, text: str, fields: Mapping[str, object]) -> None:
        _log.warn(text, {**self._about, **fields})
