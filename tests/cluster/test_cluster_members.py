"""Identities and JSON of members, byte for byte as etcd's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.cluster import gojson
from pyetcd.cluster.bootstrap import BadCluster, metadata, new_cluster, read_metadata
from pyetcd.cluster.members import (
    BadMember,
    Member,
    cluster_id,
    from_json,
    member_id,
    new_member,
    to_json,
    to_promotion_json,
)


def test_the_default_member_and_cluster_have_etcds_ids() -> None:
    cluster = new_cluster({"default": ["http://localhost:2380"]}, "etcd-cluster")
    assert f"{cluster.named('default').id:x}" == "8e9e05c52164694d"
    assert f"{cluster.id:x}" == "cdf818194e3a8c32"


def test_the_cluster_of_etcds_own_format_test_has_the_id_it_asserts() -> None:
    # TestCtlV3GetFormat: varint 93 e7 f6 93 d4 c5 86 e1 34 in the header of every answer.
    cluster = new_cluster({"test-0": ["https://localhost:20001"]}, "new")
    encoded = bytes.fromhex("93e7f693d4c586e134")
    assert cluster.id == sum((byte & 0x7F) << 7 * i for i, byte in enumerate(encoded))


def test_a_member_id_does_not_depend_on_the_order_of_urls() -> None:
    urls = ["http://b:2380", "http://a:2380"]
    assert member_id(urls, "t") == member_id(sorted(urls), "t")
    assert new_member("n", urls, "t").peer_urls == ("http://a:2380", "http://b:2380")


def test_a_member_added_later_has_the_time_in_its_id() -> None:
    assert member_id(["http://a:1"], "", 1) != member_id(["http://a:1"], "", 2)
    assert member_id(["http://a:1"], "x12") == member_id(["http://a:1"], "x", 12)


def test_a_cluster_id_does_not_depend_on_the_order_of_members() -> None:
    assert cluster_id([3, 1, 2]) == cluster_id([1, 2, 3])


def test_two_members_with_the_same_urls_are_refused() -> None:
    with pytest.raises(BadCluster, match="member exists with identical ID"):
        new_cluster({"a": ["http://x:1"], "b": ["http://x:1"]}, "t")


def test_a_name_that_is_not_in_the_initial_cluster_is_named() -> None:
    with pytest.raises(BadCluster, match='couldn\'t find local name "other" in the initial cluster config'):
        new_cluster({"default": ["http://localhost:2380"]}, "t").named("other")


def test_the_first_entries_are_those_etcd_writes() -> None:
    [data] = new_cluster({"default": ["http://localhost:2380"]}, "etcd-cluster").entry_data()
    json_text = b'{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}'
    assert data == bytes.fromhex("100018cdd2918bd2b881cf8e012251") + json_text


def test_the_metadata_of_the_log_is_that_of_etcd() -> None:
    data = bytes.fromhex("08cdd2918bd2b881cf8e0110b298eaf1948386fccd01")
    assert metadata(0x8E9E05C52164694D, 0xCDF818194E3A8C32) == data
    assert read_metadata(data) == (0x8E9E05C52164694D, 0xCDF818194E3A8C32)
    with pytest.raises(ValueError, match="metadata of the log"):
        read_metadata(b"\x08")


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (Member(1, ("http://a:1",)), '{"id":1,"peerURLs":["http://a:1"]}'),
        (
            Member(2**64 - 1, ("http://a:1", "http://b:1"), True, "né", ("unix://x",)),
            '{"id":18446744073709551615,"peerURLs":["http://a:1","http://b:1"],"isLearner":true,'
            '"name":"né","clientURLs":["unix://x"]}',
        ),
        (Member(7, None), '{"id":7,"peerURLs":null}'),
        (Member(7, ()), '{"id":7,"peerURLs":[]}'),
        (
            Member(3, ("http://h?x=<a>&b",), name='q"\\\x01\u2028\x7f'),
            '{"id":3,"peerURLs":["http://h?x=\\u003ca\\u003e\\u0026b"],"name":"q\\"\\\\\\u0001\\u2028\x7f"}',
        ),
    ],
)
def test_a_member_is_written_as_go_writes_it_and_read_back(member: Member, text: str) -> None:
    assert to_json(member) == text.encode()
    assert from_json(text.encode()) == (member, False)


def test_a_promotion_names_the_member_only() -> None:
    assert to_promotion_json(7) == b'{"id":7,"peerURLs":null,"isPromote":true}'
    assert from_json(to_promotion_json(7)) == (Member(7, None), True)


def test_names_of_fields_are_read_in_any_case_and_unknown_ones_skipped() -> None:
    member, _ = from_json(b'{"ID":5,"PeerURLs":["u"],"name":null,"future":{"x":1}}')
    assert member == Member(5, ("u",))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"id":-1}',
        b'{"id":18446744073709551616}',
        b'{"id":"1"}',
        b'{"id":true}',
        b'{"peerURLs":"x"}',
        b'{"peerURLs":[1]}',
        b'{"isLearner":1}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_member_is_refused(data: bytes) -> None:
    with pytest.raises(BadMember):
        from_json(data)


@given(st.text())
def test_a_string_is_json_that_means_the_same(text: str) -> None:
    written = gojson.string(text)
    assert json.loads(written) == text
    assert not set("<>&\u2028\u2029") & set(written)
