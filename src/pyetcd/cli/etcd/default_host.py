"""This machine's own address: the one its default route would send from.

etcd advertises it where the URLs to advertise were left at their defaults while it listens on 0.0.0.0.
"""

from __future__ import annotations

import socket

# Addresses set aside for documentation. Connecting a datagram socket sends nothing; it only asks the routing
# table.
_BEYOND = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def default_host() -> tuple[str, str]:
    """`(address, "")`, or `("", reason)` when there is no default route."""
    for family, beyond in _BEYOND:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((beyond, 9))
                return str(probe.getsockname()[0]), ""
        except OSError:
            continue
    return "", "could not find default route"
