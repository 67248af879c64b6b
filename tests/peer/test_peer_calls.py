"""Members ask each other, believe nothing, and fail in one way only."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable

import pytest
from fake_peers import URL, Answer, FakeMember, Straight, Wire, says, silent, unknown_error
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.cluster.members import Member, to_json
from pyetcd.peer.calls import (
    BadClusterId,
    CallFailed,
    Calls,
    ClusterInfo,
    LeaseBehind,
    OtherCluster,
    PeerHash,
    Versions,
    parse_id,
)
from pyetcd.peer.endpoints import Endpoints, LeaseLife, NotPrimary
from pyetcd.peer.wire import Unreachable
from pyetcd.proto import errors
from pyetcd.proto.errors import EtcdError

IN = ("x-etcd-cluster-id", "c1")


def run(call: Awaitable[object]) -> object:
    async def wait() -> object:
        return await call

    return asyncio.run(wait())


def straight(member: FakeMember) -> Calls:
    return Calls(Straight(Endpoints(member)))


# One side asks the other


def test_members_come_with_the_cluster() -> None:
    member = FakeMember()
    member.listed.append(Member(2, ("http://b:2380", "http://b:2381"), True))
    assert run(straight(member).members(URL, 1)) == ClusterInfo(0xC1, tuple(member.listed))
    member.listed = []
    assert run(straight(member).members(URL, 1)) == ClusterInfo(0xC1, ())


def test_versions_and_downgrades() -> None:
    member = FakeMember()
    assert run(straight(member).version(URL, 1)) == Versions("3.7.1", "not_decided", "unknown")
    assert run(straight(member).downgrade_enabled(URL, 1)) is False
    member.downgrading = True
    assert run(straight(member).downgrade_enabled(URL, 1)) is True
    member.error = errors.TIMEOUT()
    with pytest.raises(CallFailed, match=r"strconv.ParseBool: parsing .failed linearized read: etcdserver: "):
        run(straight(member).downgrade_enabled(URL, 1))


def test_a_promotion_carries_the_clients_token() -> None:
    member = FakeMember()
    assert run(straight(member).promote(URL, 5, 1, "token")) == tuple(member.listed)
    run(straight(member).promote(URL, 6, 1))
    assert member.promoted == [(5, "token"), (6, None)]


@pytest.mark.parametrize(
    "error", [errors.MEMBER_NOT_FOUND, errors.MEMBER_NOT_LEARNER, errors.LEARNER_NOT_READY]
)
def test_the_reasons_against_a_promotion_survive_the_way(error: type[EtcdError]) -> None:
    member = FakeMember()
    member.error = error()  # type: ignore[call-arg]
    with pytest.raises(error):
        run(straight(member).promote(URL, 5, 1))


def test_other_reasons_against_a_promotion_are_not_told() -> None:
    member = FakeMember()
    member.error = errors.MEMBER_NOT_ENOUGH_STARTED()
    with pytest.raises(CallFailed, match=r'unknown error\(\{"message":"Internal Server Error"\}\)'):
        run(straight(member).promote(URL, 5, 1))


def test_a_lease_is_renewed_and_looked_at() -> None:
    member = FakeMember()
    assert run(straight(member).renew(URL, 5, 1)) == 7
    for keys in (True, False):
        found = run(straight(member).time_to_live(URL, 5, keys, 1))
        assert (found.ID, found.TTL, found.grantedTTL) == (5, 7, 10)  # type: ignore[attr-defined]
        assert list(found.keys) == ([b"k1", b"k2"] if keys else [])  # type: ignore[attr-defined]


def test_a_lease_that_is_not_there() -> None:
    member = FakeMember()
    member.error = errors.LEASE_NOT_FOUND()
    with pytest.raises(errors.LEASE_NOT_FOUND):
        run(straight(member).renew(URL, 5, 1))
    with pytest.raises(errors.LEASE_NOT_FOUND):
        run(straight(member).time_to_live(URL, 5, True, 1))


def test_a_member_that_does_not_lead_or_is_behind_cannot_say_much_of_leases() -> None:
    member = FakeMember()
    member.error = NotPrimary()
    with pytest.raises(CallFailed, match=r"lease: unknown error\(not a primary lessor\n\)"):
        run(straight(member).renew(URL, 5, 1))
    with pytest.raises(CallFailed, match=r"lease: unknown error\(not a primary lessor\n\)"):
        run(straight(member).time_to_live(URL, 5, True, 1))
    member.behind = True
    with pytest.raises(LeaseBehind):
        run(straight(member).renew(URL, 5, 1))
    with pytest.raises(LeaseBehind):
        run(straight(member).time_to_live(URL, 5, True, 1))


def test_many_keys_may_hang_on_a_lease() -> None:
    member = FakeMember()
    member.life = LeaseLife(1, 2, [b"%060d" % number for number in range(50_000)])
    found = run(straight(member).time_to_live(URL, 5, True, 1))
    assert list(found.keys) == member.life.keys  # type: ignore[attr-defined]


def test_hashes() -> None:
    member = FakeMember()
    assert run(straight(member).hash_kv(URL, 0xC1, 0, 1)) == member.hash
    member.hash = PeerHash(0, 0, 0, 0, 0)
    assert run(straight(member).hash_kv(URL, 0xC1, 8, 1)) == member.hash
    with pytest.raises(OtherCluster):
        run(straight(member).hash_kv(URL, 0xC2, 0, 1))
    for error in (errors.COMPACTED, errors.FUTURE_REVISION):
        member.error = error()
        with pytest.raises(error):
            run(straight(member).hash_kv(URL, 0xC1, 8, 1))
    member.error = unknown_error()
    with pytest.raises(CallFailed, match="unknown error: something else"):
        run(straight(member).hash_kv(URL, 0xC1, 8, 1))


def test_what_is_asked_is_as_etcd_asks() -> None:
    wire = says(500, b"")
    for call in (
        Calls(wire).hash_kv(URL, 0xC1, 5, 1),
        Calls(wire).hash_kv(URL, 0xC1, 0, 1),
        Calls(wire).renew(URL, 300, 1),
    ):
        with pytest.raises(CallFailed):
            run(call)
    (_, five), (_, newest), (_, renewal) = wire.asked
    assert (five.method, five.target, five.body) == ("GET", "/members/hashkv", b'{"revision":5}')
    assert newest.body == b"{}"
    assert dict(five.headers) == {"Content-Type": "application/json", "X-Etcd-Cluster-Id": "c1"}
    assert (renewal.method, renewal.target, renewal.body) == ("POST", "/leases", b"\x08\xac\x02")
    assert dict(renewal.headers) == {"Content-Type": "application/protobuf"}


# What cannot be believed


def test_a_member_that_cannot_be_reached_is_told_in_gos_words() -> None:
    text = r'Get "http://127\.0\.0\.1:2380/members": dial tcp 127\.0\.0\.1:2380: connect: connection refused'
    with pytest.raises(CallFailed, match=text):
        run(Calls(silent()).members(URL, 1))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"404 page not found\n",
        b"{}",
        b'"text"',
        b"[null]",
        b"[1]",
        b'[{"id": "1"}]',
        b'[{"id": -1}]',
        b'[{"id": 18446744073709551616}]',
        b'[{"id": 1, "peerURLs": "http://a"}]',
        b'[{"id": 1, "peerURLs": [1]}]',
        b'[{"id": 1e3}]',
        b"[" * 100_000,
        b'[{"id": ' + b"9" * 5000 + b"}]",
        b"[" + b" " * (4 << 20) + b"]",
        to_json(Member(1)),
    ],
)
def test_a_list_of_members_that_is_none(body: bytes) -> None:
    with pytest.raises(CallFailed):
        run(Calls(says(200, body, IN)).members(URL, 1))


@pytest.mark.parametrize("header", ["", "xyz", "-1", "0x1", "1_0", "1" * 17, " 1"])
def test_a_cluster_whose_id_is_none(header: str) -> None:
    with pytest.raises(BadClusterId, match=r"strconv.ParseUint: parsing") as caught:
        run(Calls(says(200, b"[]", ("x-etcd-cluster-id", header))).members(URL, 1))
    assert caught.value.header == header


def test_ids_are_read_as_go_reads_them() -> None:
    assert parse_id("cdf818194e3a8c32") == 0xCDF818194E3A8C32
    assert parse_id("00FF") == 255
    with pytest.raises(ValueError, match="value out of range"):
        parse_id("1" + "0" * 16)


def test_members_of_a_newer_etcd_are_understood() -> None:
    body = b'[{"ID":1,"PEERURLs":["http://a:1"],"unknown":{"x":[1]},"name":null}]\n'
    found = run(Calls(says(200, body, IN)).members(URL, 1))
    assert found == ClusterInfo(0xC1, (Member(1, ("http://a:1",)),))


@pytest.mark.parametrize("body", [b"", b"[]", b'{"etcdserver": 1}', b"null", b" " * (65 << 10)])
def test_versions_that_are_none(body: bytes) -> None:
    with pytest.raises(CallFailed):
        run(Calls(says(200, body)).version(URL, 1))


@pytest.mark.parametrize(
    "body", [b"", b'{"hash": -1}', b'{"hash": 4294967296}', b'{"header": []}', b'{"header": 1}', b"[]"]
)
def test_hashes_that_are_none(body: bytes) -> None:
    with pytest.raises(CallFailed):
        run(Calls(says(200, body)).hash_kv(URL, 1, 1, 1))


def test_a_lease_that_was_not_asked_for() -> None:
    with pytest.raises(CallFailed, match="lease: renew id mismatch"):
        run(Calls(says(200, b"\x10\x06\x18\x01")).renew(URL, 5, 1))
    with pytest.raises(CallFailed, match="lease: TTL id mismatch"):
        run(Calls(says(200, b"")).time_to_live(URL, 5, True, 1))


@given(st.integers(200, 599), st.binary(max_size=200))
def test_whatever_comes_is_a_failure_or_an_answer(status: int, body: bytes) -> None:
    for wire in (says(status, body, IN), says(status, body)):
        calls = Calls(wire)
        for call in (
            calls.members(URL, 1),
            calls.version(URL, 1),
            calls.promote(URL, 1, 1),
            calls.renew(URL, 1, 1),
            calls.time_to_live(URL, 1, True, 1),
            calls.hash_kv(URL, 1, 1, 1),
            calls.downgrade_enabled(URL, 1),
        ):
            try:
                run(call)
            except (CallFailed, EtcdError):
                pass


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: (
    st.lists(inner) | st.dictionaries(st.sampled_from(
        ["id", "peerURLs", "name", "hash", "header", "revision", "etcdserver", "isLearner"]
    ), inner)
)))  # fmt: skip
def test_whatever_json_comes_is_a_failure_or_an_answer(found: object) -> None:
    calls = Calls(says(200, json.dumps(found).encode(), IN))
    for call in (calls.members(URL, 1), calls.version(URL, 1), calls.hash_kv(URL, 1, 1, 1)):
        try:
            run(call)
        except CallFailed:
            pass


# One member at several URLs


def test_a_member_is_asked_at_one_url_after_another() -> None:
    def answer(url: object, request: object) -> Answer | Exception:
        if str(url) == "http://b:2380":
            return Answer(200, (), b'{"etcdserver":"3.7.1","etcdcluster":"3.7.0"}')
        return Unreachable("EOF")

    wire = Wire(answer)
    member = Member(7, ("http://a:2380", "no url", "http://b:2380", "http://c:2380"))
    assert run(Calls(wire).version_of(member, 1)) == Versions("3.7.1", "3.7.0", "")
    assert [url for url, _ in wire.asked] == ["http://a:2380", "http://b:2380"]


def test_what_the_last_url_said_is_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    member = Member(7, ("http://a:2380", "http://b:2380"))
    with pytest.raises(CallFailed, match="http://b:2380/version"):
        run(Calls(silent()).version_of(member, 1))
    with pytest.raises(CallFailed, match="has no peer URLs"):
        run(Calls(silent()).version_of(Member(7, None), 1))


def test_versions_of_members_that_do_not_answer_are_none() -> None:
    wire = Wire(
        lambda url, request: (
            Answer(200, (), b'{"etcdserver":"3.7.1"}') if url.text == "http://a:1" else Unreachable("EOF")
        )
    )
    members = [Member(1, ("http://a:1",)), Member(2, ("http://b:1",))]
    assert run(Calls(wire).versions_of(members, 1)) == {1: Versions("3.7.1", "", ""), 2: None}


def test_the_first_member_that_knows_says_whether_a_downgrade_is_on() -> None:
    wire = Wire(
        lambda url, request: Answer(200, (), b"true") if url.text == "http://b:1" else Unreachable("EOF")
    )
    members = [Member(1, ("http://a:1",)), Member(2, ("http://b:1",)), Member(3, ("http://c:1",))]
    assert run(Calls(wire).is_downgrading(members, 1)) is True
    assert len(wire.asked) == 2
    assert run(Calls(silent()).is_downgrading(members, 1)) is False
