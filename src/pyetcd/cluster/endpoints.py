"""A client's endpoints as etcd writes them: `host:port`, `http(s)://…`, `unix(s):path`, `unix(s)://path`.

What is no address is no reason to stop: a client tries to dial it like any other, fails, and says so when its
time is over. `problem` is what Go's dialler would say.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

TLS_NEVER: Final = "never"
TLS_ALWAYS: Final = "always"
TLS_AS_CONFIGURED: Final = "as configured"


class Target:
    """Where an endpoint is. `address` is what a Channel dials, `authority` the name it goes by, `name` the
    endpoint without its scheme."""

    __slots__ = ("address", "authority", "endpoint", "name", "problem", "tls")

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.tls = TLS_AS_CONFIGURED
        self.problem = ""
        scheme, separator, rest = endpoint.partition(":")
        if separator and scheme in ("unix", "unixs"):
            path = self.name = rest.removeprefix("//")
            self.address = f"unix:{path}"
            self.authority = path.rstrip("/").rpartition("/")[2] or "localhost"
            if scheme == "unixs":
                self.tls = TLS_ALWAYS
            return
        self.name = rest[2:] if rest.startswith("//") else endpoint
        if rest.startswith("//") and scheme.lower() in ("http", "https"):
            self.tls = TLS_ALWAYS if scheme.lower() == "https" else TLS_NEVER
            host = self.name.partition("/")[0].partition("?")[0].rpartition("@")[2]
        else:
            host = endpoint
        self.problem = _problem(host)
        # An empty host is this machine, to Go.
        self.address = f"localhost{host}" if host.startswith(":") else host
        self.authority = self.address if host.startswith(":") else host

    def speaks_tls(self, configured: bool) -> bool:
        """Whether TLS is spoken there, by one for whom it is `configured` or not."""
        return self.tls == TLS_ALWAYS or (configured and self.tls != TLS_NEVER)

    @property
    def server_name(self) -> str:
        """The name a certificate must be for: the authority without its port."""
        host, _, port = self.authority.rpartition(":")
        name = host if host and port.isdigit() else self.authority
        return name.removeprefix("[").removesuffix("]")


def _problem(host: str) -> str:
    """Why `host` is no `host:port`, as Go's net.Dial says it; empty when it is one."""
    if not host:
        return "dial tcp: missing address"
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        return f"dial tcp: address {host}: missing port in address"
    if ":" in name and not (name.startswith("[") and name.endswith("]")):
        return f"dial tcp: address {host}: too many colons in address"
    if not port.isdigit():
        refused = f"dial tcp {host}0: connect: connection refused"
        return f"dial tcp: lookup tcp/{port}: unknown port" if port else refused
    return f"dial tcp: address {port}: invalid port" if int(port) > 65535 else ""
