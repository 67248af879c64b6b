"""What the global flags and `ETCDCTL_*` variables say.

The rules are etcdctl's: a variable counts only where its flag was not given; a variable and a flag for
the same thing are a conflict that ends the program; one that fits no flag of this command is warned of;
one that is empty, too; one whose value does not parse is passed over. The check of files and formats comes
in etcdctl's order, since the first error is the one that is seen.
"""

from __future__ import annotations

import os
import sys

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl import notes
from pyetcd.cli.etcdctl.output import emit, flush
from pyetcd.cli.etcdctl.tree import FORMATS
from pyetcd.cli.exits import BAD_ARGS, BAD_CONNECTION, BAD_FEATURE, CANCELED_PROMPT, ERROR, Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation
    from pyetcd.cli.flag import Flag

PREFIX = "ETCDCTL_"
DEFAULT_SEND_BYTES = 2 * 1024 * 1024
NS = 1e-9
PEM = b"-----BEGIN "


class Tls:
    """How to speak TLS where it is spoken; PEM texts. `server_name`: the one that certificates must be for,
    if it is not the endpoint's."""

    __slots__ = ("ca", "cert", "key", "server_name", "skip_verify")

    def __init__(
        self, ca: bytes | None, cert: bytes | None, key: bytes | None, skip_verify: bool, server_name: str
    ) -> None:
        self.server_name = server_name
        self.ca = ca
        self.cert = cert
        self.key = key
        self.skip_verify = skip_verify


class Settings:
    """One run's settings. Times in seconds. What is wrong with TLS ends the program with code `bad_tls`."""

    __slots__ = (
        "command_timeout",
        "dial_timeout",
        "endpoints",
        "format",
        "hex",
        "keepalive_seconds",
        "keepalive_timeout",
        "password",
        "recv_bytes_max",
        "send_bytes_max",
        "tls",
        "token",
        "username",
    )

    def __init__(self, call: Invocation, bad_tls: int = BAD_ARGS) -> None:
        _apply_environment(call)
        if call.on("debug"):
            _print_flags(call)
        self.endpoints = endpoints_of(call)
        self._take_numbers(call)
        files = [_file_name(call, name) for name in ("cert", "key", "cacert")]
        self.username, self.password, self.token = _credentials(call)
        self.format = call.text("write-out")
        self.hex = call.on("hex")
        if self.format not in FORMATS:
            raise Exit(BAD_FEATURE, "unsupported output format")
        try:
            self.tls = _tls(call, *files)
        except Exit as bad:
            raise Exit(bad_tls, bad.message) from None
        self._check_sizes()

    @classmethod
    def of_another(
        cls, call: Invocation, endpoint: str, tls: Tls | None, username: str, password: str
    ) -> Settings:
        """For a second cluster, with this command's times and sizes as far as its flags say them."""
        other = cls.__new__(cls)
        other._take_numbers(call)
        other.endpoints, other.tls = [endpoint], tls
        other.username, other.password, other.token = username, password, ""
        other.format, other.hex = call.text("write-out"), call.on("hex")
        other._check_sizes()
        return other

    def _take_numbers(self, call: Invocation) -> None:
        self.dial_timeout = call.number("dial-timeout") * NS
        self.command_timeout = call.number("command-timeout") * NS
        self.keepalive_seconds = call.number("keepalive-time") * NS
        self.keepalive_timeout = call.number("keepalive-timeout") * NS
        self.send_bytes_max = call.number("max-request-bytes")
        self.recv_bytes_max = call.number("max-recv-bytes")

    def _check_sizes(self) -> None:
        if 0 < self.recv_bytes_max < self.send_bytes_max:
            raise Exit(
                BAD_CONNECTION,
                f"gRPC message recv limit ({self.recv_bytes_max} bytes) must be greater than send limit"
                f" ({self.send_bytes_max} bytes)",
            )
        if self.send_bytes_max <= 0:
            self.send_bytes_max = DEFAULT_SEND_BYTES


def endpoints_of(call: Invocation) -> list[str]:
    """Those a domain names, if one is given and names any, else those of `--endpoints`."""
    found: list[str] = []
    domain = call.text("discovery-srv")
    if domain:
        from pyetcd.cli.etcdctl import srv

        for endpoint in srv.endpoints(domain, call.text("discovery-srv-name")):
            if endpoint.startswith("http://") and not call.on("insecure-discovery"):
                shown = gotext.quote(endpoint)
                print(f"ignoring discovered insecure endpoint {shown}", file=sys.stderr)
            else:
                found.append(endpoint)
    return found or [endpoint.strip() for endpoint in call.items("endpoints")]


def _variable(flag: Flag) -> str:
    return PREFIX + flag.name.upper().replace("-", "_")


def _apply_environment(call: Invocation) -> None:
    inherited = {_variable(flag): flag for flag in call.command.inherited_flags()}
    known = set(inherited)
    if call.command.name == "watch":
        known |= {"ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"}
    given = {name for name, flag in inherited.items() if flag.changed}
    for name, value in os.environ.items():
        if not name.startswith(PREFIX):
            continue
        if name in given:
            notes.fatal(
                "conflicting environment variable is shadowed by corresponding command-line flag"
                " (either unset environment variable or disable flag))",
                {"environment-variable": name},
                caller="flags/flag.go:86",
            )
            raise Exit(ERROR)
        if name not in known or not value:
            notes.warn(
                "unrecognized environment variable",
                {"environment-variable": f"{name}={value}"},
                caller="flags/flag.go:94",
            )
        elif name in inherited:
            try:
                inherited[name].set(value)
            except gotext.GoValueError:
                continue


def _print_flags(call: Invocation) -> None:
    for flag in sorted(call.command.inherited_flags(), key=lambda flag: flag.name):
        print(f"{_variable(flag)}={flag.shown(flag.value)}", file=sys.stderr)


def _file_name(call: Invocation, flag: str) -> str:
    name = call.text(flag)
    if not name and call.flags[flag].changed:
        raise Exit(BAD_ARGS, f"empty string is passed to --{flag} option")
    return name


def _credentials(call: Invocation) -> tuple[str, str, str]:
    """User, password, token; at most one of the user and the token is set."""
    user, password, token = call.text("user"), call.text("password"), call.text("auth-jwt-token")
    if token:
        return "", "", token
    return *name_and_password(user, password, "Password: "), ""


def name_and_password(user: str, password: str, prompt: str) -> tuple[str, str]:
    """From two flags, the first of which may have both; what is missing is asked for."""
    if not user or password:
        return user, password if user else ""
    user, colon, password = user.partition(":")
    return user, password if colon else ask_password(prompt)


def ask_password(prompt: str) -> str:
    """The password that is typed, without an echo, or a line of standard input. Exit after a Ctrl-C."""
    if sys.stdin.isatty():
        from getpass import getpass

        try:
            return getpass(prompt).strip()
        except EOFError:
            print(file=sys.stderr)
            return ""
        except KeyboardInterrupt:
            raise Exit(CANCELED_PROMPT) from None
    emit(prompt)
    flush()
    line = sys.stdin.buffer.readline().decode("utf-8", "surrogateescape")
    emit("\n")
    return line.strip()


def _tls(call: Invocation, cert: str, key: str, ca: str) -> Tls | None:
    skip_verify = call.on("insecure-skip-tls-verify")
    name = "" if call.on("insecure-discovery") else call.text("discovery-srv")
    return tls_of(cert, key, ca, plain=call.on("insecure-transport"), skip_verify=skip_verify, name=name)


def tls_of(
    cert: str, key: str, ca: str, *, plain: bool, skip_verify: bool = False, name: str = ""
) -> Tls | None:
    """From the names of files; None for plaintext, which `plain` allows where nothing else is asked for."""
    if bool(cert) != bool(key):
        raise Exit(BAD_ARGS, f"KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")
    if not (cert or ca or name or skip_verify or not plain):
        return None
    cert_text, key_text = _read(cert), _read(key)
    if cert_text is not None and key_text is not None:
        _check_pair(cert_text, key_text)
    return Tls(_read(ca), cert_text, key_text, skip_verify, name)


def _check_pair(cert: bytes, key: bytes) -> None:
    """Mix-ups of files, in Go's words. Exit."""
    if PEM not in cert:
        raise Exit(BAD_ARGS, "tls: failed to find any PEM data in certificate input")
    if PEM not in key:
        raise Exit(BAD_ARGS, "tls: failed to find any PEM data in key input")
    if b"PRIVATE KEY-----" not in key and b"BEGIN CERTIFICATE-----" in key:
        raise Exit(BAD_ARGS, "tls: found a certificate rather than a key in the PEM for the private key")


def _read(name: str) -> bytes | None:
    if not name:
        return None
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        action = "read" if isinstance(error, IsADirectoryError) else "open"
        raise Exit(BAD_ARGS, f"{action} {name}: {(error.strerror or str(error)).lower()}") from None
