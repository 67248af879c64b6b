"""How a member without a log finds the cluster it belongs to, and what keeps it from beginning."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from bare_members import bare, settle
from fake_peers import Answer, Request, Wire, silent
from whole_member import InPlace, UnsyncedFiles, configured

from pyetcd.cluster import dns
from pyetcd.cluster.bootstrap import BadCluster, Beginning, new_cluster
from pyetcd.cluster.members import Member, new_member, to_json
from pyetcd.cluster.urls import Url, parse_urls
from pyetcd.member import initial as initial_module
from pyetcd.member.config import DiscoveryConfig, ServerConfig, TlsConfig
from pyetcd.member.joining import find_cluster, find_initial
from pyetcd.peer.wire import Unreachable

NAMES = ("a", "b", "c")
URLS = {name: f"http://127.0.0.1:{2380 + number}" for number, name in enumerate(NAMES)}
CLUSTER = ",".join(f"{name}={url}" for name, url in URLS.items())
CLUSTER_ID = 0xC1


def config(directory: Path, **settings: object) -> ServerConfig:
    own: dict[str, object] = {
        "name": "a",
        "initial_cluster": CLUSTER,
        "initial_advertise_peer_urls": parse_urls([URLS["a"]]),
    }
    return configured(directory, **{**own, **settings})


def joining(directory: Path, **settings: object) -> ServerConfig:
    return config(directory, initial_cluster_state="existing", **settings)


def find(config: ServerConfig, wire: Wire) -> Beginning | None:
    return asyncio.run(find_cluster(config, UnsyncedFiles(), wire, InPlace()))


class Running:
    """A running cluster: what its members say, by path."""

    def __init__(self) -> None:
        self.members = [
            Member(number, (URLS[name],), False, "" if name == "a" else name, ("http://c",))
            for number, name in enumerate(NAMES, 1)
        ]
        self.cluster_id = f"{CLUSTER_ID:x}"
        self.version = '{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}'
        self.downgrading = "false"
        self.down: set[str] = {URLS["a"]}

    def wire(self) -> Wire:
        return Wire(self._answer)

    def _answer(self, url: Url, request: Request) -> Answer | Exception:
        if url.text in self.down:
            return Unreachable("connection refused")
        if request.target == "/version":
            return Answer(200, (), self.version.encode())
        if request.target == "/downgrade/enabled":
            return Answer(200, (), self.downgrading.encode())
        assert request.target == "/members"
        body = b"[" + b",".join(map(to_json, self.members)) + b"]\n"
        return Answer(200, (("x-etcd-cluster-id", self.cluster_id),), body)


# A new cluster


def test_the_members_of_a_new_cluster_are_those_of_the_flags(tmp_path: Path) -> None:
    wire = silent()
    found = find(config(tmp_path), wire)
    expected = new_cluster({name: [url] for name, url in URLS.items()}, "etcd-cluster")
    assert found == Beginning(expected, expected.named("a").id)
    assert [url for url, _ in wire.asked] == [URLS["b"], URLS["c"]]  # not itself


def test_a_member_that_has_served_before_does_not_begin_anew(tmp_path: Path) -> None:
    running = Running()
    local = new_member("a", [URLS["a"]], "etcd-cluster")
    running.members[0] = replace(local, name="", client_urls=())
    assert find(config(tmp_path), running.wire()) is not None  # it is known, and has not served
    running.members[0] = local.with_attributes("a", ["http://127.0.0.1:2379"])
    with pytest.raises(BadCluster, match=f"member {local.hex_id} has already been bootstrapped"):
        find(config(tmp_path), running.wire())


def test_a_first_answer_that_is_none_is_passed_over(tmp_path: Path) -> None:
    running = Running()
    running.members[0] = new_member("a", [URLS["a"]], "etcd-cluster").with_attributes("a", ["http://c"])
    running.down.add(URLS["b"])
    with pytest.raises(BadCluster, match="has already been bootstrapped"):
        find(config(tmp_path), running.wire())


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"name": "d"}, 'couldn\'t find local name "d" in the initial cluster configuration'),
        (
            {"initial_cluster": f"{CLUSTER},d={URLS['b']}"},
            f"initial cluster {CLUSTER},d={URLS['b']} has duplicate url",
        ),
        (
            {"initial_advertise_peer_urls": parse_urls(["http://127.0.0.1:1", URLS["a"]])},
            "--initial-advertise-peer-urls has http://127.0.0.1:1 but missing from "
            "--initial-cluster=a=http://127.0.0.1:1,a=http://127.0.0.1:2380",
        ),
        (
            {"initial_advertise_peer_urls": parse_urls(["http://127.0.0.1:1"])},
            "--initial-cluster has a=http://127.0.0.1:2380 but missing from "
            "--initial-advertise-peer-urls=http://127.0.0.1:1 "
            '(resolved urls: "http://127.0.0.1:1" != "http://127.0.0.1:2380")',
        ),
        (
            {"initial_cluster": f"{CLUSTER},a=http://127.0.0.1:1"},
            "--initial-cluster has a=http://127.0.0.1:1 but missing from "
            "--initial-advertise-peer-urls=http://127.0.0.1:2380 "
            '(len(["http://127.0.0.1:2380"]) != len(["http://127.0.0.1:1" "http://127.0.0.1:2380"]))',
        ),
        (
            {"initial_cluster": "a"},
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        ),
    ],
)
def test_flags_that_contradict_each_other_are_refused_in_etcds_words(
    tmp_path: Path, settings: dict[str, object], text: str
) -> None:
    with pytest.raises(BadCluster) as caught:
        find(config(tmp_path, **settings), silent())
    assert str(caught.value) == text


def test_a_name_and_its_address_are_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def address(host: str, port: int) -> str:
        asked.append(host)
        return "::1" if host == "a.example" else host

    monkeypatch.setattr(dns, "address", address)
    settings = {
        "initial_cluster": "a=http://a.example:1",
        "initial_advertise_peer_urls": parse_urls(["http://[0:0::1]:1"]),
    }
    assert find(config(tmp_path, **settings), silent()) is not None
    assert asked == ["0:0::1", "a.example"]


def test_two_spellings_of_an_address_need_no_name_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(dns, "address")
    for one, other in (("[0:0::1]:1", "[::1]:1"), ("[::ffff:10.0.0.1]:1", "10.0.0.1:1")):
        settings = {
            "initial_cluster": f"a=http://{one}",
            "initial_advertise_peer_urls": parse_urls([f"http://{other}"]),
        }
        assert find(config(tmp_path, **settings), silent()) is not None


def test_a_name_that_is_none_is_asked_for_again_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def address(host: str, port: int) -> str:
        asked.append(host)
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(dns, "address", address)
    monkeypatch.setattr(initial_module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(initial_module, "RESOLVE_SECONDS", 0.1)
    with pytest.raises(BadCluster) as caught:
        find(config(tmp_path, initial_cluster="a=http://a.example:1"), silent())
    assert str(caught.value) == (
        "--initial-cluster has a=http://a.example:1 but missing from "
        "--initial-advertise-peer-urls=http://127.0.0.1:2380 "
        '(failed to resolve "http://127.0.0.1:2380" (Name or service not known))'
    )
    assert len(asked) > 3


# A running cluster


def test_a_member_that_joins_has_the_id_its_cluster_gave_it(tmp_path: Path) -> None:
    running = Running()
    found = find(joining(tmp_path), running.wire())
    assert found is not None
    assert (found.cluster.id, found.local_id, found.is_new) == (CLUSTER_ID, 1, False)
    assert [(member.id, member.name) for member in found.cluster.members] == [(1, "a"), (2, "b"), (3, "c")]
    assert list(found.remotes) == running.members


def test_the_order_of_flags_does_not_matter_and_names_are_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        dns, "address", lambda host, port: "127.0.0.1" if host == "localhost.example" else host
    )
    flags = ",".join(reversed(CLUSTER.split(","))).replace("127.0.0.1:2381", "localhost.example:2381")
    running = Running()
    running.down = {URLS["a"], "http://localhost.example:2381"}
    found = find(joining(tmp_path, initial_cluster=flags), running.wire())
    assert found is not None
    by_id = {member.id: member.peer_urls for member in found.cluster.members}
    assert by_id == {1: (URLS["a"],), 2: ("http://localhost.example:2381",), 3: (URLS["c"],)}


def test_a_cluster_nobody_of_whom_answers(tmp_path: Path) -> None:
    text = "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given"
    with pytest.raises(BadCluster, match=text):
        find(joining(tmp_path), silent())


def test_a_cluster_that_has_no_members_yet(tmp_path: Path) -> None:
    running = Running()
    running.members = []
    text = "cannot fetch cluster info from peer urls: failed to get raft cluster member"
    with pytest.raises(BadCluster, match=text):
        find(joining(tmp_path), running.wire())


def test_a_cluster_whose_id_cannot_be_read_is_asked_elsewhere(tmp_path: Path) -> None:
    running = Running()
    running.cluster_id = "x"
    with pytest.raises(BadCluster, match="could not retrieve cluster information from the given URLs"):
        find(joining(tmp_path), running.wire())


def test_a_cluster_of_another_size_is_shown(tmp_path: Path) -> None:
    running = Running()
    running.members = [Member(0xA, ("http://x:1", "http://y:1"), True, "n", ("http://z:1",))]
    with pytest.raises(BadCluster) as caught:
        find(joining(tmp_path), running.wire())
    assert str(caught.value) == (
        "error validating peerURLs {ClusterID:c1 Members:[&{ID:a RaftAttributes:{PeerURLs:[http://x:1 "
        "http://y:1] IsLearner:true} Attributes:{Name:n ClientURLs:[http://z:1]}}] RemovedMemberIDs:[]}: "
        "member count is unequal"
    )


def test_a_member_the_flags_do_not_know_is_named(tmp_path: Path) -> None:
    running = Running()
    running.members[1] = Member(2, ("http://127.0.0.1:9",), False, "b")
    text = (
        r"PeerURLs: no match found for existing member \(2, \[http://127.0.0.1:9\]\), last resolver error "
        r'\(resolved urls: "http://127.0.0.1:9" != "http://127.0.0.1:238\d"\)'
    )
    with pytest.raises(BadCluster, match=text):
        find(joining(tmp_path), running.wire())


@pytest.mark.parametrize(
    ("cluster", "downgrading", "is_compatible"),
    [
        ("3.7.0", "false", True),
        ("3.0.0", "false", True),
        ("2.3.0", "false", False),
        ("3.8.0", "false", False),
        ("3.8.0", "true", True),
        ("3.7.0", "true", False),
        ("not_decided", "false", False),
    ],
)
def test_versions_decide_whether_a_member_may_join(
    tmp_path: Path, cluster: str, downgrading: str, is_compatible: bool
) -> None:
    running = Running()
    running.version = json.dumps({"etcdserver": "3.9.0", "etcdcluster": cluster})
    running.downgrading = downgrading
    if is_compatible:
        assert find(joining(tmp_path), running.wire()) is not None
        return
    with pytest.raises(BadCluster, match="incompatible with current running cluster"):
        find(joining(tmp_path), running.wire())


def test_one_member_that_says_its_version_is_enough(tmp_path: Path) -> None:
    running = Running()
    running.down.add(URLS["b"])
    assert find(joining(tmp_path), running.wire()) is not None


def test_more_learners_than_may_be(tmp_path: Path) -> None:
    running = Running()
    running.members = [replace(member, is_learner=True) for member in running.members]
    with pytest.raises(BadCluster, match=r"^membership: too many learner members in cluster$"):
        find(joining(tmp_path, max_learners=2), running.wire())
    assert find(joining(tmp_path, max_learners=3), running.wire()) is not None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"name": "d"}, 'couldn\'t find local name "d" in the initial cluster configuration'),
        ({"initial_cluster": f"{CLUSTER},d={URLS['b']}"}, "has duplicate url"),
    ],
)
def test_flags_of_one_who_joins_are_looked_at_first(
    tmp_path: Path, settings: dict[str, object], text: str
) -> None:
    wire = silent()
    with pytest.raises(BadCluster, match=text):
        find(joining(tmp_path, **settings), wire)
    assert not wire.asked


# What becomes of it


def test_a_member_that_joins_begins_with_nothing(tmp_path: Path) -> None:
    settings = joining(tmp_path)
    late = bare(settings, find(settings, Running().wire()))
    assert (late.opened.member_id, late.opened.cluster_id) == (1, CLUSTER_ID)
    assert [peer.id for peer in late.opened.peers] == [2, 3]
    assert [(remote.id, remote.name) for remote in late.opened.remotes] == [(2, "b"), (3, "c")]
    for _ in range(100):
        late.opened.node.tick()
    settle([late])
    assert not late.opened.node.is_leader
    assert late.opened.node.committed_index == 0
    late.stop()


def test_a_member_whose_join_was_cut_short_asks_again(tmp_path: Path) -> None:
    settings = joining(tmp_path)
    bare(settings, find(settings, Running().wire())).stop()
    found = find(settings, Running().wire())
    assert found is not None
    late = bare(settings, found)
    assert late.opened.member_id == 1
    assert len(late.opened.remotes) == 2
    late.stop()
    late = bare(settings, None)  # and needs nobody, if its log is to be believed
    assert (late.opened.member_id, late.opened.cluster_id) == (1, CLUSTER_ID)
    late.stop()


def test_a_member_whose_log_has_begun_asks_nobody(tmp_path: Path) -> None:
    settings = config(tmp_path, initial_cluster=f"a={URLS['a']}")
    first = bare(settings, find(settings, silent()))
    settle([first])
    first.stop()
    for again in (settings, replace(settings, initial_cluster_state="existing")):
        wire = silent()
        assert find(again, wire) is None
        assert not wire.asked
        member = bare(again, None)
        assert member.opened.member_id == first.opened.member_id
        member.stop()


# DNS


def srv(monkeypatch: pytest.MonkeyPatch, records: dict[str, list[dns.Record]]) -> None:
    def lookup(name: str, servers: object) -> list[dns.Record]:
        if name not in records:
            raise dns.LookupFailed(f"lookup {name} on 10.0.0.9:53: no such host")
        return records[name]

    monkeypatch.setattr(dns, "lookup", lookup)
    monkeypatch.setattr(dns, "address", lambda host, port: host.removesuffix("."))


def by_dns(directory: Path, scheme: str = "http", **settings: object) -> ServerConfig:
    discovery = DiscoveryConfig(srv="example")
    own = {"initial_cluster": "", "initial_advertise_peer_urls": parse_urls([f"{scheme}://127.0.0.1:2380"])}
    return config(directory, **{**own, "discovery": discovery, **settings})


def test_first_members_come_from_dns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [dns.Record(0, 0, port, "127.0.0.1") for port in (2380, 2381, 2382)]
    srv(monkeypatch, {"_etcd-server._tcp.example": records})
    found = find(by_dns(tmp_path), silent())
    assert found is not None
    expected = new_cluster({"a": [URLS["a"]], "0": [URLS["b"]], "1": [URLS["c"]]}, "etcd-cluster")
    assert found == Beginning(expected, expected.named("a").id)


def test_a_domain_that_names_nobody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    srv(monkeypatch, {})
    text = (
        "^error setting up initial cluster: error querying DNS SRV records for _etcd-server-ssl lookup _etcd"
    )
    with pytest.raises(BadCluster, match=text):
        find(by_dns(tmp_path), silent())


def test_a_domain_that_does_not_name_this_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    srv(monkeypatch, {"_etcd-server._tcp.example": [dns.Record(0, 0, 2381, "127.0.0.1")]})
    text = 'error setting up initial cluster: cannot find local etcd member "a" in SRV records'
    with pytest.raises(BadCluster, match=text):
        find(by_dns(tmp_path), silent())


@pytest.mark.parametrize("ca", ["", "ca.crt"])
def test_certificates_are_for_the_domain_unless_there_is_a_ca(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ca: str
) -> None:
    srv(monkeypatch, {"_etcd-server-ssl._tcp.example": [dns.Record(0, 0, 2380, "127.0.0.1")]})
    settings = by_dns(tmp_path, "https", peer_tls=TlsConfig(trusted_ca_file=ca))
    initial = asyncio.run(find_initial(settings, InPlace()))
    assert initial.server_name == ("" if ca else "example")
    assert asyncio.run(find_cluster(settings, UnsyncedFiles(), silent(), InPlace(), initial=initial))


def test_who_joins_is_not_told_by_a_registry(tmp_path: Path) -> None:
    discovery = DiscoveryConfig(token="token", endpoints=("127.0.0.1:1",))
    with pytest.raises(BadCluster, match="discovery URL should not be set when joining existing initial"):
        find(joining(tmp_path, discovery=discovery), silent())
