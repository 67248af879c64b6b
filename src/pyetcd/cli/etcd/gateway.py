"""`etcd gateway start`: what is asked of the flags before it serves, in etcd's order and words."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
from typing import NoReturn
from urllib.parse import urlsplit

from pyetcd import logs
from pyetcd.cli.command import Invocation
from pyetcd.cli.etcd.descriptors import raise_limit
from pyetcd.cli.etcd.signals import until_stopped
from pyetcd.cli.etcd.systemd import notify_ready
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.cli.flag import SECOND_NS
from pyetcd.cluster.urls import Url, UrlError, split_host_port
from pyetcd.listen import Sockets
from pyetcd.proxy.discovered import NothingDiscovered, discover
from pyetcd.proxy.remotes import Remote, Remotes
from pyetcd.proxy.tcp import TcpProxy

DEFAULT_RETRY_SECONDS = 300.0  # for --retry-delay=0
PORT_MAX = 65535

_log = logs.get("etcdmain")


def start(call: Invocation) -> None:
    """Serve until a signal ends it. Exit for what cannot be served."""
    _log.info("Running: ", {"args": sys.argv})
    listen = call.text("listen-addr")
    remotes = _remotes(call)
    _check_addresses(listen, remotes)
    if not remotes:
        _refuse("no endpoints found\n")
    _host, port = split_host_port(listen)
    if not port.isdigit():
        raise Exit(ERROR, f"listen tcp: lookup tcp/{port}: unknown port")
    try:
        (entrance,) = Sockets().bind([Url(f"http://{listen}", "http", listen, "")])
    except OSError as error:
        raise Exit(ERROR, str(error)) from None
    raise_limit()
    seconds = call.number("retry-delay") / SECOND_NS or DEFAULT_RETRY_SECONDS
    asyncio.run(until_stopped(_serve(entrance.socket, remotes, seconds)))


async def _serve(listener: socket.socket, remotes: list[Remote], retry_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    logs.attach(loop)
    notify_ready(os.environ)
    _log.info("ready to proxy client requests", {"endpoints": [remote.address for remote in remotes]})
    await TcpProxy(Remotes(remotes, random.Random()), retry_seconds, loop).serve(listener)


def _remotes(call: Invocation) -> list[Remote]:
    """Those that DNS names, else those of the flags."""
    try:
        found = discover(
            call.text("discovery-srv"),
            call.text("discovery-srv-name"),
            call.text("trusted-ca-file"),
            insecure=call.on("insecure-discovery"),
        )
    except NothingDiscovered as error:
        raise Exit(ERROR, str(error)) from None
    if found.records:
        return [Remote(each.target, each.port, each.priority, each.weight) for each in found.records]
    remotes = []
    for endpoint in call.items("endpoints"):
        address = _without_scheme(endpoint)
        try:
            host, port = split_host_port(address)
        except UrlError:
            _refuse(f"error parsing endpoint {logs.quote(address)}")
        remotes.append(Remote(host, _leading_number(port)))
    return remotes


def _without_scheme(endpoint: str) -> str:
    try:
        return urlsplit(endpoint).netloc.rpartition("@")[2] or endpoint
    except ValueError:
        return endpoint


def _leading_number(port: str) -> int:
    """The digits a port begins with; 0 without any, and for what no port can be."""
    digits = port[: len(port) - len(port.lstrip("0123456789"))]
    return int(digits) if digits and int(digits) <= PORT_MAX else 0


def _check_addresses(listen: str, remotes: list[Remote]) -> None:
    """A gateway must not be an endpoint of its own."""
    try:
        host, port = split_host_port(listen)
    except UrlError:
        _refuse(f"failed to validate listen address: {listen}\n")
    own = _addresses(host)
    if own is None:
        _refuse(f"failed to resolve listen host: {host}\n")
    for remote in remotes:
        theirs = _addresses(remote.host)
        if theirs is None:
            _refuse(f"failed to resolve endpoint host: {remote.host}\n")
        for address in theirs if str(remote.port) == port else ():
            if address in own:
                _refuse(
                    f"SRV or endpoint ({remote.host}:{remote.port}->{address}:{remote.port}) "
                    f"should not resolve to the gateway listen addr ({listen})\n"
                )


def _addresses(host: str) -> list[str] | None:
    """None: the name is nobody's."""
    if not host:
        return None
    try:
        return [str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return None


def _refuse(text: str) -> NoReturn:
    """etcd says these things on stdout."""
    sys.stdout.write(text)
    raise Exit(ERROR)
