"""The line for a connection that was turned away at its handshake, in etcd's words (embed/config_logging.go).

Who only looks whether the port is open, and leaves without a word, is told at the level debug.
"""

from __future__ import annotations

from pyetcd.logs import Log


def log_rejected(log: Log, endpoint: str, told: bytes) -> None:
    """`endpoint`: client or peer. `told`: the payload of the wire's REJECTED event."""
    address, server_name, addresses, names, error = told.decode(errors="replace").split("\0", 4)
    fields: dict[str, object] = {"remote-addr": address, "server-name": server_name}
    if addresses or names:
        fields["ip-addresses"] = addresses.split(",") if addresses else []
        fields["dns-names"] = names.split(",") if names else []
    fields["error"] = error
    tell = log.debug if error == "EOF" else log.warn
    tell(f"rejected connection on {endpoint} endpoint", fields)
