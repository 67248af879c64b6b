"""What a running member tells of itself: its metrics, its slow requests, its separate ports."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from scrape import Scrape, scrape, scrape_url, unary
from servers import Etcd, free_port

from pyetcd.proto.rpc_pb2 import DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest

# Upstream's own test wants these of a member that has had three puts and a get.
WANTED = Path(__file__).with_name("wanted_families.txt").read_text().split()


def test_every_family_upstreams_test_looks_for_is_there(etcd: Etcd) -> None:
    for key in (b"a", b"b", b"c"):
        etcd.put(key, b"v")
    etcd.range(b"a")
    found = scrape(etcd)
    assert set(WANTED) - found.names() == set()
    for line in (
        "etcd_mvcc_put_total 3",
        "etcd_debugging_mvcc_keys_total 3",
        "etcd_mvcc_delete_total 0",
        "etcd_server_has_leader 1",
        "etcd_server_is_leader 1",
        "etcd_server_is_learner 0",
        "etcd_server_leader_changes_seen_total 1",
        'etcd_server_version{server_version="3.7.1"} 1',
        'etcd_cluster_version{cluster_version="3.7"} 1',
        "etcd_server_quota_backend_bytes 2.147483648e+09",
        'etcd_server_apply_duration_seconds_count{op="Put",success="true",version="v3"} 3',
        'etcd_server_request_duration_seconds_count{success="true",type="Put"} 3',
        'etcd_server_request_duration_seconds_count{success="true",type="Range"} 1',
        'etcd_server_range_duration_seconds_count{success="true"} 1',
    ):
        assert line in found.text.splitlines()
    for measured in (
        "etcd_disk_wal_fsync_duration_seconds_count",
        "etcd_disk_wal_write_duration_seconds_sum",
        "etcd_disk_wal_write_bytes_total",
        'etcd_server_request_duration_seconds_sum{success="true",type="Put"}',
        "etcd_mvcc_db_total_size_in_bytes",
        "etcd_network_client_grpc_sent_bytes_total",
        "process_cpu_seconds_total",
    ):
        assert found.values[measured] > 0, measured


def test_times_of_requests_are_those_of_the_clock(etcd: Etcd) -> None:
    """Not longer than the client waited, all together."""
    began = time.monotonic()
    for number in range(50):
        etcd.put(b"k", b"%d" % number)
        etcd.range(b"k")
    waited = time.monotonic() - began
    values = scrape(etcd).values
    put = 'etcd_server_request_duration_seconds_{}{{success="true",type="Put"}}'
    read = 'etcd_server_range_duration_seconds_{}{{success="true"}}'
    applied = 'etcd_server_apply_duration_seconds_{}{{op="Put",success="true",version="v3"}}'
    assert [values[each.format("count")] for each in (put, read, applied)] == [50, 50, 50]
    assert 0 < values[applied.format("sum")] < values[put.format("sum")] < waited
    assert 0 < values[read.format("sum")] < waited


@pytest.fixture(scope="module")
def curious(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """A member to which everything is slow."""
    member = Etcd(
        tmp_path_factory.mktemp("curious"),
        warning_unary_request_duration="1us",
        warning_apply_duration="1ns",
        metrics="extensive",
    )
    yield member
    member.close()


def logged(member: Etcd, message: str, about: str = "", **fields: object) -> dict[str, object]:
    """The line with this message, these fields, and `about` in its request. It comes with an answer,
    or soon after."""
    until = time.monotonic() + 20
    while True:
        for line in reversed(member.printed.text().splitlines()):
            entry: dict[str, object] = json.loads(line)
            if entry["msg"] != message or about not in str(entry.get("request", "")):
                continue
            if fields.items() <= entry.items():
                return entry
        assert time.monotonic() < until, f"no line {message!r} with {fields}:\n{member.printed.text()}"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("path", "request_", "numbers", "content"),
    [
        ("KV/Put", PutRequest(key=b'a\x00"', value=b"12345"), (1, 12, 0), 'key:"a\\x00\\"" value_size:5'),
        ("KV/Range", RangeRequest(key=b"a", range_end=b"b"), (0, 6, 1), 'key:"a" range_end:"b"'),
        ("KV/Range", RangeRequest(key=b"a", revision=999), (0, 6, 0), 'key:"a" revision:999'),
        (
            "KV/Txn",
            TxnRequest(success=[RequestOp(request_put=PutRequest(key=b"t", value=b"secret"))]),
            (1, 13, 0),
            'compare:<> success:<request_put:<key:"t" value_size:6>> failure:<>',
        ),
        ("KV/DeleteRange", DeleteRangeRequest(key=b"t"), (0, 3, 1), 'key:"t"'),
        ("Maintenance/Status", b"", (-1, -1, -1), ""),
    ],
)
def test_a_slow_unary_request_is_told_with_what_was_asked(
    curious: Etcd, path: str, request_: PutRequest, numbers: tuple[int, int, int], content: str
) -> None:
    unary(curious, path, request_)
    entry = logged(
        curious, "request stats", **{"response type": f"/etcdserverpb.{path}", "request content": content}
    )
    assert entry["level"] == "warn"
    assert (entry["request count"], entry["request size"], entry["response count"]) == numbers
    assert str(entry["remote"]).startswith("127.0.0.1:")
    assert str(entry["time spent"]).endswith("s")
    assert str(entry["start time"]) < str(entry["ts"])


def test_an_entry_that_takes_long_is_told_and_counted(curious: Etcd) -> None:
    before = scrape(curious).values["etcd_server_slow_apply_total"]
    curious.put(b"slow", b"12345")
    about = 'put:<key:"slow" value_size:5>'
    entry = logged(curious, "apply request took too long", about, prefix="")
    assert entry["expected-duration"] == "1ns"
    assert str(entry["response"]).startswith("size:")
    curious.range(b"slow")
    entry = logged(curious, "apply request took too long", prefix="read-only range ", request='key:"slow"')
    assert "range_response_count:1 size:" in str(entry["response"])
    assert scrape(curious).values["etcd_server_slow_apply_total"] == before + 2


def test_an_entry_that_fails_is_told_and_counted(curious: Etcd) -> None:
    assert unary(curious, "KV/Put", PutRequest(key=b"f", lease=5))[0] == "NOT_FOUND"
    entry = logged(curious, "failed to apply request")
    assert entry["error"] == "etcdserver: requested lease not found"
    values = scrape(curious).values
    assert values['etcd_server_apply_duration_seconds_count{op="Put",success="false",version="v3"}'] == 1


def test_extensive_metrics_have_times_of_calls(curious: Etcd) -> None:
    curious.put(b"x", b"")
    found = scrape(curious)
    labels = '{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}'
    count = found.values[f"grpc_server_handling_seconds_count{labels}"]
    started = found.values[f"grpc_server_started_total{labels}"]
    assert count == started > 0
    assert 0 < found.values[f"grpc_server_handling_seconds_sum{labels}"] < 60


def refused(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except (urllib.error.URLError, OSError):
        return True
    return False


def test_metrics_and_clients_http_can_have_ports_of_their_own(tmp_path: Path) -> None:
    metrics, http = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    member = Etcd(tmp_path, listen_metrics_urls=metrics, listen_client_http_urls=http)
    try:
        member.put(b"k", b"v")
        for url in (metrics, http):
            assert scrape_url(url).values["etcd_mvcc_put_total"] == 1
            with urllib.request.urlopen(f"{url}/readyz", timeout=10) as response:
                assert response.read() == b"ok\n"
        with urllib.request.urlopen(f"{http}/version", timeout=10):
            pass
        assert refused(f"{metrics}/version"), "nothing for clients"
        assert refused(f"{member.client_url}/version"), "gRPC alone"
        assert '"msg":"serving metrics"' in member.printed.text()
        channel = grpc.insecure_channel(http.removeprefix("http://"))
        with channel, pytest.raises(grpc.RpcError):
            channel.unary_unary("/etcdserverpb.KV/Range")(b"\x0a\x01k", timeout=10)
    finally:
        member.close()


def test_callers_are_told_apart_by_the_version_of_their_api(etcd: Etcd) -> None:
    call = etcd.channel.unary_unary("/etcdserverpb.Maintenance/Status")
    for version in ("3.7", "3.6", "3.7"):
        call(b"", timeout=10, metadata=(("client-api-version", version),))
    call(b"", timeout=10)
    family = "etcd_server_client_requests_total"
    seen = {name: value for name, value in scrape(etcd).values.items() if name.startswith(family)}
    assert seen == {
        f'{family}{{client_api_version="3.6",type="unary"}}': 1,
        f'{family}{{client_api_version="3.7",type="unary"}}': 2,
        f'{family}{{client_api_version="unknown",type="unary"}}': 1,
    }


def test_a_restarted_member_begins_anew_but_for_what_is_on_disk(etcd: Etcd) -> None:
    for key in (b"a", b"b"):
        etcd.put(key, b"v")
    revision = etcd.put(b"a", b"w")
    etcd.restart()
    found: Scrape = scrape(etcd)
    assert found.values["etcd_debugging_mvcc_keys_total"] == 2
    assert found.values["etcd_debugging_mvcc_current_revision"] == revision
    assert found.values["etcd_mvcc_range_total"] == 0
    assert found.values["etcd_server_proposals_failed_total"] == 0
