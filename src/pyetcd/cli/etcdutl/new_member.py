"""Which member and cluster a restored directory is for: what `--initial-cluster` and its companions say, and
whether they agree. The refusals are etcd's, as a server's own bootstrap has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyetcd.cluster.bootstrap import BadCluster, NewCluster, new_cluster
from pyetcd.cluster.members import Member
from pyetcd.cluster.same_urls import (
    address_text,
    advertising_problem,
    duplicate,
    same,
)
from pyetcd.cluster.urls import Url, UrlError, cluster_text, parse_cluster, parse_urls


class BadStart(ValueError):
    """The flags do not describe a member of a cluster. The text is etcd's."""


@dataclass(frozen=True, slots=True)
class NewMember:
    """The cluster that is about to begin, and the member of it that is restored here."""

    cluster: NewCluster
    member: Member


def new_member(name: str, peer_urls: str, initial_cluster: str, token: str) -> NewMember:
    """BadStart when the flags contradict one another."""
    try:
        own = parse_urls(peer_urls.split(","))
        initial = parse_cluster(initial_cluster)
    except UrlError as error:
        raise BadStart(str(error)) from None
    if name not in initial:
        raise BadStart(f"couldn't find local name {_quoted(name)} in the initial cluster configuration")
    why = _differ(own, initial[name])
    if why is not None:
        raise BadStart(advertising_problem(name, own, initial[name], why))
    if duplicate(initial):
        raise BadStart(f"initial cluster {cluster_text(initial)} has duplicate url")
    try:
        cluster = new_cluster({each: [url.text for url in found] for each, found in initial.items()}, token)
        return NewMember(cluster, cluster.named(name))
    except BadCluster as error:
        raise BadStart(str(error)) from None


def _differ(own: Sequence[Url], initial: Sequence[Url]) -> str | None:
    """How what a member advertises differs from what the cluster knows it by, names resolved where needed."""
    if same(own, initial):
        return None  # and nothing that waits is imported
    import asyncio

    from pyetcd.member.initial import Comparison

    async def compared() -> str | None:
        return await Comparison(_resolved).difference(own, initial)

    return asyncio.run(compared())


async def _resolved(url: Url) -> str:
    """There is one thing to do here, so the loop may wait for it."""
    from pyetcd.cluster import dns

    return address_text(dns.address(url.hostname, int(url.port or 0)), url.port)


def _quoted(text: str) -> str:
    from pyetcd.cli.gotext import quote

    return quote(text)
