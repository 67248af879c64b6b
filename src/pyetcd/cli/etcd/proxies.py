"""`etcd gateway` and `etcd grpc-proxy`: their flags, and how they end.

Flags are read as etcdctl's are. Mistakes are told as etcd tells them: with the usage, and once more after it.
What they do is imported only when they are called.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from pyetcd import logs
from pyetcd.cli import command
from pyetcd.cli.command import Command, Invocation
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.cli.flag import Flag, number, span, switch, text, unsigned
from pyetcd.cli.gotext import UINT32_MAX
from pyetcd.cli.usage import help_text, usage_text

DEFAULT_LISTEN = "127.0.0.1:23790"
DEFAULT_ENDPOINTS = ["127.0.0.1:2379"]
MAX_SEND_BYTES = 3 << 19
MAX_INT32 = (1 << 31) - 1


def main(argv: Sequence[str]) -> int:
    """Run a proxy with these arguments (etcd's name first); returns the exit code."""
    arguments = list(argv)[1:]
    chosen, rest = command.resolve(root(), arguments)
    try:
        call = command.parse(chosen, rest, arguments)
        if chosen.run is None:
            raise command.HelpWanted(chosen)
        chosen.run(call)
    except command.HelpWanted as error:
        sys.stdout.write(help_text(error.command))
    except command.FlagError as error:
        sys.stderr.write(f"Error: {error}\n{usage_text(chosen)}\n{error}")
        return ERROR
    except Exit as error:
        if error.message is not None:
            print(error.message, file=sys.stderr)
        return error.code
    finally:
        sys.stdout.flush()
        logs.flush()
    return 0


def root() -> Command:
    """The whole tree, fresh: flags keep what they are set to."""
    return Command("etcd", "etcd server", commands=[_gateway(), _grpc_proxy()])


def _later(module: str) -> Callable[[Invocation], None]:
    def run(call: Invocation) -> None:
        start: Callable[[Invocation], None] = import_module(f"pyetcd.cli.etcd.{module}").start
        start(call)

    return run


def _gateway() -> Command:
    return Command(
        "gateway <subcommand>",
        "Pass TCP connections on to a cluster",
        commands=[
            Command(
                "start",
                "Start the gateway",
                _later("gateway"),
                flags=[
                    text("listen-addr", DEFAULT_LISTEN, "address to listen on"),
                    *_discovery(),
                    text("trusted-ca-file", "", "CA that endpoints of --discovery-srv are checked with"),
                    Flag("endpoints", "strings", DEFAULT_ENDPOINTS, "endpoints of the cluster, with commas"),
                    span("retry-delay", 60, "how long an endpoint that failed is left alone"),
                ],
            )
        ],
    )


def _discovery() -> list[Flag]:
    return [
        text("discovery-srv", "", "domain whose SRV records name the endpoints"),
        text("discovery-srv-name", "", "suffix of the service's name in DNS"),
        switch("insecure-discovery", "take SRV records whose endpoints have no TLS"),
    ]


def _grpc_proxy() -> Command:
    return Command(
        "grpc-proxy <subcommand>",
        "Serve etcd's gRPC services out of a cluster's",
        commands=[Command("start", "Start the gRPC proxy", _later("grpc_proxy"), flags=_grpc_proxy_flags())],
    )


def _grpc_proxy_flags() -> list[Flag]:
    return [
        text("listen-addr", DEFAULT_LISTEN, "address to listen on"),
        *_discovery(),
        text("metrics-addr", "", "URL that serves metrics and health besides"),
        Flag("endpoints", "strings", DEFAULT_ENDPOINTS, "endpoints of the cluster, with commas"),
        span(
            "endpoints-auto-sync-interval", 0, "how often the cluster is asked for its endpoints (0: never)"
        ),
        span("dial-keepalive-time", 0, "how often a silent connection to the cluster is pinged (0: never)"),
        span("dial-keepalive-timeout", 20, "how long such a ping may take"),
        switch("permit-without-stream", "ping connections to the cluster that have no calls too"),
        text("advertise-client-url", DEFAULT_LISTEN, "address at which clients reach this proxy"),
        text("resolver-prefix", "", "prefix under which proxies of one kind register"),
        number("resolver-ttl", "seconds that a registration outlives its proxy"),
        text("namespace", "", "prefix of all keys in the cluster that clients do not see"),
        switch("enable-pprof", "serve profiles at /debug/pprof/"),
        text("data-dir", "default.proxy", "where generated certificates are kept"),
        number("max-send-bytes", "largest request to the cluster, in bytes", MAX_SEND_BYTES),
        number("max-recv-bytes", "largest answer from the cluster, in bytes", MAX_INT32),
        span("grpc-keepalive-min-time", 5, "how long a client has to wait before it pings again"),
        span("grpc-keepalive-interval", 2 * 3600, "how often a silent client is pinged (0: never)"),
        span("grpc-keepalive-timeout", 20, "how long such a ping may take"),
        text("cert", "", "certificate that this proxy shows to the cluster"),
        text("key", "", "key of --cert"),
        text("cacert", "", "CA of the cluster's certificates"),
        switch("insecure-skip-tls-verify", "believe any certificate of the cluster (for tests only)"),
        text("cert-file", "", "certificate that this proxy shows to clients"),
        text("key-file", "", "key of --cert-file"),
        text("trusted-ca-file", "", "CA of clients' certificates"),
        Flag("listen-cipher-suites", "strings", [], "TLS cipher suites that clients may use, with commas"),
        switch("auto-tls", "make a certificate to show to clients"),
        text("client-crl-file", "", "list of clients' certificates that are revoked"),
        unsigned("self-signed-cert-validity", 1, "years that a generated certificate is good for"),
        text("tls-min-version", "TLS1.2", "oldest TLS version for clients: TLS1.2 or TLS1.3"),
        text("tls-max-version", "", "newest TLS version for clients: TLS1.2 or TLS1.3 (empty: any)"),
        switch("experimental-serializable-ordering", "never let serializable reads go back in revisions"),
        text("experimental-leasing-prefix", "", "prefix of the keys by which read keys are leased"),
        switch("experimental-enable-grpc-logging", "log all requests and answers"),
        switch("debug", "log debug lines too"),
        Flag("max-concurrent-streams", "uint32", UINT32_MAX, "streams that a client may have at once"),
    ]
