"""How many connections there may be, so that the log and the database always find a descriptor free.

Like Go's runtime the process raises its limit as far as it may; like etcd (server/embed/etcd.go) it keeps
some descriptors for itself, and does not start where the limit leaves none for clients. Peers are counted
too: a quarter of the rest is theirs.
"""

from __future__ import annotations

import resource
from typing import Final, NamedTuple

RESERVED: Final = 150  # files, sockets to other members, the port for metrics

TOO_LOW: Final = "file descriptor limit of etcd process is too low; please set higher"


class Connections(NamedTuple):
    """At once, from others."""

    clients: int
    peers: int


class TooFewDescriptors(Exception):
    """`limit`: how many there may be."""

    def __init__(self, limit: int) -> None:
        super().__init__(TOO_LOW)
        self.limit = limit


def raise_limit() -> int:
    """As far as it goes without asking anybody; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # of an unlimited hard limit some kernels grant less
            return soft
    return hard


def connections(limit: int) -> Connections:
    """TooFewDescriptors where the limit leaves none."""
    if limit == resource.RLIM_INFINITY:
        return Connections(0, 0)
    free = limit - RESERVED
    if free < 4:
        raise TooFewDescriptors(limit)
    return Connections(clients=free - free // 4, peers=free // 4)
