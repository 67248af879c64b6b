"""`get`, `put`, `del`, `txn` and `compaction` against real etcd."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from ctl_runner import Etcdctl, RealEtcd


def fill(ctl: Etcdctl) -> None:
    for key, value in (("a1", "x"), ("a2", "w"), ("a3", "v"), ("b", "u")):
        assert ctl("put", key, value).out == b"OK\n"
    assert ctl("put", "a2", "z").code == 0


def test_what_is_put_is_got(ctl: Etcdctl) -> None:
    assert ctl("put", "foo", "bar").out == b"OK\n"
    assert ctl("get", "foo").out == b"foo\nbar\n"
    assert ctl("put", "foo", "baz", "--prev-kv").out == b"OK\nfoo\nbar\n"
    assert ctl("get", "nothing").out == b""


def test_a_value_may_come_from_stdin_and_hold_any_bytes(ctl: Etcdctl) -> None:
    value = bytes(range(256))
    assert ctl("put", "foo", stdin=value).code == 0
    assert ctl("get", "foo", "--print-value-only").out == value + b"\n"
    assert ctl("get", "foo", "--hex").out.startswith(b"\\x66\\x6f\\x6f\n\\x00\\x01\\x02")


def test_an_argument_may_hold_bytes_that_are_no_text(ctl: Etcdctl) -> None:
    key = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert ctl("put", key, "v").code == 0
    assert ctl("get", key).out == b"\xff\xfe\nv\n"


def test_a_value_that_looks_like_a_flag_stands_behind_two_dashes(ctl: Etcdctl) -> None:
    assert ctl("put", "foo", "--", "--bar").code == 0
    assert ctl("get", "foo", "--print-value-only").out == b"--bar\n"


@pytest.mark.parametrize(
    ("flags", "keys"),
    [
        (["a", "--prefix"], ["a1", "a2", "a3"]),
        (["a2", "--from-key"], ["a2", "a3", "b"]),
        (["a1", "a3"], ["a1", "a2"]),
        (["", "--prefix", "--limit=2"], ["a1", "a2"]),
        (["", "--from-key", "--order=DESCEND"], ["b", "a3", "a2", "a1"]),
        (["a", "--prefix", "--sort-by=value"], ["a3", "a1", "a2"]),
        (["a", "--prefix", "--sort-by=VERSION", "--order=descend", "--limit=1"], ["a2"]),
        (["a", "--prefix", "--sort-by=MODIFY"], ["a1", "a3", "a2"]),
        (["a", "--prefix", "--sort-by=CREATE"], ["a1", "a2", "a3"]),
        (["a", "--prefix", "--consistency=s"], ["a1", "a2", "a3"]),
    ],
)
def test_a_range_is_chosen_and_sorted_by_flags(ctl: Etcdctl, flags: list[str], keys: list[str]) -> None:
    fill(ctl)
    shown = ctl("get", *flags, "--keys-only").text
    assert shown == "".join(f"{key}\n\n" for key in keys)


def test_the_past_and_bounds_of_revisions_are_honoured(ctl: Etcdctl) -> None:
    fill(ctl)
    now = json.loads(ctl("get", "a2", "-w", "json").out)
    changed = now["kvs"][0]["mod_revision"]
    assert ctl("get", "a2", f"--rev={changed - 1}", "--print-value-only").out == b"w\n"
    recent = ctl("get", "", "--prefix", f"--min-mod-rev={changed}")
    assert recent.out == b"a2\nz\n"
    assert ctl("get", "", "--prefix", f"--max-create-rev={changed - 4}").out == b"a1\nx\n"


def test_a_delete_says_how_many_and_which(ctl: Etcdctl) -> None:
    fill(ctl)
    assert ctl("del", "a1", "--prev-kv").out == b"1\na1\nx\n"
    assert ctl("del", "a", "b", "--range").out == b"2\n"
    assert ctl("del", "b", "--from-key").out == b"1\n"


@pytest.mark.parametrize("output", ["simple", "json", "protobuf"])
def test_the_output_of_get_is_that_of_the_real_etcdctl(
    ctl: Etcdctl, real_ctl: Callable[..., bytes], output: str
) -> None:
    fill(ctl)
    ctl("put", "odd", '<"é">\n')
    arguments = ("get", "", "--prefix", "--write-out", output)
    assert ctl(*arguments).out == real_ctl(*arguments)


def test_fields_show_every_field(ctl: Etcdctl) -> None:
    ctl("put", "a", 'q"\x01')
    ctl("put", "a", "b")
    got = json.loads(ctl("get", "a", "-w", "json").out)
    header, kv = got["header"], got["kvs"][0]
    assert ctl("get", "a", "-w", "fields").text == (
        f'"ClusterID" : {header["cluster_id"]}\n"MemberID" : {header["member_id"]}\n'
        f'"Revision" : {header["revision"]}\n"RaftTerm" : {header["raft_term"]}\n'
        f'"Key" : "a"\n"CreateRevision" : {kv["create_revision"]}\n"ModRevision" : {kv["mod_revision"]}\n'
        '"Version" : 2\n"Value" : "b"\n"Lease" : 0\n"More" : false\n"Count" : 1\n'
    )
    assert '"Value" : "q\\"\\x01"\n' in ctl("get", "a", f"--rev={kv['create_revision']}", "-w", "fields").text


def test_a_transaction_takes_the_branch_its_conditions_choose(ctl: Etcdctl) -> None:
    ctl("put", "key1", "v")
    conditions = b'mod("key1") > "0"\nvalue("key1") = "v"\n\n'
    lines = conditions + b'put key1 "over \\x41"\nget key1\ndel nokey\n\nput key2 no\n\n'
    assert ctl("txn", stdin=lines).out == b"SUCCESS\n\nOK\n\nkey1\nover A\n\n0\n"
    assert ctl("txn", stdin=lines).out == b"FAILURE\n\nOK\n"


def test_an_interactive_transaction_asks_for_each_part(ctl: Etcdctl) -> None:
    ran = ctl("txn", "--interactive", stdin=b'ver("k") = "0"\n\nput k "v"\n\n\n')
    assert ran.text == (
        "compares:\nsuccess requests (get, put, del):\nfailure requests (get, put, del):\nSUCCESS\n\nOK\n"
    )


def test_a_transaction_in_json_nests_its_responses(ctl: Etcdctl) -> None:
    ran = ctl("txn", "-w", "json", stdin=b"\nput k v\nget k\n\n\n")
    answer = json.loads(ran.out)
    assert answer["succeeded"] is True
    put, got = (response["Response"] for response in answer["responses"])
    assert list(put) == ["response_put"]
    assert got["response_range"]["kvs"][0]["value"] == "dg=="


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (b"", "EOF"),
        (b"bad\n", "malformed comparison: bad"),
        (b'value("a")="b"\n', 'malformed comparison: value("a")="b"; got value("a")  ""'),
        (b'foo("a") = "b"\n', 'malformed comparison: foo("a") = "b" (unknown target foo)'),
        (b'mod("a") = "b"\n', 'invalid txn compare request: mod("a") = "b"'),
        (b"\nput\n", "invalid txn compare request: put"),
        (b"\nnonsense a\n", "invalid txn request: nonsense a"),
    ],
)
def test_a_bad_line_of_a_transaction_ends_it_with_code_3(ctl: Etcdctl, lines: bytes, error: str) -> None:
    ran = ctl("txn", stdin=lines)
    assert (ran.code, ran.out, ran.err.decode()) == (3, b"", f"Error: {error}\n")


def test_errors_of_the_server_are_told_in_its_words(ctl: Etcdctl) -> None:
    ran = ctl("put", "", "v")
    assert (ran.code, ran.err) == (1, b"Error: etcdserver: key is not provided\n")
    ran = ctl("get", "a", "--rev=999999")
    assert ran.err == b"Error: etcdserver: mvcc: required revision is a future revision\n"
    ran = ctl("txn", stdin=b"\nput a b\nput a c\n\n\n")
    assert ran.err == b"Error: etcdserver: duplicate key given in txn request\n"


def test_compaction_forgets_and_says_so(ctl: Etcdctl) -> None:
    fill(ctl)
    revision = json.loads(ctl("get", "a2", "-w", "json").out)["header"]["revision"]
    assert ctl("compaction", str(revision), "--physical").text == f"compacted revision {revision}\n"
    ran = ctl("get", "a2", f"--rev={revision - 1}")
    assert ran.err == b"Error: etcdserver: mvcc: required revision has been compacted\n"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["get"], 128, "get command needs one argument as key and an optional argument as range_end"),
        (
            ["get", "a", "--prefix", "--from-key"],
            128,
            "`--prefix` and `--from-key` cannot be set at the same time, choose one",
        ),
        (["get", "a", "--count-only"], 128, "--count-only is only for `--write-out=fields`"),
        (
            ["get", "a", "--print-value-only", "-wjson"],
            128,
            "print-value-only is only for `--write-out=simple`",
        ),
        (["get", "a", "--order=up"], 4, "bad sort order up"),
        (["get", "a", "--sort-by=size"], 4, "bad sort target size"),
        (["get", "a", "--consistency=x"], 4, 'unknown consistency flag "x"'),
        (["get", "a", "-w", "table"], 4, "table not supported as output format"),
        (["get", "a", "-w", "xml"], 4, "unsupported output format"),
        (["put"], 128, "put command needs 1 argument and input from stdin or 2 arguments"),
        (
            ["put", "a", "--lease=x", "b"],
            128,
            'bad lease ID (strconv.ParseInt: parsing "x": invalid syntax), expecting ID in Hex',
        ),
        (["del"], 128, "del command needs one argument as key and an optional argument as range_end"),
        (["compaction", "x"], 1, 'strconv.ParseInt: parsing "x": invalid syntax'),
    ],
)
def test_mistakes_have_etcdctls_words_and_exit_codes(
    ctl: Etcdctl, arguments: list[str], code: int, error: str
) -> None:
    ran = ctl(*arguments)
    assert (ran.code, ran.err.decode()) == (code, f"Error: {error}\n")


def test_a_unix_socket_is_an_endpoint_too(ctl: Etcdctl, real_etcd: RealEtcd) -> None:
    ctl("put", "a", "b")
    for endpoint in (f"unix:{real_etcd.socket}", f"unix://{real_etcd.socket}"):
        assert Etcdctl(endpoint)("get", "a").out == b"a\nb\n"
