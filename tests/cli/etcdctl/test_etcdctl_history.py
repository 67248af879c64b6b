"""`get --history`: the revisions of a key, against real etcd and pyetcd, and what two values differ in."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator

import pytest
import yaml
from ctl_runner import Etcdctl, Ran
from scripted import scripted
from servers import BENCH, Etcd, GoEtcd, Server, build_go

from pyetcd.cli.etcdctl import history, main
from pyetcd.cli.etcdctl.differences import COMPARED_LINES_MAX, change, forms, plain
from pyetcd.proto.rpc_pb2 import RangeResponse, ResponseHeader

PLAIN = forms("")
pytestmark = pytest.mark.timeout(900)  # for who builds Go's etcd first


@pytest.fixture(scope="module", params=["go", "ours"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcdctl]:
    """Our etcdctl against either. Go's is 3.7.1: before 3.5.8, a watch may be called up to date too soon."""
    directory = tmp_path_factory.mktemp("member")
    if request.param == "go":
        executable = build_go(BENCH, "./cmd/goetcd", tmp_path_factory.mktemp("goetcd") / "goetcd")
        member: Server = GoEtcd(executable, directory)
    else:
        member = Etcd(directory)
    yield Etcdctl(f"127.0.0.1:{member.port}")
    member.close()


def revision_after(ran: Ran) -> int:
    assert ran.code == 0, ran.err
    return int(json.loads(ran.out)["header"]["revision"])


class Key:
    """A key that this test alone changes; each change returns its revision."""

    def __init__(self, server: Etcdctl, name: str) -> None:
        self.server = server
        self.name = name

    def put(self, value: bytes, *flags: str) -> int:
        return revision_after(self.server("put", self.name, "-w", "json", *flags, stdin=value))

    def delete(self) -> int:
        return revision_after(self.server("del", self.name, "-w", "json"))

    def history(self, *flags: str) -> Ran:
        return self.server("get", self.name, "--history", *flags)

    def records(self) -> list[dict[str, object]]:
        ran = self.history("-w", "json")
        assert (ran.code, ran.err) == (0, b"")
        return [json.loads(line) for line in ran.out.splitlines()]

    def compact(self, revision: int) -> None:
        assert self.server("compaction", str(revision)).code == 0


@pytest.fixture
def key(server: Etcdctl, request: pytest.FixtureRequest) -> Iterator[Key]:
    found = Key(server, f"history/{request.node.name}")
    yield found
    found.delete()


def test_a_keys_lives_are_shown_newest_first_as_differences(key: Key) -> None:
    created = key.put(b'{"replicas":1,"image":"a"}')
    changed = key.put(b'{"replicas":3,"image":"a"}')
    deleted = key.delete()
    again = key.put(b"one\ntwo")
    lease = key.server("lease", "grant", "600").text.split()[1]
    leased = key.put(b"one\ntwo", f"--lease={lease}")
    freed = key.put(b"one\nthree")
    ran = key.history()
    assert (ran.code, ran.err) == (0, b"")
    text, _, end = ran.text.rpartition("\n\n")
    assert text == (
        f"revision {freed}, put, version 3, without its lease\n one\n-two\n+three\n\n"
        f"revision {leased}, put, version 2, same value, lease {lease}\n\n"
        f"revision {again}, created, version 1\n+one\n+two\n\n"
        f"revision {deleted}, deleted\n"
        '-{\n-  "replicas": 3,\n-  "image": "a"\n-}\n\n'
        f"revision {changed}, put, version 2\n"
        ' {\n-  "replicas": 1,\n+  "replicas": 3,\n   "image": "a"\n }\n\n'
        f"revision {created}, created, version 1\n"
        '+{\n+  "replicas": 1,\n+  "image": "a"\n+}'
    )
    assert end in ("", f"compacted before revision {end.rpartition(' ')[2].strip()}\n")


def test_a_key_that_is_deleted_has_a_history_too(key: Key) -> None:
    created = key.put(b"a")
    deleted = key.delete()
    records = [record for record in key.records() if "revision" in record]
    assert records[0] == {"revision": deleted, "change": "delete"}
    assert [(record["revision"], record["change"]) for record in records] == [
        (deleted, "delete"),
        (created, "create"),
    ]


def test_a_key_that_never_was_has_none(key: Key) -> None:
    assert [record for record in key.records() if "revision" in record] == []


@pytest.mark.parametrize("seed", range(3))
def test_the_history_is_what_happened_as_far_as_it_is_kept(key: Key, seed: int) -> None:
    chance = random.Random(seed)
    happened: list[tuple[int, str, int]] = []  # revision, what, version
    version = 0
    for at in range(30):
        if version and chance.random() < 0.3:
            happened.append((key.delete(), "delete", 0))
            version = 0
        else:
            version += 1
            happened.append((key.put(b"%d" % at), "create" if version == 1 else "put", version))
        if chance.random() < 0.3:
            key.server("put", "history-of-others", str(at))
    kept = len(happened)
    for count in (0, 7, 8, 9, 20, 29):
        if count:
            key.compact(happened[count][0])
            kept = len(happened) - count
        records = key.records()
        compacted = [record["compact_revision"] for record in records if "compact_revision" in record]
        if count:
            assert compacted == [happened[count][0]]
        shown = [
            (record["revision"], record["change"], record.get("kv", {}).get("version", 0))  # type: ignore[attr-defined]
            for record in records
            if "revision" in record
        ]
        expected = happened[::-1][:kept]
        if expected[-1][1] == "delete" and shown != expected:
            expected.pop()  # servers may keep a deletion that all is compacted up to, or not
        assert shown == expected, count


@pytest.mark.parametrize("most", [1, 2, 3])
def test_lives_without_number_are_found_a_few_at_a_time(
    key: Key, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes], most: int
) -> None:
    monkeypatch.setattr(history, "DELETIONS_MAX", most)
    happened = [change for at in range(6) for change in (key.put(b"%d" % at), key.delete())]
    main(["etcdctl", "--endpoints", key.server.endpoint, "get", key.name, "--history", "-w", "json"])
    records = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [record["revision"] for record in records if "revision" in record] == happened[::-1]


def test_of_a_value_that_is_all_that_is_kept_nothing_is_said_to_have_changed(key: Key) -> None:
    key.put(b"one")
    revision = key.put(b"two\nlines")
    key.compact(key.put(b"three"))
    key.compact(last := key.put(b"four"))
    assert key.history().text == (
        f"revision {last}, put, version 4\n four\n\ncompacted before revision {last}\n"
    )
    assert revision < last


def test_a_history_in_yaml_is_a_stream_of_the_same_records(key: Key) -> None:
    key.put(b"a")
    key.put(b"b")
    assert list(yaml.safe_load_all(key.history("-w", "yaml").out)) == key.records()


def test_objects_of_kubernetes_differ_in_their_fields(key: Key) -> None:
    def config_map(value: bytes) -> bytes:
        data = b"\x0a\x01a\x12" + bytes([len(value)]) + value
        fields = b"\x12" + bytes([len(data)]) + data
        return b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12" + bytes([len(fields)]) + fields

    key.put(config_map(b"1"))
    last = key.put(config_map(b"2"))
    first = key.history("--decode=k8s").text.partition("\n\n")[0]
    assert first == (
        f"revision {last}, put, version 2\n apiVersion: v1\n kind: ConfigMap\n data:\n-  a: '1'\n+  a: '2'"
    )
    record = json.loads(key.history("--decode=k8s", "-w", "json").out.splitlines()[0])
    assert record["kv"]["value"] == {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "2"}}


def test_a_server_that_falls_silent_is_not_waited_for_forever() -> None:
    answer = RangeResponse(header=ResponseHeader(revision=5))
    with scripted({"Range": answer}) as server:
        began = time.monotonic()
        ran = Etcdctl(server.endpoint)("get", "a", "--history", "--command-timeout=1s")
        assert ran.code == 1
        assert ran.err.startswith(b"Error: ")
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["a", "b"], "`--history` is for one key"),
        (["a", "--prefix"], "`--history` and `--prefix` cannot be set at the same time, choose one"),
        (["a", "--limit=1"], "`--history` and `--limit` cannot be set at the same time, choose one"),
        (["a", "--rev=1"], "`--history` and `--rev` cannot be set at the same time, choose one"),
    ],
)
def test_what_does_not_go_with_a_history_is_told(ctl: Etcdctl, arguments: list[str], error: str) -> None:
    ran = ctl("get", "--history", *arguments)
    assert (ran.code, ran.err.decode()) == (128, f"Error: {error}\n")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["-w", "fields"], "--history is only for `--write-out=simple`, json and yaml"),
        (["-w", "table"], "--history is only for `--write-out=simple`, json and yaml"),
        (["--decode=xml"], 'unknown decoding "xml", there is k8s'),
    ],
)
def test_formats_that_have_no_history_are_told(ctl: Etcdctl, arguments: list[str], error: str) -> None:
    ran = ctl("get", "a", "--history", *arguments)
    assert (ran.code, ran.err.decode()) == (4, f"Error: {error}\n")


def test_lines_far_apart_are_shown_with_what_is_around_them() -> None:
    old = [f"line {at}" for at in range(100)]
    new = [*old[:20], "new", *old[21:80], *old[82:]]
    shown = list(change("\n".join(old).encode(), "\n".join(new).encode(), PLAIN))
    assert shown == [
        "@@ line 18 @@",
        *(f" line {at}" for at in (17, 18, 19)),
        "-line 20",
        "+new",
        *(f" line {at}" for at in (21, 22, 23)),
        "@@ line 78 @@",
        *(f" line {at}" for at in (77, 78, 79)),
        "-line 80",
        "-line 81",
        *(f" line {at}" for at in (82, 83, 84)),
    ]


def test_a_change_of_the_form_of_json_alone_is_seen() -> None:
    assert list(change(b'{"a":1}', b'{"a": 1}', PLAIN)) == ['-{"a":1}', '+{"a": 1}']
    assert list(change(b"[1.0]", b"[1.00]", PLAIN)) == ["-[1.0]", "+[1.00]"]
    assert list(change(b'{"a":1}', b"text", PLAIN)) == ['-{"a":1}', "+text"]


def test_a_newline_at_the_end_is_seen() -> None:
    assert list(change(b"a", b"a\n", PLAIN)) == [" a", "+"]


def test_nothing_can_be_told_to_a_terminal() -> None:
    escapes = "a\x1b[2J\r\x9b31m\u202eb\tc"
    assert list(plain(escapes.encode(), PLAIN)) == [
        " 00000000  61 1b 5b 32 4a 0d c2 9b 33 31 6d e2 80 ae 62 09  a.[2J...31m...b.",
        " 00000010  63                                               c",
    ]
    assert list(plain("a\r\x9b31m\u202eb\tc".encode(), PLAIN)) == [" a\\r\\u009b31m\\u202eb\tc"]
    assert list(plain(b'["\xe2\x80\xae\\ud800"]', PLAIN)) == [" [", '   "\\u202e\\ud800"', " ]"]


def test_bytes_are_dumped_and_not_without_end() -> None:
    old, new = os.urandom(100_000), os.urandom(100_000)
    shown = list(change(b"\0" + old, b"\0" + new, PLAIN))
    assert len(shown) == 65
    assert shown[-1].startswith("… ")
    assert shown[-1].endswith(" more lines")
    assert len(list(plain(b"\0" * 1600, PLAIN))) == 65


def test_many_lines_are_compared_in_little_time() -> None:
    """Alike from the ends on, and in between too many to look for the least difference."""
    chance = random.Random(5)
    middles = ["\n".join(chance.choice("abc") for _ in range(200_000)) for _ in range(2)]
    old, new = (f"same\n{middle}\nend".encode() for middle in middles)
    began = time.monotonic()
    count = sum(1 for _ in change(old, new, PLAIN))
    assert count > 2 * COMPARED_LINES_MAX
    assert time.monotonic() - began < 20


def test_every_two_values_differ_in_some_form() -> None:
    chance = random.Random(7)
    for _ in range(500):
        old, new = (bytes(chance.choices(b'{"a":1}\n\0\xff', k=chance.randrange(8))) for _ in range(2))
        assert bool(list(change(old, new, PLAIN))) == (old != new)
    assert list(change(None, b"", PLAIN)) == ["+"]
    assert list(change(b"", None, PLAIN)) == ["-"]
