"""Scraping a server, and what to make of the text."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import grpc
from google.protobuf.message import Message
from prometheus_client.parser import text_string_to_metric_families
from servers import Server

WAIT_SECONDS = 10
LATE_SECONDS = 2  # how far real etcd's counts may lag behind its answers


class Scrape:
    """One `/metrics` text, parsed strictly."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.values: dict[str, float] = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                series, _, value = line.rpartition(" ")
                assert series not in self.values, f"{series} is there twice"
                self.values[series] = float(value)

    def types(self) -> set[str]:
        return {line for line in self.text.splitlines() if line.startswith("# TYPE ")}

    def names(self) -> set[str]:
        return {line.split()[2] for line in self.types()}


def scrape(server: Server) -> Scrape:
    return scrape_url(server.client_url)


def scrape_url(url: str) -> Scrape:
    with urllib.request.urlopen(f"{url}/metrics", timeout=20) as response:
        return Scrape(response.read().decode())


def scrape_until(server: Server, enough: Callable[[Scrape], bool]) -> Scrape:
    """What is counted a moment after the client knows: the end of a stream it has left."""
    until = time.monotonic() + WAIT_SECONDS
    while True:
        found = scrape(server)
        if enough(found) or time.monotonic() > until:
            return found


class Outcome(NamedTuple):
    """How a call ended, and by how much each number changed with it."""

    code: str
    text: str
    changes: tuple[int, ...]


def unary(server: Server, path: str, request: Message | bytes) -> tuple[str, str]:
    """Code and text of a call; `path` without its package, as "KV/Range"."""
    payload = request if isinstance(request, bytes) else request.SerializeToString()
    try:
        server.channel.unary_unary(f"/etcdserverpb.{path}")(payload, timeout=20)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


@dataclass(frozen=True, slots=True)
class Pair:
    """Real etcd and pyetcd."""

    go: Server
    ours: Server

    def changes(self, names: tuple[str, ...], act: Callable[[Server], object]) -> list[Outcome]:
        """Do the same to both; how each answered and what it counted."""
        ours = _outcome(self.ours, names, act)
        return [_outcome(self.go, names, act, ours.changes), ours]


def _outcome(
    server: Server,
    names: tuple[str, ...],
    act: Callable[[Server], object],
    awaited: tuple[int, ...] | None = None,
) -> Outcome:
    """`awaited`: changes to wait a little for, since real etcd counts some only after it has answered."""
    before = scrape(server).values
    answer = act(server)
    code, text = answer if isinstance(answer, tuple) else (str(answer), "")
    deadline = time.monotonic() + LATE_SECONDS
    while True:
        after = scrape(server).values
        changes = tuple(int(after[name] - before[name]) for name in names)
        if awaited in (None, changes) or time.monotonic() > deadline:
            return Outcome(code, text, changes)
