"""`etcd grpc-proxy start` before a member of either kind: what passes, what is shared, what is hidden."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from ctl_runner import Etcdctl
from programs import GO, executable
from running import OURS, SECONDS, Proxy, both_etcdctls_work, proxy
from servers import Server, free_port

from pyetcd.proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    WatchCancelRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)

Requests = queue.SimpleQueue[WatchRequest | None]


@pytest.fixture(scope="module")
def running(either: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy before a member of each kind."""
    directory = tmp_path_factory.mktemp("proxy")
    port = free_port()
    with proxy(
        "grpc-proxy",
        directory,
        f"--endpoints=127.0.0.1:{either.port}",
        f"--metrics-addr=http://127.0.0.1:{port}",
        "--advertise-client-url=",
    ) as started:
        started.metrics = f"http://127.0.0.1:{port}"
        yield started


@pytest.fixture
def channel(running: Proxy) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(running.address) as made:
        yield made


def put(channel: grpc.Channel, key: bytes, value: bytes) -> PutResponse:
    call = channel.unary_unary("/etcdserverpb.KV/Put", PutRequest.SerializeToString, PutResponse.FromString)
    answer: PutResponse = call(PutRequest(key=key, value=value), timeout=SECONDS)
    return answer


def ranged(channel: grpc.Channel, request: RangeRequest) -> RangeResponse:
    call = channel.unary_unary(
        "/etcdserverpb.KV/Range", RangeRequest.SerializeToString, RangeResponse.FromString
    )
    answer: RangeResponse = call(request, timeout=SECONDS)
    return answer


class Watching:
    """A stream with one watcher, made before the constructor returns."""

    def __init__(self, channel: grpc.Channel, request: WatchCreateRequest) -> None:
        self.requests: Requests = queue.SimpleQueue()
        self.requests.put(WatchRequest(create_request=request))
        call = channel.stream_stream(
            "/etcdserverpb.Watch/Watch", WatchRequest.SerializeToString, WatchResponse.FromString
        )
        self.answers: Iterator[WatchResponse] = call(iter(self.requests.get, None), timeout=SECONDS)
        self.created = next(self.answers)


def metric(address: str, name: str) -> float:
    with urllib.request.urlopen(f"{address}/proxy/metrics", timeout=SECONDS) as answer:
        text = answer.read().decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(name + " ")))


def member_metric(server: Server, name: str) -> float:
    with urllib.request.urlopen(f"{server.client_url}/metrics", timeout=SECONDS) as answer:
        text = answer.read().decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(name + " ")))


def test_our_etcdctl_and_the_real_one_work_through_it(running: Proxy) -> None:
    both_etcdctls_work(running.address)
    ours = Etcdctl(running.address)
    assert ours("txn", stdin=b'value("k") = "v"\n\ndel k\n\nget k\n\n').text.startswith("SUCCESS\n")
    assert ours("member", "list").code == 0
    assert ours("endpoint", "status").code == 0
    assert ours("user", "list").code == 0
    granted = ours("lease", "grant", "60").text.split()[1]
    assert ours("lease", "keep-alive", granted, "--once").text == f"lease {granted} keepalived with TTL(60)\n"
    assert ours("lease", "revoke", granted).code == 0


def test_errors_are_the_clusters(channel: grpc.Channel, either: Server) -> None:
    told = []
    for target in (channel, grpc.insecure_channel(f"127.0.0.1:{either.port}")):
        with pytest.raises(grpc.RpcError) as refused:
            put(target, b"", b"")
        told.append((refused.value.code(), refused.value.details()))
    assert told[0] == told[1]


def test_what_the_proxy_does_not_have_it_says_as_etcds(channel: grpc.Channel) -> None:
    call = channel.unary_stream("/etcdserverpb.KV/RangeStream")
    with pytest.raises(grpc.RpcError) as refused:
        next(call(b"", timeout=SECONDS))
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert refused.value.details() == "RangeStream is not supported by the gRPC proxy"
    promote = channel.unary_unary("/etcdserverpb.Cluster/MemberPromote")
    with pytest.raises(grpc.RpcError) as refused:
        promote(b"", timeout=SECONDS)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNKNOWN, "not implemented")


def test_watchers_of_one_range_share_one_watch_of_the_member(
    running: Proxy, channel: grpc.Channel, either: Server
) -> None:
    before = member_metric(either, "etcd_debugging_mvcc_watcher_total")
    watching = [Watching(channel, WatchCreateRequest(key=b"shared")) for _ in range(20)]
    assert all(each.created.created and each.created.watch_id == 0 for each in watching)
    put(channel, b"shared", b"1")
    for each in watching:
        assert [event.kv.value for event in next(each.answers).events] == [b"1"]
    assert member_metric(either, "etcd_debugging_mvcc_watcher_total") == before + 1
    assert metric(running.metrics, "etcd_grpc_proxy_watchers_coalescing_total") == 19
    assert metric(running.metrics, "etcd_grpc_proxy_events_coalescing_total") >= 19
    for each in watching:
        each.requests.put(WatchRequest(cancel_request=WatchCancelRequest(watch_id=0)))
        assert next(each.answers).canceled
        each.requests.put(None)


def test_each_watcher_gets_what_it_asked_for_from_its_revision_on(channel: grpc.Channel) -> None:
    first = put(channel, b"w", b"1").header.revision
    put(channel, b"w", b"2")
    old = Watching(channel, WatchCreateRequest(key=b"w", start_revision=first, prev_kv=True))
    no_puts = Watching(channel, WatchCreateRequest(key=b"w", filters=[WatchCreateRequest.NOPUT]))
    new = Watching(channel, WatchCreateRequest(key=b"w"))
    seen = list(next(old.answers).events)
    while len(seen) < 2:
        seen += next(old.answers).events
    put(channel, b"w", b"3")
    assert [event.kv.value for event in next(new.answers).events] == [b"3"]
    last = next(old.answers).events
    assert [event.kv.value for event in (*seen, *last)] == [b"1", b"2", b"3"]
    assert last[0].prev_kv.value == b"2"
    delete = channel.unary_unary("/etcdserverpb.KV/DeleteRange")
    delete(b"\x0a\x01w", timeout=SECONDS)
    assert [event.type for event in next(no_puts.answers).events] == [1]
    assert not next(new.answers).events[0].HasField("prev_kv")
    for each in (old, no_puts, new):
        each.requests.put(None)


def test_a_watch_of_what_is_compacted_is_canceled(channel: grpc.Channel) -> None:
    revision = put(channel, b"c", b"1").header.revision
    compact = channel.unary_unary("/etcdserverpb.KV/Compact")
    compact(b"\x08" + _varint(revision), timeout=SECONDS)
    watching = Watching(channel, WatchCreateRequest(key=b"c", start_revision=1))
    answer = watching.created
    while not answer.canceled:
        answer = next(watching.answers)
    assert answer.compact_revision == revision
    watching.requests.put(None)


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return out + bytes((number,))


def test_serializable_reads_come_from_the_cache_until_the_key_is_written(
    running: Proxy, channel: grpc.Channel, either: Server
) -> None:
    put(channel, b"cached", b"1")
    request = RangeRequest(key=b"cached", serializable=True)
    assert ranged(channel, request).kvs[0].value == b"1"
    hits = metric(running.metrics, "etcd_grpc_proxy_cache_hits_total")
    either.put(b"cached", b"behind the proxy's back")
    assert ranged(channel, request).kvs[0].value == b"1"
    assert metric(running.metrics, "etcd_grpc_proxy_cache_hits_total") == hits + 1
    put(channel, b"cached", b"2")
    assert ranged(channel, request).kvs[0].value == b"2"
    watching = Watching(channel, WatchCreateRequest(key=b"cached"))
    either.put(b"cached", b"3")
    next(watching.answers)
    assert ranged(channel, request).kvs[0].value == b"3"
    watching.requests.put(None)


def test_many_who_keep_a_lease_alive_all_get_answers(channel: grpc.Channel) -> None:
    grant = channel.unary_unary(
        "/etcdserverpb.Lease/LeaseGrant", LeaseGrantRequest.SerializeToString, LeaseGrantResponse.FromString
    )
    lease = grant(LeaseGrantRequest(TTL=60), timeout=SECONDS).ID
    keep = channel.stream_stream(
        "/etcdserverpb.Lease/LeaseKeepAlive",
        LeaseKeepAliveRequest.SerializeToString,
        LeaseKeepAliveResponse.FromString,
    )
    request = LeaseKeepAliveRequest(ID=lease)
    streams = [keep(iter([request, request]), timeout=SECONDS) for _ in range(10)]
    assert [[(each.ID, each.TTL) for each in stream] for stream in streams] == [[(lease, 60)] * 2] * 10
    gone = keep(iter([LeaseKeepAliveRequest(ID=4711)]), timeout=SECONDS)
    assert [each.TTL for each in gone] == [0]


def test_a_client_that_does_not_read_is_cut_off_and_others_are_told(
    running: Proxy, channel: grpc.Channel
) -> None:
    with grpc.insecure_channel(running.address, options=[("grpc.http2.bdp_probe", 0)]) as stuck:
        never = threading.Event()

        def requests() -> Iterator[WatchRequest]:
            yield WatchRequest(create_request=WatchCreateRequest(key=b"big"))
            never.wait(SECONDS)

        call = stuck.stream_stream(
            "/etcdserverpb.Watch/Watch", WatchRequest.SerializeToString, WatchResponse.FromString
        )
        slow = call(requests(), timeout=120)
        next(slow)
        watching = Watching(channel, WatchCreateRequest(key=b"big"))
        for number in range(60):
            put(channel, b"big", bytes(1 << 20))
            assert len(next(watching.answers).events) == 1, number
        resident = int(Path(f"/proc/{running.process.pid}/statm").read_text().split()[1]) * 4096
        assert resident < 300 << 20
        running.wait("failed to put a watch response")
        never.set()
        watching.requests.put(None)


def test_health_and_metrics_are_the_members_and_its_own(running: Proxy) -> None:
    for address in (f"http://{running.address}", running.metrics):
        with urllib.request.urlopen(f"{address}/health", timeout=SECONDS) as answer:
            assert json.load(answer) == {"health": "true", "reason": ""}
        with urllib.request.urlopen(f"{address}/metrics", timeout=SECONDS) as answer:
            assert b"etcd_server_has_leader 1" in answer.read()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/nowhere", timeout=SECONDS)
        assert refused.value.code == 404
    with pytest.raises(urllib.error.HTTPError) as ill:
        urllib.request.urlopen(f"{running.metrics}/proxy/health", timeout=SECONDS)
    assert json.load(ill.value) == {"health": "false", "reason": "no connection to proxy"}


def test_a_namespace_is_all_its_clients_see(member: Server, tmp_path: Path) -> None:
    endpoints = f"--endpoints={member.client_url}"
    with proxy("grpc-proxy", tmp_path, endpoints, "--namespace=in/") as started:
        inside, outside = Etcdctl(started.address), Etcdctl(f"127.0.0.1:{member.port}")
        outside("put", "out", "1")
        inside("put", "a", "2")
        assert inside("get", "", "--prefix").text == "a\n2\n"
        assert outside("get", "in/", "--prefix").text == "in/a\n2\n"
        watch = inside.open("watch", "--rev=1", "", "--prefix")
        assert watch.stdout is not None
        assert [watch.stdout.readline() for _ in range(3)] == [b"PUT\n", b"a\n", b"2\n"]
        watch.kill()
        watch.communicate()
        assert inside("txn", stdin=b'value("a") = "2"\n\nget a\n\n\n').text == "SUCCESS\n\na\n2\n"
        lease = outside("lease", "grant", "60").text.split()[1]
        inside("put", "leased", "x", f"--lease={lease}")
        outside("put", "foreign", "x", f"--lease={lease}")
        assert "attached keys([leased])" in inside("lease", "timetolive", lease, "--keys").text
        assert inside("del", "", "--from-key").text == "2\n"
        assert outside("get", "out", "--print-value-only").text == "1\n"


def test_proxies_of_a_prefix_know_each_other(member: Server, tmp_path: Path) -> None:
    flags = (f"--endpoints={member.client_url}", "--resolver-prefix=proxies", "--resolver-ttl=2")
    with proxy("grpc-proxy", tmp_path, *flags, "--advertise-client-url=one.invalid:1") as first:
        first.line("registered session with lease")
        with proxy("grpc-proxy", tmp_path, *flags, "--advertise-client-url=two.invalid:2") as second:
            second.line("registered session with lease")
            # The second has read of the first before it registered; the first is told of the second.
            for each in (first, second):
                ctl = Etcdctl(each.address)
                deadline = time.monotonic() + SECONDS
                while "two.invalid:2" not in (listed := ctl("member", "list").text):
                    assert time.monotonic() < deadline, listed
                assert "one.invalid:1" in listed


REFUSED = [
    ["--resolver-prefix=a"],
    ["--resolver-ttl=5"],
    ["--resolver-prefix=a", "--resolver-ttl=5", "--advertise-client-url="],
    ["--auto-tls", "--self-signed-cert-validity=0"],
    ["--tls-min-version=TLS1.1"],
    ["--tls-max-version=x"],
    ["--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"],
    ["--tls-min-version=TLS1.3", "--listen-cipher-suites=TLS_AES_128_GCM_SHA256"],
    ["--max-concurrent-streams=4294967296"],
    ["--max-send-bytes=x"],
    ["--no-such-flag"],
    ["--listen-addr=127.0.0.1:x"],
    ["--listen-addr=nowhere"],
]


@pytest.mark.timeout(900)  # real etcd may have to be built
@pytest.mark.parametrize("flags", REFUSED, ids=" ".join)
def test_mistakes_end_it_as_they_end_etcd(flags: list[str], tmp_path: Path) -> None:
    told = []
    for program in (executable(GO), OURS):
        done = subprocess.run(
            [str(program), "grpc-proxy", "start", *flags],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        said = [line for line in done.stderr.splitlines() if line and line[0] not in " {"]
        told.append((done.returncode, done.stdout, said))
    assert told[1] == told[0]
    assert told[0][0] == 1


def test_help_names_the_flags_of_etcd() -> None:
    done = [
        subprocess.run(
            [str(program), "grpc-proxy", "start", "--help"], capture_output=True, text=True, timeout=60
        )
        for program in (OURS, executable(GO))
    ]
    flags = [[line.split("   ")[0] for line in each.stdout.splitlines() if "--" in line[:8]] for each in done]
    assert flags[0] == flags[1]
