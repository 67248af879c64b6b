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
    lengths_differ,
    resolved_difference,
    same,
    to_resolve,
    unresolved,
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
        return None
    why = lengths_differ(own, initial)
    if why is not None:
        return why
    addresses: dict[str, str] = {}
    for url in to_resolve((*own, *initial)):
        try:
            addresses[url.host] = _resolved(url)
        except OSError as error:
            return unresolved(url, error.strerror or error)
    return resolved_difference(own, initial, addresses)


def _resolved(url: Url) -> str:
    from pyetcd.cluster import dns

    return address_text(dns.address(url.hostname, int(url.port or 0)), url.port)


def _quoted(text: str) -> str:
    from pyetcd.cli.gotext import quote

    return quote(text)
