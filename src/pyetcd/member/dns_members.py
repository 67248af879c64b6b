"""The first members as DNS names them: `--discovery-srv` and `--discovery-srv-name`.

The records of `_etcd-server-ssl._tcp.<domain>` and `_etcd-server._tcp.<domain>` say where members are, not
how they are called. This member finds itself among them by the addresses of what it advertises; others are
called `0`, `1`, … Names matter to nobody else: IDs follow from URLs. Rules and texts are those of etcd's
client/pkg/srv and server/embed. Everything here blocks for name servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pyetcd import logs
from pyetcd.cluster import dns
from pyetcd.cluster.dns import LookupFailed, Record
from pyetcd.cluster.same_urls import address_text
from pyetcd.cluster.urls import Url

Lookup = Callable[[str], list[Record]]  # the SRV records of a name; LookupFailed

_log = logs.get("embed")


@dataclass(frozen=True, slots=True)
class Found:
    """Pairs `name=url`, and what failed meanwhile; without any pair that is why."""

    pairs: Sequence[str]
    failure: str


def members(domain: str, service_name: str, name: str, own: Sequence[Url], lookup: Lookup) -> Found:
    """The members a domain names; those that are reached over TLS first."""
    suffix = f"-{service_name}" if service_name else ""
    pairs: list[str] = []
    failures: list[str] = []
    for scheme, kind in (("https", "etcd-server-ssl"), ("http", "etcd-server")):
        service = kind + suffix
        failure: str | None = None
        try:
            pairs += _pairs(scheme, service, domain, name, own, lookup)
        except (LookupFailed, OSError) as error:
            failure = str(error)
            failures.append(failure)
        fields = {
            "service-scheme": scheme,
            "service-name": service,
            "server-name": name,
            "discovery-srv": domain,
            "advertise-peer-urls": [url.text for url in own],
            "found-cluster": list(pairs),
            **({} if failure is None else {"error": failure}),
        }
        _log.info(f"get cluster for {kind} SRV", fields)
    return Found(pairs, "\n".join(failures))


def _pairs(
    scheme: str, service: str, domain: str, name: str, own: Iterable[Url], lookup: Lookup
) -> list[str]:
    """LookupFailed when there is none, or OSError when our own addresses cannot be found."""
    ours = {_address(url.hostname, url.port): url for url in own}
    querying = f"error querying DNS SRV records for _{service} "
    try:
        records = lookup(f"_{service}._tcp.{domain}")
    except LookupFailed as error:
        raise LookupFailed(f"{querying}{error}") from None
    pairs: list[str] = []
    failure: str | None = None
    unnamed = 0
    for record in records:
        try:
            found = ours.get(_address(record.target, str(record.port)))
        except OSError as error:
            failure = str(error)
            continue
        called = name if found is not None else ""
        if not called:
            called = str(unnamed)
            unnamed += 1
        url = f"{scheme}://{address_text(record.target.removesuffix('.'), str(record.port))}"
        if found is not None and found.scheme != scheme:
            failure = (
                f"bootstrap at {url} from DNS for {service} has scheme mismatch with expected peer {found}"
            )
        else:
            pairs.append(f"{called}={url}")
    if not pairs and failure is not None:
        raise LookupFailed(querying + failure)
    return pairs


def _address(host: str, port: str) -> str:
    return address_text(dns.address(host, int(port or 0)), port)
