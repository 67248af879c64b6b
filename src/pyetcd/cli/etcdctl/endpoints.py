"""Endpoints as etcd writes them: `host:port`, `http(s)://…`, `unix(s):path`, `unix(s)://path`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

TLS_NEVER: Final = "never"
TLS_ALWAYS: Final = "always"
TLS_AS_CONFIGURED: Final = "as configured"


class Target:
    """Where an endpoint is. `address` is what a Channel dials, `authority` the name it goes by."""

    __slots__ = ("address", "authority", "endpoint", "tls")

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.tls = TLS_AS_CONFIGURED
        scheme, separator, rest = endpoint.partition(":")
        if separator and scheme in ("unix", "unixs"):
            path = rest.removeprefix("//")
            self.address = f"unix:{path}"
            self.authority = path.rstrip("/").rpartition("/")[2] or "localhost"
            if scheme == "unixs":
                self.tls = TLS_ALWAYS
        elif rest.startswith("//"):
            host = rest[2:].split("/", 1)[0].split("?", 1)[0].rpartition("@")[2]
            self.address = self.authority = host
            if scheme.lower() in ("http", "https"):
                self.tls = TLS_ALWAYS if scheme.lower() == "https" else TLS_NEVER
        else:
            self.address = self.authority = endpoint

    @property
    def server_name(self) -> str:
        """The name a certificate must be for: the authority without its port."""
        host, _, port = self.authority.rpartition(":")
        name = host if host and port.isdigit() else self.authority
        return name.removeprefix("[").removesuffix("]")
