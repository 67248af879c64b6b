"""The systemd journal as an output: each line a datagram in the journal's native protocol.

The priority is that of the line's level. A line the journal does not take (it is restarting, or the line is
longer than a datagram may be) goes to the fallback, standard error, as etcd does it.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from pyetcd.logs.sinks import Sink, WriterLoop

SOCKET: Final = "/run/systemd/journal/socket"
# syslog priorities of debug, info, warn, error, fatal
_PRIORITIES: Final = (7, 6, 4, 3, 2)


class Journal:
    """OSError when there is no journal on this machine."""

    def __init__(self, fallback: Sink, address: str = SOCKET) -> None:
        self._fallback = fallback
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise

    def write(self, level: int, line: bytes) -> None:
        message = line.rstrip(b"\n")
        datagram = b"PRIORITY=%d\nSYSLOG_IDENTIFIER=etcd\nMESSAGE\n%s%s\n" % (
            _PRIORITIES[level],
            struct.pack("<Q", len(message)),
            message,
        )
        try:
            self._socket.send(datagram)
        except OSError:
            self._fallback.write(level, line)

    def attach(self, loop: WriterLoop | None) -> None:
        self._fallback.attach(loop)

    def flush(self, timeout_seconds: float) -> None:
        self._fallback.flush(timeout_seconds)

    def close(self) -> None:
        self._socket.close()
        self._fallback.close()
