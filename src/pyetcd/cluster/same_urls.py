"""Whether two lists of peer URLs name the same places, if need be after host names have become addresses.

A member is known to its cluster by its peer URLs. An operator may write a name in one flag and an address in
another, so lists that differ as text are compared once more with every name resolved. Nothing here asks a
name server: whoever compares resolves the hosts of `to_resolve`, then looks at `resolved_difference`. Rules
and texts are those of etcd's pkg/netutil and of its server/config.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from pyetcd.cluster.urls import Url, UrlError, cluster_text, join_urls, split_host_port
from pyetcd.logs.gotext import quote


def same(ours: Sequence[Url], theirs: Sequence[Url]) -> bool:
    """Whether they are the same as they stand; two spellings of one address count as one."""
    if len(ours) != len(theirs):
        return False
    pairs = zip(_sorted(ours), _sorted(theirs), strict=True)
    return all(_place(mine) == _place(other) for mine, other in pairs)


def lengths_differ(ours: Sequence[Url], theirs: Sequence[Url]) -> str | None:
    """Why no resolving can make them the same; None where it might."""
    if len(ours) == len(theirs):
        return None
    return f"len({quoted_all(ours)}) != len({quoted_all(theirs)})"


def to_resolve(urls: Iterable[Url]) -> list[Url]:
    """Those with a host that may be a name. `localhost` stays as it is, and so do paths of sockets."""
    return [url for url in urls if not url.is_unix and url.hostname != "localhost"]


def resolved_difference(
    ours: Sequence[Url], theirs: Sequence[Url], addresses: Mapping[str, str]
) -> str | None:
    """How they differ once `url.host` is `addresses[url.host]`, a text `address:port`; None: not at all."""
    both = [sorted((_with(url, addresses) for url in urls), key=_text) for urls in (ours, theirs)]
    for mine, other in zip(*both, strict=True):
        if _place(mine) != _place(other):
            return f"resolved urls: {quote(mine.text)} != {quote(other.text)}"
    return None


def unresolved(url: Url, why: object) -> str:
    """The text for a host that is none."""
    return f"failed to resolve {quote(url.text)} ({why})"


def address_text(address: str, port: str) -> str:
    """`address:port`, as Go prints a TCP address."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def advertising_problem(name: str, own: Sequence[Url], initial: Sequence[Url], why: str) -> str:
    """What to tell an operator whose `--initial-advertise-peer-urls` are not those of `--initial-cluster`,
    `why` being how they differ."""
    advertised = join_urls(_sorted(own))
    known = cluster_text({name: own})
    own_texts = {url.text for url in own}
    initial_texts = {url.text for url in initial}
    missing = [f"{name}={text}" for text in sorted(initial_texts - own_texts)]
    if missing:
        shown = ",".join(missing)
        flags = f"--initial-cluster has {shown} but missing from --initial-advertise-peer-urls={advertised}"
        return f"{flags} ({why})"
    extra = sorted(own_texts - initial_texts)
    if extra:
        shown = ",".join(extra)
        return f"--initial-advertise-peer-urls has {shown} but missing from --initial-cluster={known}"
    return f"failed to resolve {advertised} to match --initial-cluster={known} ({why})"


def duplicate(cluster: Mapping[str, Sequence[Url]]) -> bool:
    """Whether a URL is there twice."""
    texts = [url.text for urls in cluster.values() for url in urls]
    return len(set(texts)) < len(texts)


def quoted_all(urls: Iterable[Url]) -> str:
    """As Go prints a list of texts with %q."""
    return "[" + " ".join(quote(url.text) for url in urls) + "]"


def _text(url: Url) -> str:
    return url.text


def _sorted(urls: Iterable[Url]) -> list[Url]:
    return sorted(urls, key=_text)


def _place(url: Url) -> tuple[str, str, str]:
    return url.scheme, _normal_host(url.host), url.path


def _normal_host(host: str) -> str:
    """One spelling for each address: `[::1]:80` for `[0:0::1]:80`, `10.0.0.1:80` for that as IPv6."""
    try:
        name, port = split_host_port(host)
    except UrlError:
        name, port = host, ""
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return host
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
    shown = str(address) if isinstance(address, ipaddress.IPv4Address) else f"[{address}]"
    return f"{shown}:{port}" if port else shown


def _with(url: Url, addresses: Mapping[str, str]) -> Url:
    host = addresses.get(url.host, url.host) if not url.is_unix else url.host
    return Url(f"{url.scheme}://{host}{url.path}", url.scheme, host, url.path)
