"""Which member and cluster a restored directory is for: what `--initial-cluster` and its companions say, and
whether they agree. The refusals are etcd's, as a server's own bootstrap has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyetcd.cluster.bootstrap import BadCluster, NewCluster, new_cluster
from pyetcd.cluster.members import Member
from pyetcd.cluster.urls import Url, UrlError, cluster_text, join_urls, parse_cluster, parse_urls


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
    _check_advertised(name, own, initial[name])
    urls = [url.text for found in initial.values() for url in found]
    if len(set(urls)) < len(urls):
        raise BadStart(f"initial cluster {cluster_text(initial)} has duplicate url")
    try:
        cluster = new_cluster({each: [url.text for url in found] for each, found in initial.items()}, token)
        return NewMember(cluster, cluster.named(name))
    except BadCluster as error:
        raise BadStart(str(error)) from None


def _check_advertised(name: str, own: Sequence[Url], initial: Sequence[Url]) -> None:
    """What a member advertises is what the cluster knows it by, if need be after names are resolved."""
    if [url.text for url in own] == [url.text for url in initial]:
        return
    why = _differ_resolved(own, initial)
    if why is None:
        return
    advertised = join_urls(own)
    missing = [url.text for url in initial if url not in own]
    if missing:
        shown = ",".join(f"{name}={url}" for url in missing)
        flags = f"--initial-cluster has {shown} but missing from --initial-advertise-peer-urls={advertised}"
        raise BadStart(f"{flags} ({why})")
    known: Mapping[str, Sequence[Url]] = {name: own}
    extra = ",".join(url.text for url in own if url not in initial)
    raise BadStart(
        f"--initial-advertise-peer-urls has {extra} but missing from --initial-cluster={cluster_text(known)}"
    )


def _differ_resolved(own: Sequence[Url], initial: Sequence[Url]) -> str | None:
    """How the URLs differ once host names are addresses; None when they do not."""
    if len(own) != len(initial):
        return f"len({_quoted_all(own)}) != len({_quoted_all(initial)})"
    both: list[list[str]] = []
    for urls in (own, initial):
        resolved: list[str] = []
        for url in urls:
            try:
                resolved.append(_resolved(url))
            except OSError as error:
                return f"failed to resolve {_quoted(url.text)} ({error.strerror or error})"
        both.append(sorted(resolved))
    for mine, theirs in zip(*both, strict=True):
        if mine != theirs:
            return f"resolved urls: {_quoted(mine)} != {_quoted(theirs)}"
    return None


def _resolved(url: Url) -> str:
    """The URL with an address in place of a name; `localhost` and paths of sockets stay."""
    if url.is_unix or url.hostname == "localhost":
        return url.text
    import socket

    address = socket.getaddrinfo(url.hostname, int(url.port), type=socket.SOCK_STREAM)[0][4][0]
    host = f"[{address}]" if ":" in str(address) else address
    return f"{url.scheme}://{host}:{url.port}"


def _quoted(text: str) -> str:
    from pyetcd.cli.gotext import quote

    return quote(text)


def _quoted_all(urls: Sequence[Url]) -> str:
    return "[" + " ".join(_quoted(url.text) for url in urls) + "]"
