"""`pyetcd.embed`: a whole member in the process of the test."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from pyetcd import embed, logs
from pyetcd.launching import free_port
from pyetcd.logs.sinks import Writer
from pyetcd.proto.rpc_pb2 import PutRequest, PutResponse, RangeRequest, RangeResponse

SECONDS = 20


@pytest.fixture(autouse=True)
def logs_of_others() -> Iterator[None]:
    """Outputs belong to the process, and the tests of other files have theirs."""
    yield
    logs.setup("info", "json", [Writer(2)])


def put(member: embed.Member, key: bytes, value: bytes) -> int:
    with grpc.insecure_channel(member.endpoint) as channel:
        call = channel.unary_unary(
            "/etcdserverpb.KV/Put", PutRequest.SerializeToString, PutResponse.FromString
        )
        return call(PutRequest(key=key, value=value), timeout=SECONDS).header.revision


def value_of(member: embed.Member, key: bytes) -> bytes | None:
    with grpc.insecure_channel(member.endpoint) as channel:
        call = channel.unary_unary(
            "/etcdserverpb.KV/Range", RangeRequest.SerializeToString, RangeResponse.FromString
        )
        found = call(RangeRequest(key=key), timeout=SECONDS).kvs
        return found[0].value if found else None


def accepts(endpoint: str) -> bool:
    host, _, port = endpoint.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_member_serves_inside_a_block_and_is_gone_after_it(tmp_path: Path) -> None:
    threads = set(threading.enumerate())
    with embed.Member(tmp_path / "data") as member:
        assert put(member, b"k", b"v") == 2
        assert value_of(member, b"k") == b"v"
        assert member.running
    assert not member.running
    assert member.failure is None
    assert not accepts(member.endpoint)
    assert set(threading.enumerate()) <= threads


def test_a_stopped_member_starts_again_with_its_data_at_the_same_url(tmp_path: Path) -> None:
    member = embed.Member(tmp_path / "data").start()
    put(member, b"k", b"v")
    url = member.client_url
    member.stop()
    with member:
        assert member.client_url == url
        assert value_of(member, b"k") == b"v"


def test_two_members_of_one_process_form_a_cluster(tmp_path: Path) -> None:
    urls = {name: f"http://127.0.0.1:{free_port()}" for name in ("a", "b")}
    cluster = ",".join(f"{name}={url}" for name, url in urls.items())
    one, two = (
        embed.Member(tmp_path / name, name=name, listen_peer_urls=url, initial_cluster=cluster)
        for name, url in urls.items()
    )
    starting = threading.Thread(target=one.start)
    starting.start()
    with two:
        starting.join(SECONDS)
        try:
            put(one, b"k", b"v")
            assert value_of(two, b"k") == b"v"
        finally:
            one.stop()


def test_a_program_with_a_loop_of_its_own_goes_on_while_a_member_starts_and_stops(tmp_path: Path) -> None:
    async def program() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        counting = asyncio.create_task(count())
        async with embed.Member(tmp_path / "data") as member:
            assert await asyncio.to_thread(put, member, b"k", b"v") == 2
        counting.cancel()
        return turns

    assert asyncio.run(program()) > 10


def test_flags_are_those_of_the_executable(tmp_path: Path) -> None:
    with embed.Member(tmp_path / "data", max_txn_ops=1, enable_grpc_gateway=False, name="a") as member:
        with (
            pytest.raises(urllib.error.HTTPError) as refused,
            urllib.request.urlopen(f"{member.client_url}/v3/kv/range", b"{}", timeout=SECONDS),
        ):
            pass
        assert refused.value.code == 404
        with urllib.request.urlopen(f"{member.client_url}/health", timeout=SECONDS) as answer:
            assert json.load(answer)["health"] == "true"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"nope": 1}, "flag provided but not defined: -nope"),
        ({"max_wals": "x"}, 'invalid value "x" for flag -max-wals: parse error'),
        ({"heartbeat_interval": 1000}, "--election-timeout[1000ms] should be at least as 5 times as"),
        ({"listen_client_urls": "https://127.0.0.1:1"}, "TLS key/cert"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_etcds_words(
    tmp_path: Path, flags: dict[str, embed.Setting], text: str
) -> None:
    with pytest.raises(embed.StartFailed) as refused:
        embed.Member(tmp_path / "data", **flags).start()
    assert text in str(refused.value)


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        url = f"http://127.0.0.1:{other.getsockname()[1]}"
        member = embed.Member(
            tmp_path / "data", listen_client_urls=url, listen_peer_urls=f"http://127.0.0.1:{free_port()}"
        )
        with pytest.raises(embed.StartFailed, match="address already in use"):
            member.start()
        assert not member.running


def test_a_member_that_waits_for_others_gives_up_in_time_and_leaves_no_thread(tmp_path: Path) -> None:
    alone, other = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    threads = set(threading.enumerate())
    member = embed.Member(
        tmp_path / "data", name="a", listen_peer_urls=alone, initial_cluster=f"a={alone},b={other}"
    )
    with pytest.raises(TimeoutError, match="does not serve"):
        member.start(timeout_seconds=1)
    assert not member.running
    assert set(threading.enumerate()) <= threads


def test_log_lines_are_records_of_the_logger_pyetcd(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="pyetcd"), embed.Member(tmp_path / "data"):
        pass
    messages = [json.loads(record.getMessage())["msg"] for record in caplog.records]
    assert "ready to serve client requests" in messages
    assert messages[-1] == "closed etcd server"


def test_the_programs_limit_of_descriptors_is_the_programs(tmp_path: Path) -> None:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(soft, hard if hard >= 0 else soft) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
    try:
        with embed.Member(tmp_path / "data"):
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (lower, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
