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


def command_line(settings: Mapping[str, Setting]) -> list[str]:
    """Settings by name, with underscores for dashes, as flags."""
    return [f"--{name.replace('_', '-')}={_text(value)}" for name, value in settings.items()]


def _text(value: Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
