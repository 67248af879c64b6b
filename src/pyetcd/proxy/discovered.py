"""Endpoints that a domain names (`--discovery-srv`), for both proxies.

SRV records are asked for at the start only, before there is a loop, so everything here may block. Unless
the user trusts the answer (`--insecure-discovery`), only endpoints with TLS that somebody listens at are
kept, and the others are named in the log.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from pyetcd import logs
from pyetcd.cluster.dns import LookupFailed, Record, lookup, name_servers
from pyetcd.proxy.gotext import dial_error

CHECK_SECONDS = 5.0

_log = logs.get("etcdmain")


class NothingDiscovered(Exception):
    """The text is etcd's."""


@dataclass(slots=True)
class Discovered:
    """Endpoints as URLs, and the record that each is from."""

    endpoints: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


def discover(
    domain: str,
    service_name: str,
    ca_file: str,
    *,
    insecure: bool,
    servers: list[tuple[str, int]] | None = None,
) -> Discovered:
    """What `domain` names; nothing without one. NothingDiscovered when the lookups fail."""
    if not domain:
        return Discovered()
    found = _look_up(domain, service_name, servers or name_servers())
    told = {"srv-server": domain, "endpoints": found.endpoints}
    _log.info("discovered cluster from SRV", told)
    if insecure:
        return found
    _log.info("validating discovered SRV endpoints", told)
    usable, problem = _validated(found.endpoints, ca_file)
    told = {"srv-server": domain, "endpoints": usable}
    if problem:
        _log.warn("failed to validate discovered endpoints", {**told, "error": problem})
    else:
        _log.info("using validated discovered SRV endpoints", told)
    kept = [at for at, endpoint in enumerate(found.endpoints) if endpoint in usable]
    return Discovered([found.endpoints[at] for at in kept], [found.records[at] for at in kept])


def _look_up(domain: str, service_name: str, servers: list[tuple[str, int]]) -> Discovered:
    found = Discovered()
    failures: list[str] = []
    suffix = f"-{service_name}" if service_name else ""
    for scheme, service in (("https", "etcd-client-ssl"), ("http", "etcd-client")):
        try:
            records = lookup(f"_{service}{suffix}._tcp.{domain}", servers)
        except LookupFailed as error:
            failures.append(str(error))
            continue
        for record in records:
            host = f"[{record.target}]" if ":" in record.target else record.target
            found.endpoints.append(f"{scheme}://{host}:{record.port}")
            found.records.append(record)
    if len(failures) == 2:
        raise NothingDiscovered(f"dns lookup errors: {failures[0]} and {failures[1]}")
    return found


def _validated(endpoints: list[str], ca_file: str) -> tuple[list[str], str]:
    """Those with TLS that accept a connection; what is wrong with the others."""
    if ca_file:
        try:
            with open(ca_file, "rb"):
                pass
        except OSError as error:
            return [], f"open {ca_file}: {(error.strerror or str(error)).lower()}"
    usable: list[str] = []
    problems: list[str] = []
    for endpoint in endpoints:
        if not endpoint.startswith("https://"):
            problems.append(f"{logs.quote(endpoint)} is insecure")
            continue
        host, _, port = endpoint.removeprefix("https://").rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            socket.create_connection((host, int(port)), CHECK_SECONDS).close()
        except OSError as error:
            problems.append(f"{logs.quote(endpoint)} failed to dial ({dial_error(host, int(port), error)})")
        else:
            usable.append(endpoint)
    return usable, ",".join(problems)
