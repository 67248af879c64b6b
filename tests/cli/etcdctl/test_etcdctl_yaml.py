"""`-w yaml` says what `-w json` says, and always in the same bytes."""

from __future__ import annotations

import json
import string
from collections.abc import Callable

import pytest
import yaml
from ctl_runner import Etcdctl
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.cli.etcdctl.output import Health, Printer, WatchAnswer
from pyetcd.cli.etcdctl.output_json import JsonPrinter, Number, dumps
from pyetcd.cli.etcdctl.output_yaml import YamlPrinter, document
from pyetcd.proto.lite import Message

HEADER = Message("etcdserverpb.ResponseHeader", cluster_id=2**64 - 1, member_id=7, revision=56, raft_term=2)
KV = Message("mvccpb.KeyValue", key=b"foo", create_revision=2, mod_revision=56, version=9, value=b"1e3")
MEMBER = Message("etcdserverpb.Member", ID=7, name="1e3", peerURLs=["http://a:1"], clientURLs=["http://a:2"])
ANSWERS: list[Callable[[Printer], None]] = [
    lambda p: p.get(Message("etcdserverpb.RangeResponse", header=HEADER, kvs=[KV, KV], count=2)),
    lambda p: p.get(Message("etcdserverpb.RangeResponse")),
    lambda p: p.put(Message("etcdserverpb.PutResponse", header=HEADER, prev_kv=KV)),
    lambda p: p.delete(Message("etcdserverpb.DeleteRangeResponse", header=HEADER, deleted=1, prev_kvs=[KV])),
    lambda p: p.txn(
        Message(
            "etcdserverpb.TxnResponse",
            header=HEADER,
            succeeded=True,
            responses=[
                Message("etcdserverpb.ResponseOp", response_put=Message("etcdserverpb.PutResponse")),
            ],
        )
    ),
    lambda p: p.watch(WatchAnswer(HEADER, [Message("mvccpb.Event", type=1, kv=KV)])),
    lambda p: p.watch(WatchAnswer(None, [], canceled=True, reason="why")),
    lambda p: p.lease_grant(Message("etcdserverpb.LeaseGrantResponse", header=HEADER, ID=7, TTL=5)),
    lambda p: p.lease_time_to_live(
        Message("etcdserverpb.LeaseTimeToLiveResponse", header=HEADER, ID=7, TTL=5, keys=[b"\xff"]), True
    ),
    lambda p: p.leases(Message("etcdserverpb.LeaseLeasesResponse", header=HEADER)),
    lambda p: p.member_list(Message("etcdserverpb.MemberListResponse", header=HEADER, members=[MEMBER])),
    lambda p: p.member_change("add", 7, Message("etcdserverpb.MemberAddResponse", member=MEMBER)),
    lambda p: p.move_leader(1, 2, Message("etcdserverpb.MoveLeaderResponse")),
    lambda p: p.downgrade("cancel", Message("etcdserverpb.DowngradeResponse", version="3.7")),
    lambda p: p.auth_status(Message("etcdserverpb.AuthStatusResponse", enabled=True)),
    lambda p: p.user_get("ann", Message("etcdserverpb.AuthUserGetResponse", roles=["on", "y", "07"])),
    lambda p: p.role_list(Message("etcdserverpb.AuthRoleListResponse", roles=["null", "~"])),
    lambda p: p.alarms(Message("etcdserverpb.AlarmResponse", header=HEADER)),
    lambda p: p.endpoint_health([Health("127.0.0.1:1", False, "1s", "why: because")]),
    lambda p: p.endpoint_health([]),
    lambda p: p.endpoint_status([("a:1", Message("etcdserverpb.StatusResponse", version="3.7.1"))]),
    lambda p: p.endpoint_hash_kv([("a:1", Message("etcdserverpb.HashKVResponse", hash=5))]),
]


@pytest.mark.parametrize("hexadecimal", [False, True])
@pytest.mark.parametrize("show", ANSWERS)
def test_every_answer_is_the_one_of_json(
    capsysbinary: pytest.CaptureFixture[bytes], show: Callable[[Printer], None], hexadecimal: bool
) -> None:
    show(JsonPrinter("json", hexadecimal))
    as_json = json.loads(capsysbinary.readouterr().out)
    show(YamlPrinter("yaml", hexadecimal))
    as_yaml = yaml.safe_load(capsysbinary.readouterr().out)
    assert as_yaml == as_json
    assert json.dumps(as_yaml) == json.dumps(as_json), "in the same order"


def test_a_range_in_yaml(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    YamlPrinter("yaml", False).get(Message("etcdserverpb.RangeResponse", header=HEADER, kvs=[KV], count=1))
    assert capsysbinary.readouterr().out.decode() == (
        "header:\n  cluster_id: 18446744073709551615\n  member_id: 7\n  revision: 56\n  raft_term: 2\n"
        "kvs:\n- key: Zm9v\n  create_revision: 2\n  mod_revision: 56\n  version: 9\n  value: MWUz\n"
        "count: 1\n"
    )


def test_answers_that_follow_one_another_are_documents_of_one_stream(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    printer = YamlPrinter("yaml", False)
    for revision in (5, 6):
        printer.watch(WatchAnswer(Message("etcdserverpb.ResponseHeader", revision=revision), []))
    told = list(yaml.safe_load_all(capsysbinary.readouterr().out))
    assert [answer["Header"]["revision"] for answer in told] == [5, 6]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1e3", "'1e3'"),  # a number since YAML 1.2
        ("0o17", "'0o17'"),
        ("017", "'017'"),  # before
        ("1:30", "'1:30'"),
        ("y", "'y'"),
        ("NO", "'NO'"),
        ("127.0.0.1:2379", "'127.0.0.1:2379'"),
        ("=", "'='"),
        ("", "''"),
        ("word", "word"),
        ("Größe 😀", "Größe 😀"),
        ("a\u2028b", '"a\\Lb"'),
        ("a\x1b[31m", '"a\\e[31m"'),
        ("a\nb", "|-\n  a\n  b"),
        ("bad \udcff", "bad \ufffd"),
        ("x " * 500 + "x", "x " * 500 + "x"),
    ],
)
def test_text_stays_text_in_every_version_of_yaml(text: str, shown: str) -> None:
    assert document([text]) == f"- {shown}\n"


@pytest.mark.parametrize(("value", "shown"), [(None, "null\n"), (5, "5\n"), ("a", "a\n"), ([], "[]\n")])
def test_a_lone_value_is_a_document_too(value: int | str | list[int] | None, shown: str) -> None:
    assert document(value) == shown


def test_numbers_are_written_as_they_came() -> None:
    shown = document({"plain": Number("1.50"), "large": Number("1e400")})
    assert shown == "plain: 1.50\nlarge: !!float '1e400'\n"
    assert dumps([Number("1.50"), Number("1e400")]) == "[1.50,1e400]"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text() | st.text(string.printable),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_whatever_is_written_is_read_again(value: object) -> None:
    written = document(value)  # type: ignore[arg-type]
    assert yaml.safe_load(written) == value
    assert document(value) == written  # type: ignore[arg-type]


def test_etcdctl_writes_yaml(ctl: Etcdctl) -> None:
    ctl("put", "a", "b")
    found = yaml.safe_load(ctl("get", "a", "-w", "yaml").out)
    assert found["kvs"][0]["value"] == "Yg=="
    assert found == json.loads(ctl("get", "a", "-w", "json").out)
    listed = yaml.safe_load(ctl("member", "list", "-w", "yaml", "--hex").out)
    assert listed["members"][0]["name"] == "m"
