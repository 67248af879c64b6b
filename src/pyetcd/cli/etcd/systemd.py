"""What a member and the service manager have to say to each other.

That the member is ready, as etcd says it (`Type=notify`): systemd names a datagram socket in
`NOTIFY_SOCKET`; one message says it all. Where nothing is named nothing is sent, and the lines of the log
are the same.

Which sockets listen already (socket activation, sd_listen_fds(3)): descriptors from 3 on, `LISTEN_FDS` of
them, if `LISTEN_PID` is this process. Clients that come while a member restarts wait, and are not refused.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping
from typing import Final

from pyetcd import logs

VARIABLE: Final = "NOTIFY_SOCKET"
FIRST_DESCRIPTOR: Final = 3
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


def passed_sockets(environment: MutableMapping[str, str]) -> list[socket.socket]:
    """Those the service manager has bound for this process; nobody started from here takes them for its own.
    OSError where one of them is not what it should be."""
    meant_for, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if meant_for != str(os.getpid()) or not count.isdecimal():
        return []
    passed = []
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count)):
        listener = socket.socket(fileno=descriptor)
        listener.set_inheritable(False)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listener.type != socket.SOCK_STREAM or not listens:
            raise OSError(f"descriptor {descriptor} that was passed by the service manager does not listen")
        passed.append(listener)
    if passed:
        _log.info("listening on sockets of the service manager", {"count": len(passed)})
    return passed
