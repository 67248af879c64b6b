"""The JSON gateway says what real etcd's says: recorded requests, random ones, and streams."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_twins import Asked, GatewayTwins, ask
from random_gateway import RandomRequests
from servers import Etcd, GoEtcd

SEEDS = (1, 2, 3)
REQUESTS = 400
CORS = "Access-Control-Allow-Origin"
FORM = "Content-Type: application/x-www-form-urlencoded"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def post(path: str, body: object, *headers: str) -> Asked:
    return Asked(path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers=headers)


def put(key: str, value: str, **more: object) -> Asked:
    return post("/v3/kv/put", {"key": b64(key), "value": b64(value), **more})


def get(body: object, *headers: str) -> Asked:
    return post("/v3/kv/range", body, *headers)


A, Z = b64("a"), b64("z")
KEY_VALUE = [
    put("a", "1"),
    put("a", "2", prev_kv=True),
    put("b", "2", prevKv=True, unknown={"x": [1, 2, {}]}),
    put("a", "3", lease=77),
    put("a", "x" * 1_600_000),
    put("a", "x" * 2_200_000),
    get({"key": A}),
    get({"key": A, "range_end": Z, "limit": "1"}),
    get({"key": A, "rangeEnd": Z, "limit": 1, "sort_order": "DESCEND", "sort_target": 2}),
    get({"key": A, "range_end": Z, "count_only": True}),
    get({"key": A, "limit": 1.0, "sort_order": "NONE_SUCH"}),
    get({"key": A, "revision": 1000}),
    post("/v3/kv/deleterange", {"key": A, "prev_kv": True}),
    post(
        "/v3/kv/txn",
        {
            "compare": [{"target": "VALUE", "key": b64("b"), "value": b64("2")}],
            "success": [
                {"request_range": {"key": b64("b")}},
                {"requestPut": {"key": b64("c"), "value": b64("<>")}},
            ],
        },
    ),
    post(
        "/v3/kv/txn",
        {
            "compare": [{"target": "VERSION", "key": b64("b"), "version": 0}],
            "success": [{"request_range": {"key": b64("b")}}],
            "failure": [{"request_delete_range": {"key": b64("none")}}],
        },
    ),
    post("/v3/kv/txn", {"success": [{"request_range": {"key": A}, "request_put": {"key": A}}]}),
    post("/v3/kv/txn", {"success": [{"request_txn": {"success": [{"request_range": {"key": A}}]}}]}),
    post("/v3/kv/txn", {"success": 5}),
    post("/v3/kv/txn", {"success": [5]}),
    post("/v3/kv/txn", {"success": [None]}),
    post("/v3/kv/txn", {"success": [{}]}),
    post("/v3/kv/txn", {"Request": [{}]}),
    post("/v3/kv/compaction", {"revision": 1000}),
    post("/v3/kv/compaction", {"revision": -1}),
    post("/v3/kv/compaction", {"revision": 2, "physical": True}),
    post("/v3/kv/compaction", {"revision": 2}),
    get({"key": A, "range_end": Z, "revision": 1}),
]
LEASES = [
    post("/v3/lease/grant", {"TTL": 1000, "ID": 123}),
    post("/v3/lease/grant", {"TTL": "1000", "ID": "123"}),
    post("/v3/lease/grant", {"TTL": 1 << 40, "ID": 124}),
    put("leased", "x", lease="123"),
    post("/v3/lease/timetolive", {"ID": "123", "keys": True}),
    post("/v3/kv/lease/timetolive", {"ID": 5}),
    post("/v3/lease/leases", {}),
    post("/v3/kv/lease/leases", b""),
    post("/v3/lease/keepalive", {"ID": 123}),
    post("/v3/lease/keepalive", b'{"ID":123}{"ID":5}\n{"ID":"123"}'),
    post("/v3/lease/keepalive", b""),
    post("/v3/lease/keepalive", b'{"ID":123}{"ID":x}'),
    post("/v3/lease/keepalive", b'{"ID":[]}'),
    post("/v3/lease/revoke", {"ID": 123}),
    post("/v3/kv/lease/revoke", {"ID": 123}),
]
LOCKS = [
    post("/v3/lock/lock", {"name": A, "lease": 321}),
    post("/v3/lease/grant", {"TTL": 1000, "ID": 321}),
    post("/v3/lock/lock", {"name": A, "lease": "321"}),
    post("/v3/lock/lock", {"name": A, "lease": 321, "unknown": {}}),
    post("/v3/lock/lock", b"{x"),
    post("/v3/lock/unlock", {"key": b64("a/141")}),
    post("/v3/lock/unlock", {"key": b64("a/141")}),
    post("/v3/lock/unlock", b""),
    post("/v3/election/leader", {"name": b64("e")}),
    post("/v3/election/proclaim", {"value": A}),
    post("/v3/election/resign", {}),
    post("/v3/election/resign", {"leader": None}),
    post("/v3/election/campaign", {"name": b64("e"), "value": A, "lease": 322}),
    post("/v3/election/campaign", {"name": b64("e"), "value": A, "lease": 321}),
    post("/v3/election/leader", {"name": b64("e")}),
    post("/v3/election/proclaim", {"leader": {"key": b64("e/141"), "rev": 1, "lease": 321}, "value": Z}),
    post("/v3/election/observe", b"[]"),
    post("/v3/lease/revoke", {"ID": 321}),
    post("/v3/election/leader", {"name": b64("e")}),
]
OTHERS = [
    post("/v3/cluster/member/add", {"peerURLs": ["x"]}),
    post("/v3/cluster/member/remove", {"ID": 5}),
    post("/v3/cluster/member/promote", {"ID": 5}),
    post("/v3/cluster/member/update", {"ID": 5, "peerURLs": ["http://127.0.0.1:1"]}),
    post("/v3/maintenance/alarm", {}),
    post("/v3/maintenance/alarm", {"action": "GET"}),
    post("/v3/maintenance/status", {}),
    post("/v3/maintenance/hashkv", {}),
    post("/v3/maintenance/hashkv", {"revision": 1000}),
    post("/v3/maintenance/transfer-leadership", {"targetID": 5}),
    Asked("/v3/maintenance/snapshot", b"{x"),
]
VALUES = [
    get({"key": key})
    for key in ("YQ", "YQ==\n", "Y_Q-", "Y_Q=", "Y$", "Y", "YR==", "====", "", "Y+_Q", 5, None)
] + [
    get({"key": A, "limit": limit})
    for limit in (
        "x",
        1.5,
        " 1",
        "1 ",
        "1 2",
        "1,",
        "1x",
        "",
        "-0",
        1e2,
        "1e2",
        "10e-1",
        "1e-1",
        "1.50",
        True,
    )
]
VALUES += [
    get(b'{"key":"YQ==","limit":' + limit + b"}") for limit in (b"1e400", b"1E+2", b"-0", b"1e19", b"0e9")
]
BROKEN = [
    get(body)
    for body in (
        b"",
        b"   ",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"123abc",
        b"{x",
        b"{'a",
        b'{"a" 1',
        b'{"a":1 2',
        b"[1 2",
        b"[1,]",
        b'{"a":01}',
        b'{"a":tru}',
        b'{"a":fal',
        b'{"a":nil}',
        b'{"a":"\n"}',
        b'{"a":"\\x"}',
        b'{"a":"\\u12x"}',
        b'{"a":"\\u12',
        b'{"a":1.}',
        b'{"a":-}',
        b'{"a":1e}',
        b'{"a":1e+}',
        b'{"a":1e+',
        b'{"a":\xe9}',
        b'{"a":\x80}',
        b'{"a":\x01}',
        b'{"a":\x7f}',
        b'{"a":\'}',
        b'{"a":1,}',
        b'{"a":1,"',
        b'{"key":"\xff"}',
        b'{"\xff":1}',
        b'{"key":"\\ud800"}',
        b'{"key":"\\ud800aaaaaaa"}',
        b'{"key":"\\udc00\\ud800aaaaa"}',
        b'{"x":"\\ud83d\\ude00","key":"\\u0059\\u0051=="}',
        b'{"key":"YQ==","key":"YQ=="}',
        b'{"key":"YQ==",\n "range_end":"",\n "rangeEnd":""}',
        b'{"key":null,"key":"YQ=="}',
        b'{"[foo.bar]":1,"key":"YQ=="}',
        b'{"key":"YQ=="} trailing',
        b"[" * 9_000,
        b"[" * 10_001,
        b'{"x":' + b"[" * 9_999 + b"]" * 9_999 + b"}",
        b'{"x":' + b"[" * 9_990 + b"]" * 9_990 + b',"key":"YQ=="}',
    )
]
PATHS = [
    Asked(path, b'{"key":"Yg=="}')
    for path in (
        "/v3",
        "/v3/",
        "/v3/kv",
        "/v3/kv/",
        "/v3/kv/range/",
        "/v3/kv//range",
        "/v3/kv/../kv/range",
        "/v3/kv/range?x=1",
        "/v3/kv/rangestream",
        "/v3/KV/range",
        "/v3/kv/range:x",
        "/v3/%6bv/range",
        "/v3/kv%2frange",
        "/v3beta/kv/range",
        "/v3alpha/kv/range",
        "/v2/keys",
    )
] + [
    Asked(path, method=method)
    for path in ("/v3/kv/range", "/v3/none", "/v3/watch")
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")
]
HEADERS = [
    get({"key": b64("b")}, *headers)
    for headers in (
        ["Grpc-Timeout: 5"],
        ["Grpc-Timeout: 5S"],
        ["Grpc-Timeout: 0S"],
        ["Grpc-Timeout: -5S"],
        ["Grpc-Timeout: 5x"],
        ["Grpc-Timeout: S"],
        [FORM, "X-HTTP-Method-Override: post"],
        [FORM, "X-HTTP-Method-Override: get"],
        [FORM, "Origin: http://x"],
        ["X-HTTP-Method-Override: get"],
        ["Grpc-Metadata-hasleader: true"],
        ["Grpc-Metadata-x-bin: !"],
        ["Grpc-Metadata-x-bin: YWJ"],
        ["Grpc-Metadata-x-bin: YWJj"],
        ["Grpc-Metadata-x: \xe9"],
        ["Authorization: nonsense"],
        ["TE: trailers"],
        ["Accept: text/plain"],
    )
]


@pytest.fixture(scope="module")
def twins(goetcd: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayTwins]:
    ours = Etcd(tmp_path_factory.mktemp("ours"))
    both = GatewayTwins(GoEtcd(goetcd, tmp_path_factory.mktemp("go")), ours)
    yield both
    both.close()


@pytest.mark.parametrize(
    "requests",
    [KEY_VALUE, LEASES, OTHERS, VALUES, BROKEN, PATHS, HEADERS, LOCKS],
    ids=["key-value", "leases", "others", "values", "broken", "paths", "headers", "locks"],
)
def test_recorded_requests_get_the_same_answers(twins: GatewayTwins, requests: list[Asked]) -> None:
    for asked in requests:
        twins.same(asked)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_requests_get_the_same_answers(twins: GatewayTwins, seed: int) -> None:
    requests = RandomRequests(seed)
    statuses = {twins.same(requests.next()).status for _ in range(REQUESTS)}
    assert {200, 400} <= statuses, "both good and bad requests were tried"


def test_a_browser_is_told_who_may_ask(twins: GatewayTwins) -> None:
    told = twins.same(get({"key": A}, "Origin: http://a"))
    assert dict(told.headers)[CORS] == "*"


def test_members_are_listed_alike(twins: GatewayTwins) -> None:
    answers = [
        json.loads(ask(each, post("/v3/cluster/member/list", {})).body) for each in (twins.go, twins.ours)
    ]
    for server, answer in zip((twins.go, twins.ours), answers, strict=True):
        (member,) = answer["members"]
        assert int(member["ID"])
        assert member["clientURLs"] == [server.client_url]
    assert [*answers[0]["members"][0]] == [*answers[1]["members"][0]], "the same fields in the same order"


def test_random_texts_are_read_alike_by_every_path(twins: GatewayTwins) -> None:
    """Fields of one message under the path of another, so that names and types rarely fit."""
    requests, chance = RandomRequests(77), random.Random(77)
    paths = ("/v3/kv/range", "/v3/kv/txn", "/v3/lease/timetolive", "/v3/maintenance/hashkv")
    for _ in range(200):
        asked = requests.next()
        twins.same(Asked(chance.choice(paths), asked.body))
