"""Requests for downgrades get real etcd's answers. A cluster's version is looked at every five seconds, so
both servers are asked all they are asked just after they have started."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server
from twins import Twins

from pyetcd.proto.rpc_pb2 import DowngradeRequest, StatusRequest, StatusResponse

VALIDATE, ENABLE, CANCEL = DowngradeRequest.VALIDATE, DowngradeRequest.ENABLE, DowngradeRequest.CANCEL
TARGETS = ("3.6", "3.6.0", "3.6.7", "3.6.0-rc.1", "3.5", "3.7", "3.8", "2.6", "", "3", "odd", "3.6.x")
REQUESTS = 150
INTERVAL_SECONDS = 5.0


@pytest.fixture
def twins(goetcd: Path, tmp_path: Path) -> Iterator[Twins]:
    both = Twins(goetcd, tmp_path)
    both.begin("downgrades")
    both.restart()
    yield both
    both.close()


def test_random_requests_get_the_same_answers(twins: Twins) -> None:
    chance = random.Random(5)
    began = time.monotonic()
    for _ in range(REQUESTS):
        action = chance.choice((VALIDATE, VALIDATE, ENABLE, CANCEL, 7))
        twins.ask(DowngradeRequest(action=action, version=chance.choice(TARGETS)))  # type: ignore[arg-type]
        twins.same("Status", *(downgrade_told_by(server) for server in (twins.ours, twins.theirs)))
    twins.ask(DowngradeRequest(action=CANCEL))
    assert time.monotonic() - began < INTERVAL_SECONDS - 2, "versions may have been looked at meanwhile"


@pytest.mark.parametrize(
    "body",
    [
        b'{"action":"VALIDATE","version":"3.6"}',
        b'{"action":0,"version":"3.6.5"}',
        b'{"version":"odd"}',
        b'{"action":"NOTHING"}',
        b'{"action":"CANCEL"}',
        b'{"action":9}',
        b"{}",
    ],
)
def test_the_gateway_answers_alike(twins: Twins, body: bytes) -> None:
    twins.same(repr(body), *(posted(server, body) for server in (twins.ours, twins.theirs)))


def downgrade_told_by(server: Server) -> tuple[bool, str, str]:
    ask = server.channel.unary_unary("/etcdserverpb.Maintenance/Status")
    status = StatusResponse.FromString(ask(StatusRequest().SerializeToString(), timeout=10))
    return status.downgradeInfo.enabled, status.downgradeInfo.targetVersion, status.storageVersion


def posted(server: Server, body: bytes) -> tuple[int, object]:
    request = urllib.request.Request(f"{server.client_url}/v3/maintenance/downgrade", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            status, text = reply.status, reply.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    answer = json.loads(text)
    answer.pop("header", None)  # has the member's ID
    return status, answer
