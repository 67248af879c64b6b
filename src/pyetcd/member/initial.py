"""Which first members the flags describe: `--initial-cluster`, DNS, or with discovery this member alone.

Checks and texts are those of etcd's server/config (`VerifyBootstrap`, `VerifyJoinExisting`) and server/embed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pyetcd import logs
from pyetcd.cluster.bootstrap import BadCluster
from pyetcd.cluster.same_urls import (
    advertising_problem,
    duplicate,
    lengths_differ,
    resolved_difference,
    same,
    to_resolve,
    unresolved,
)
from pyetcd.cluster.urls import Url, UrlError, cluster_text, parse_cluster
from pyetcd.member.config import ServerConfig

RESOLVE_SECONDS: Final = 30.0
RETRY_SECONDS: Final = 1.0

_log = logs.get("member")

Resolve = Callable[[Url], Awaitable[str]]  # the text `address:port`; OSError


@dataclass(frozen=True, slots=True)
class Initial:
    """The first members by name, and the token. `server_name`: the name that peers' certificates are for,
    where it is not that of their URLs."""

    urls: Mapping[str, Sequence[Url]]
    token: str
    server_name: str = ""


def discovers(config: ServerConfig) -> bool:
    """Whether the first members are found through another cluster."""
    return bool(config.discovery.endpoints)


def from_flags(config: ServerConfig) -> Initial | None:
    """As the flags alone describe it; None where DNS is to be asked. BadCluster."""
    if discovers(config):
        own = {config.name: config.initial_advertise_peer_urls}
        return Initial(own, config.discovery.token)
    if config.discovery.srv:
        return None
    try:
        return Initial(parse_cluster(config.initial_cluster), config.initial_cluster_token)
    except UrlError as error:
        raise BadCluster(f"error setting up initial cluster: {error}") from None


async def check_new(config: ServerConfig, initial: Initial, resolve: Resolve) -> None:
    """Whether a new cluster can begin so. BadCluster."""
    _check_has_local(config, initial)
    own, known = config.initial_advertise_peer_urls, initial.urls[config.name]
    why = await Comparison(resolve).difference(own, known)
    if why is not None:
        raise BadCluster(advertising_problem(config.name, own, known, why))
    if duplicate(initial.urls):
        raise BadCluster(f"initial cluster {cluster_text(initial.urls)} has duplicate url")


def check_existing(config: ServerConfig, initial: Initial) -> None:
    """Whether a member can join so; its cluster knows its URLs already. BadCluster."""
    _check_has_local(config, initial)
    if duplicate(initial.urls):
        raise BadCluster(f"initial cluster {cluster_text(initial.urls)} has duplicate url")
    if discovers(config):
        raise BadCluster("discovery URL should not be set when joining existing initial cluster")


def _check_has_local(config: ServerConfig, initial: Initial) -> None:
    if config.name not in initial.urls:
        name = logs.quote(config.name)
        raise BadCluster(f"couldn't find local name {name} in the initial cluster configuration")


class Comparison:
    """Compares lists of URLs. Names that cannot be resolved are asked for again, for half a minute in all."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._end = asyncio.get_running_loop().time() + RESOLVE_SECONDS
        self._known: dict[str, str] = {}

    async def difference(self, ours: Sequence[Url], theirs: Sequence[Url]) -> str | None:
        """How they differ, in etcd's words; None where they are the same places."""
        if same(ours, theirs):
            return None
        why = lengths_differ(ours, theirs)
        if why is not None:
            return why
        for urls in (ours, theirs):
            for url in to_resolve(urls):
                try:
                    await self._find(url)
                except OSError as error:
                    return unresolved(url, _reason(error))
        return resolved_difference(ours, theirs, self._known)

    async def _find(self, url: Url) -> None:
        loop = asyncio.get_running_loop()
        while url.host not in self._known:
            about = {"url": url.text, "host": url.host}
            try:
                found = await self._resolve(url)
            except OSError as error:
                retry = {**about, "retry-interval": logs.duration(RETRY_SECONDS), "error": _reason(error)}
                _log.warn("failed to resolve URL Host", retry)
                if loop.time() + RETRY_SECONDS >= self._end:
                    await asyncio.sleep(max(self._end - loop.time(), 0))
                    _log.warn("failed to resolve URL Host; returning", retry)
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._known[url.host] = found
                _log.info("resolved URL Host", {**about, "resolved-addr": found})


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def texts(urls: Mapping[str, Iterable[Url]]) -> dict[str, list[str]]:
    return {name: [url.text for url in found] for name, found in urls.items()}
