"""What `embed` and `testing` share: free ports, and settings as a command line. Imports little."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

Setting = str | int | float | bool

PORT_TAKEN: Final = "address already in use"  # how a server says that somebody else has the port
PORTS_TRIED_MAX: Final = 5


def free_port() -> int:
    """One on 127.0.0.1 that nobody listens on at this moment. Whoever uses it later may find it taken."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Addressed:
    """Listens where its flags say, otherwise on free ports of 127.0.0.1."""

    def __init__(self, flags: Mapping[str, Setting]) -> None:
        self._flags: Final = flags
        self._choose_ports()

    def _choose_ports(self) -> None:
        """Again, when somebody else was faster to take those."""
        client, peer = free_port(), free_port()
        self.client_url = str(self._flags.get("listen_client_urls", f"http://127.0.0.1:{client}"))
        self.peer_url = str(self._flags.get("listen_peer_urls", f"http://127.0.0.1:{peer}"))

    @property
    def endpoint(self) -> str:
        """Host and port of the first client URL, as most clients want it."""
        return self.client_url.split(",")[0].partition("://")[2]


def command_line(settings: Mapping[str, Setting]) -> list[str]:
    """Settings by name, with underscores for dashes, as flags."""
    return [f"--{name.replace('_', '-')}={_text(value)}" for name, value in settings.items()]


def _text(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
