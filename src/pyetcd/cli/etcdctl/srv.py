"""Endpoints from DNS: `--discovery-srv` and `--discovery-srv-name`."""

from __future__ import annotations

from pyetcd.cli.exits import ERROR, Exit
from pyetcd.cluster.dns import LookupFailed, lookup, name_servers


def endpoints(domain: str, service_name: str, servers: list[tuple[str, int]] | None = None) -> list[str]:
    """URLs of the members a domain names, those with TLS first. Exit when neither kind can be looked up."""
    found: list[str] = []
    failures: list[str] = []
    suffix = f"-{service_name}" if service_name else ""
    for scheme, service in (("https", "etcd-client-ssl"), ("http", "etcd-client")):
        try:
            records = lookup(f"_{service}{suffix}._tcp.{domain}", servers or name_servers())
        except LookupFailed as error:
            failures.append(str(error))
        else:
            found += [f"{scheme}://{_host(record.target)}:{record.port}" for record in records]
    if len(failures) == 2:
        raise Exit(ERROR, f"dns lookup errors: {failures[0]} and {failures[1]}")
    return found


def _host(target: str) -> str:
    return f"[{target}]" if ":" in target else target
