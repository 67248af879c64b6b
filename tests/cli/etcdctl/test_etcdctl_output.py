"""Answers in every format. The expected texts are what etcdctl 3.7.1 printed for these answers."""

from __future__ import annotations

import pytest

from pyetcd.cli.etcdctl.output import Health, Printer, WatchAnswer
from pyetcd.cli.etcdctl.output_fields import FieldsPrinter
from pyetcd.cli.etcdctl.output_json import JsonPrinter
from pyetcd.cli.etcdctl.output_protobuf import ProtobufPrinter
from pyetcd.cli.etcdctl.output_simple import SimplePrinter
from pyetcd.cli.etcdctl.output_table import TablePrinter
from pyetcd.cli.exits import Exit
from pyetcd.cli.table import table
from pyetcd.proto.lite import Message, decode

HEADER = Message(
    "etcdserverpb.ResponseHeader",
    cluster_id=11037928869092754041,
    member_id=16637631021480683366,
    revision=56,
    raft_term=2,
)
FOO = Message("mvccpb.KeyValue", key=b"foo", create_revision=2, mod_revision=56, version=9, value=b"new")
RANGE = Message("etcdserverpb.RangeResponse", header=HEADER, kvs=[FOO], count=1)
MEMBER = Message(
    "etcdserverpb.Member",
    ID=16637631021480683366,
    name="m",
    peerURLs=["http://127.0.0.1:44380"],
    clientURLs=["http://127.0.0.1:44379"],
)
MEMBERS = Message("etcdserverpb.MemberListResponse", header=HEADER, members=[MEMBER])
STATUS = Message(
    "etcdserverpb.StatusResponse",
    header=HEADER,
    version="3.7.1",
    dbSize=20480,
    leader=16637631021480683366,
    raftIndex=17,
    raftTerm=2,
    raftAppliedIndex=17,
    dbSizeInUse=16384,
    storageVersion="3.7.0",
    dbSizeQuota=2147483648,
    downgradeInfo=Message("etcdserverpb.DowngradeInfo"),
)
IDS = '"cluster_id":11037928869092754041,"member_id":16637631021480683366'
FIELDS_HEADER = (
    '"ClusterID" : 11037928869092754041\n"MemberID" : 16637631021480683366\n"Revision" : 56\n"RaftTerm" : 2\n'
)


class Capture:
    """What was printed since the last look."""

    def __init__(self, captured: pytest.CaptureFixture[bytes]) -> None:
        self._captured = captured

    def data(self) -> bytes:
        return self._captured.readouterr().out

    def text(self) -> str:
        return self.data().decode()


@pytest.fixture
def out(capsysbinary: pytest.CaptureFixture[bytes]) -> Capture:
    return Capture(capsysbinary)


def test_a_range_in_json(out: Capture) -> None:
    JsonPrinter("json", False).get(RANGE)
    assert out.text() == (
        f'{{"header":{{{IDS},"revision":56,"raft_term":2}},"kvs":[{{"key":"Zm9v","create_revision":2,'
        '"mod_revision":56,"version":9,"value":"bmV3"}],"count":1}\n'
    )


def test_a_range_in_fields(out: Capture) -> None:
    FieldsPrinter("fields", False).get(RANGE)
    assert out.text() == (
        f'{FIELDS_HEADER}"Key" : "foo"\n"CreateRevision" : 2\n"ModRevision" : 56\n"Version" : 9\n'
        '"Value" : "new"\n"Lease" : 0\n"More" : false\n"Count" : 1\n'
    )


def test_hexadecimal_fields_show_ids_so(out: Capture) -> None:
    FieldsPrinter("fields", True).lease_grant(
        Message("etcdserverpb.LeaseGrantResponse", header=HEADER, ID=119, TTL=10)
    )
    assert out.text() == (
        '"ClusterID" : 992e99d3324d8279\n"MemberID" : e6e4bd439b602766\n"Revision" : 56\n"RaftTerm" : 2\n'
        '"ID" : 0000000000000077\n"TTL" : 10\n'
    )


def test_a_range_in_protobuf_is_the_answer_itself(out: Capture) -> None:
    ProtobufPrinter("protobuf", False).get(RANGE)
    assert decode("etcdserverpb.RangeResponse", out.data()) == RANGE


def test_a_lease_in_protobuf_is_its_header_only_as_in_etcdctl(out: Capture) -> None:
    ProtobufPrinter("protobuf", False).lease_grant(
        Message("etcdserverpb.LeaseGrantResponse", header=HEADER, ID=1, TTL=10)
    )
    assert out.data() == HEADER.encode()


def test_members_in_hexadecimal_json(out: Capture) -> None:
    JsonPrinter("json", True).member_list(MEMBERS)
    assert out.text() == (
        '{"header":{"cluster_id":"992e99d3324d8279","member_id":"e6e4bd439b602766","revision":56,'
        '"raft_term":2},'
        '"members":[{"ID":"e6e4bd439b602766","name":"m","peerURLs":["http://127.0.0.1:44380"],'
        '"clientURLs":["http://127.0.0.1:44379"]}]}\n'
    )


def test_the_status_in_one_line(out: Capture) -> None:
    SimplePrinter("simple", False).endpoint_status([("127.0.0.1:44379", STATUS)])
    assert out.text() == (
        "127.0.0.1:44379, e6e4bd439b602766, 3.7.1, 3.7.0, 20 kB, 16 kB, 20%, 2.1 GB, true, false, 2, 17, 17,"
        " , , false\n"
    )


def test_the_status_in_json(out: Capture) -> None:
    JsonPrinter("json", False).endpoint_status([("127.0.0.1:44379", STATUS)])
    assert out.text() == (
        f'[{{"Endpoint":"127.0.0.1:44379","Status":{{"header":{{{IDS},"revision":56,"raft_term":2}},'
        '"version":"3.7.1","dbSize":20480,"leader":16637631021480683366,"raftIndex":17,"raftTerm":2,'
        '"raftAppliedIndex":17,"dbSizeInUse":16384,"storageVersion":"3.7.0","dbSizeQuota":2147483648,'
        '"downgradeInfo":{}}}]\n'
    )


def test_the_status_in_fields(out: Capture) -> None:
    FieldsPrinter("fields", False).endpoint_status([("127.0.0.1:44379", STATUS)])
    assert out.text() == (
        f'{FIELDS_HEADER}"Version" : "3.7.1"\n"StorageVersion" : "3.7.0"\n"DBSize" : 20480\n'
        '"DBSizeInUse" : 16384\n"DBSizeQuota" : 2147483648\n"Leader" : 16637631021480683366\n'
        '"IsLearner" : false\n"RaftIndex" : 17\n"RaftTerm" : 2\n"RaftAppliedIndex" : 17\n"Errors" : []\n'
        '"Endpoint" : "127.0.0.1:44379"\n"DowngradeTargetVersion" : ""\n"DowngradeEnabled" : false\n\n'
    )


def test_a_table_is_drawn_in_boxes(out: Capture) -> None:
    TablePrinter("table", False).member_list(MEMBERS)
    assert out.text() == (
        "┌──────────────────┬─────────┬──────┬────────────────────────┬────────────────────────┬────────────┐\n"
        "│        ID        │ STATUS  │ NAME │       PEER ADDRS       │      CLIENT ADDRS      │ IS LEARNER │\n"  # noqa: E501
        "├──────────────────┼─────────┼──────┼────────────────────────┼────────────────────────┼────────────┤\n"
        "│ e6e4bd439b602766 │ started │    m │ http://127.0.0.1:44380 │ http://127.0.0.1:44379 │      false │\n"  # noqa: E501
        "└──────────────────┴─────────┴──────┴────────────────────────┴────────────────────────┴────────────┘\n"
    )


def test_a_watch_in_json_keeps_its_zeros(out: Capture) -> None:
    event = Message("mvccpb.Event", type=1, kv=Message("mvccpb.KeyValue", key=b"a", mod_revision=3))
    JsonPrinter("json", False).watch(WatchAnswer(HEADER, [event]))
    JsonPrinter("json", False).watch(
        WatchAnswer(Message("etcdserverpb.ResponseHeader"), [], canceled=True, reason="why")
    )
    told, canceled = out.text().splitlines()
    assert told == (
        f'{{"Header":{{{IDS},"revision":56,"raft_term":2}},"Events":[{{"type":1,"kv":{{"key":"YQ==",'
        '"mod_revision":3}}],"CompactRevision":0,"Canceled":false,"Created":false,"CancelReason":""}'
    )
    assert canceled == (
        '{"Header":{},"Events":null,"CompactRevision":0,"Canceled":true,"Created":false,"CancelReason":"why"}'
    )


def test_json_escapes_what_go_escapes(out: Capture) -> None:
    name = '<a&"b">\n\x00\u2028é'
    member = Message("etcdserverpb.Member", ID=1, name=name)
    JsonPrinter("json", False).member_list(Message("etcdserverpb.MemberListResponse", members=[member]))
    assert '"name":"\\u003ca\\u0026\\"b\\"\\u003e\\n\\u0000\\u2028é"' in out.text()


def test_added_members_are_announced(out: Capture) -> None:
    learner = Message("etcdserverpb.Member", ID=255, isLearner=True)
    answer = Message("etcdserverpb.MemberAddResponse", header=HEADER, member=learner)
    SimplePrinter("simple", False).member_change("add", 255, answer)
    assert out.text() == "Member               ff added as learner to cluster 992e99d3324d8279\n"


@pytest.mark.parametrize(
    ("what", "said"), [("remove", "removed from"), ("update", "updated in"), ("promote", "promoted in")]
)
def test_changed_members_are_told(out: Capture, what: str, said: str) -> None:
    answer = Message("etcdserverpb.MemberRemoveResponse", header=HEADER, members=[MEMBER])
    SimplePrinter("simple", False).member_change(what, 255, answer)
    assert out.text() == f"Member               ff {said} cluster 992e99d3324d8279\n"


def test_an_added_member_in_json(out: Capture) -> None:
    new = Message("etcdserverpb.Member", ID=255, peerURLs=["http://b:1"], isLearner=True)
    answer = Message("etcdserverpb.MemberAddResponse", header=HEADER, member=new, members=[new, MEMBER])
    JsonPrinter("json", True).member_change("add", 255, answer)
    JsonPrinter("json", True).member_list(Message("etcdserverpb.MemberListResponse"))
    added, nothing = out.text().splitlines()
    shown = '{"ID":"ff","peerURLs":["http://b:1"],"isLearner":true}'
    assert added == (
        '{"header":{"cluster_id":"992e99d3324d8279","member_id":"e6e4bd439b602766","revision":56,'
        f'"raft_term":2}},"member":{shown},"members":[{shown},'
        '{"ID":"e6e4bd439b602766","name":"m","peerURLs":["http://127.0.0.1:44380"],'
        '"clientURLs":["http://127.0.0.1:44379"]}]}'
    )
    assert nothing == '{"header":null,"members":[]}'


def test_a_moved_leadership_in_every_format_that_shows_it(out: Capture) -> None:
    answer = Message("etcdserverpb.MoveLeaderResponse")  # etcd gives it no header
    SimplePrinter("simple", True).move_leader(10, 2**64 - 1, answer)
    JsonPrinter("json", True).move_leader(10, 2**64 - 1, answer)
    ProtobufPrinter("protobuf", False).move_leader(10, 2**64 - 1, answer)
    assert out.text() == "Leadership transferred from a to ffffffffffffffff\n{}\n"
    for printer in (TablePrinter("table", False), FieldsPrinter("fields", False)):
        with pytest.raises(Exit) as caught:
            printer.move_leader(10, 11, answer)
        assert (caught.value.code, caught.value.message) == (
            4,
            f"{printer.name} not supported as output format",
        )


def test_alarms_are_named(out: Capture) -> None:
    alarms = [Message("etcdserverpb.AlarmMember", memberID=5662688015068518467, alarm=1)]
    SimplePrinter("simple", False).alarms(Message("etcdserverpb.AlarmResponse", alarms=alarms))
    assert out.text() == "memberID:5662688015068518467 alarm:NOSPACE\n"


@pytest.mark.parametrize("printer", [TablePrinter("table", False), Printer("any", False)])
def test_what_a_format_cannot_show_ends_with_code_4(printer: Printer) -> None:
    for show in (printer.get, printer.put, printer.delete, printer.txn, printer.alarms, printer.leases):
        with pytest.raises(Exit) as caught:
            show(RANGE)
        assert (caught.value.code, caught.value.message) == (
            4,
            f"{printer.name} not supported as output format",
        )


def test_health_in_every_format_that_shows_it(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    healths = [Health("a:1", True, "1.5ms", ""), Health("b:1", False, "2s", "why")]
    SimplePrinter("simple", False).endpoint_health(healths)
    JsonPrinter("json", False).endpoint_health(healths)
    FieldsPrinter("fields", False).endpoint_health(healths)
    printed = capsysbinary.readouterr()
    assert printed.out.decode() == (
        "a:1 is healthy: successfully committed proposal: took = 1.5ms\n"
        '[{"endpoint":"a:1","health":true,"took":"1.5ms"},'
        '{"endpoint":"b:1","health":false,"took":"2s","error":"why"}]\n'
        '"Endpoint" : "a:1"\n"Health" : true\n"Took" : 1.5ms\n"Error" : \n\n'
        '"Endpoint" : "b:1"\n"Health" : false\n"Took" : 2s\n"Error" : why\n\n'
    )
    assert printed.err == b"b:1 is unhealthy: failed to commit proposal: why\n"


def test_a_cell_may_be_wide_have_lines_or_take_no_room() -> None:
    """Expected: what etcdctl 3.7.1 drew for members of these names."""
    assert table(["a", "b_c"], [["日本語", "x"], ["\ta\r\nbb ", ""], ["e\u0301\u200b\x1b[31m", "🇩🇪"]]) == (
        "┌────────┬──────┐\n"
        "│   A    │ B C  │\n"
        "├────────┼──────┤\n"
        "│ 日本語 │    x │\n"
        "│      a\r │      │\n"
        "│     bb │      │\n"
        "│      e\u0301\u200b\x1b[31m │ 🇩🇪 │\n"
        "└────────┴──────┘\n"
    )
    assert table(["a"], []) == "┌───┐\n│ A │\n└───┘\n"
