"""What Go's net package says, where the proxies say it."""

from __future__ import annotations

import os
import socket

from pyetcd.cluster.urls import join_host_port


def dial_error(host: str, port: int, error: OSError) -> str:
    """Why a TCP connection could not be made."""
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {host}: no such host"
    where = f"dial tcp {join_host_port(host, port)}"
    if isinstance(error, TimeoutError):
        return f"{where}: i/o timeout"
    reason = os.strerror(error.errno) if error.errno else str(error)  # asyncio has words of its own
    return f"{where}: connect: {reason.lower()}"
