"""Word to the service manager that the member is ready, as etcd gives it (`Type=notify`).

systemd names a datagram socket in `NOTIFY_SOCKET`; one message says it all. Where nothing is named nothing is
sent, and the lines of the log are the same.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

from pyetcd import logs

VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = b"READY=1"

_log = logs.get("etcdmain")


def notify_ready(environment: Mapping[str, str]) -> None:
    """Say it, and say in the log how that went."""
    _log.info("notifying init daemon")
    path = environment.get(VARIABLE, "")
    if path:
        address = "\0" + path[1:] if path.startswith("@") else path  # of Linux' namespace without files
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
                channel.connect(address)
                channel.send(READY)
        except OSError as error:
            why = f"dial unixgram {path}: connect: {(error.strerror or str(error)).lower()}"
            _log.error("failed to notify systemd for readiness", {"error": why})
            return
    _log.info("successfully notified init daemon")
