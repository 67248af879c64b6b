"""`etcd grpc-proxy start`: not there yet, and says so."""

from __future__ import annotations

from pyetcd.cli.command import Invocation
from pyetcd.cli.exits import ERROR, Exit


def start(call: Invocation) -> None:
    raise Exit(ERROR, f"{call.command.path} is not part of this version of pyetcd yet")
