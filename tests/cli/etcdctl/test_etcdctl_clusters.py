"""Real etcdctl 3.7.1 and ours with the same command lines on a cluster: each does what the other did before.

Where both add a member, its ID, which is chance, has a name instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from both import Both, masked, without_times
from cluster import Cluster, until
from ctl_runner import Ran
from members import Member, free_port
from programs import OURS

DEAD = "127.0.0.1:1"
FORMATS = [["-w", format] for format in ("simple", "table", "json", "fields", "protobuf")]
every_format = pytest.mark.parametrize("format", FORMATS, ids=" ".join)


@dataclass
class Stage:
    """Three members that vote; nobody waits until all have been connected for five seconds."""

    cluster: Cluster
    both: Both

    def at(self, *members: Member) -> str:
        return "--endpoints=" + ",".join(f"127.0.0.1:{member.port}" for member in members)

    @property
    def leader(self) -> Member:
        return self.cluster.leader()

    @property
    def follower(self) -> Member:
        return self.cluster.follower()

    def id(self, member: Member) -> str:
        return f"{self.cluster.id_of(member):x}"

    def settled(self) -> None:
        """All members have applied the same entries, so that they answer alike until the next write."""

        def same() -> bool:
            told = [member.client.status() for member in self.cluster.answering]
            return len({index for s in told for index in (s.raftIndex, s.raftAppliedIndex)}) == 1

        until(same, "all entries applied everywhere")


@pytest.fixture(scope="module")
def stage(both: Both, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("cluster")
    with Cluster(directory, [OURS] * 3, strict_reconfig_check="false", max_learners=3) as cluster:
        cluster.leader().client.put(b"a", b"1")
        yield Stage(cluster, both)


def error(ran: Ran) -> tuple[int, str]:
    assert ran.out == b""
    return ran.code, ran.err.decode().removeprefix("Error: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["member", "add"], 128, "member name not provided"),
        (["member", "add", ""], 128, "member peer urls not provided"),
        (["member", "add", "x", "y"], 128, "too many arguments"),
        (
            ["member", "add", "HTTPx", "HTTP://b:1", "--peer-urls=http://a:1"],
            128,
            "too many arguments, did you mean --peer-urls=HTTPx, did you mean --peer-urls=HTTP://b:1",
        ),
        (["member", "add", "x", "--peer-urls="], 128, "member peer urls not provided"),
        (["member", "add", "x", "--peer-urls=a:1"], 1, "URL scheme must be http, https, unix, or unixs: a:1"),
        (["member", "add", "x", "--peer-urls=http://a:1,"], 1, None),
        (["member", "add", "x", "--peer-urls=http://a"], 1, None),
        (["member", "add", "x", "--peer-urls=http://a:1/b"], 1, "URL must not contain a path: http://a:1/b"),
        (["member", "add", "x", "--peer-urls=http://127.0.0.1:x"], 1, None),
        (["member", "remove"], 128, "member ID is not provided"),
        (["member", "remove", "1", "2"], 128, "member ID is not provided"),
        (["member", "remove", "0x5"], 128, None),
        (["member", "remove", "10000000000000000"], 128, None),
        (["member", "remove", "-5"], 1, None),
        (["member", "remove", "5"], 1, "etcdserver: member not found"),
        (["member", "update"], 128, "member ID is not provided"),
        (["member", "update", "z", "--peer-urls=x"], 128, None),
        (["member", "update", "5"], 128, "member peer urls not provided"),
        (["member", "update", "5", "--peer-urls=x"], 1, None),
        (["member", "update", "5", "--peer-urls=http://a:1"], 1, "etcdserver: member not found"),
        (["member", "promote"], 128, "member ID is not provided"),
        (["member", "promote", "5"], 1, "etcdserver: member not found"),
        (["member", "list", "--consistency=x"], 4, 'unknown consistency flag "l"'),
        (["move-leader"], 128, "move-leader command needs 1 argument"),
        (["move-leader", "1", "2"], 128, "move-leader command needs 1 argument"),
        (["move-leader", "z"], 128, 'strconv.ParseUint: parsing "z": invalid syntax'),
        (["move-leader", "1", "-w", "xml"], 4, "unsupported output format"),
        (["downgrade", "validate"], 128, "TARGET_VERSION not provided"),
        (["downgrade", "enable"], 128, "TARGET_VERSION not provided"),
        (["downgrade", "enable", "3.6", "3.5"], 128, "too many arguments"),
        (["downgrade", "validate", ""], 128, "target version not provided"),
        (["downgrade", "validate", "x"], 1, "etcdserver: wrong downgrade target version format"),
        (["downgrade", "enable", "3.5"], 1, "etcdserver: invalid downgrade target version"),
        (["endpoint", "hashkv", "--cluster", "--rev=1000"], 1, None),
        (["endpoint", "status", "--cluster", "--cacert=/no"], 1, "open /no: no such file or directory"),
        (["endpoint", "status", "--cacert=/no"], 128, "open /no: no such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals_have_the_same_words_and_codes(
    stage: Stage, command: list[str], code: int, text: str | None
) -> None:
    ran = stage.both.same(*command, stage.at(stage.leader))
    assert ran.code == code
    if text is not None:
        assert error(ran) == (code, text)


def test_what_the_cluster_refuses(stage: Stage) -> None:
    leader, follower = stage.leader, stage.follower
    taken = f"--peer-urls={leader.peer_url}"
    everybody = stage.at(*stage.cluster.members)
    for command, text in [
        (["member", "add", "x", taken], "etcdserver: Peer URLs already exists"),
        (["member", "add", "x", taken, "--learner"], "etcdserver: Peer URLs already exists"),
        (["member", "promote", stage.id(follower)], "etcdserver: can only promote a learner member"),
        (["move-leader", "5"], "etcdserver: bad leader transferee"),
    ]:
        assert error(stage.both.same(*command, everybody)) == (1, text)


def test_without_the_leader_among_the_endpoints_there_is_nobody_to_ask(stage: Stage) -> None:
    followers = [member for member in stage.cluster.members if member is not stage.leader]
    code, text = error(stage.both.same("move-leader", stage.id(followers[0]), stage.at(*followers)))
    assert (code, text) == (
        128,
        f"no leader endpoint given at [{stage.at(*followers)[12:].replace(',', ' ')}]",
    )
    assert error(stage.both.same("move-leader", "1", "--endpoints=")) == (
        2,
        "etcdclient: no available endpoints",
    )


def test_a_dead_endpoint_before_the_leaders_ends_the_search(stage: Stage) -> None:
    dead_first = f"--endpoints={DEAD},127.0.0.1:{stage.leader.port}"
    ran = stage.both.same("move-leader", "5", dead_first, "--command-timeout=1s")
    assert error(ran) == (1, "context deadline exceeded")
    dead_last = f"--endpoints=127.0.0.1:{stage.leader.port},{DEAD}"
    assert error(stage.both.same("move-leader", "5", dead_last)) == (1, "etcdserver: bad leader transferee")


@every_format
def test_a_downgrade_is_validated_and_called_off(stage: Stage, format: list[str]) -> None:
    stage.settled()
    for command in (["validate", "3.6"], ["cancel"]):
        stage.both.same("downgrade", *command, stage.at(stage.leader), *format)


def test_a_downgrade_is_enabled(stage: Stage) -> None:
    for run in (stage.both.real, stage.both.ours):
        until(lambda: stage.leader.client.status().storageVersion == "3.7.0", "the cluster at 3.7", 30)
        ran = run("downgrade", "enable", "3.6", stage.at(stage.follower))
        assert (ran.code, ran.text) == (0, "Downgrade enable success, cluster version 3.7\n")
        status = run("endpoint", "status", stage.at(stage.leader)).text
        assert status.endswith(", 3.6.0, true\n")
        assert run("downgrade", "cancel", stage.at(stage.follower)).code == 0


@every_format
def test_the_leadership_is_moved(stage: Stage, format: list[str]) -> None:
    """By one program, back, and the same way by the other. The answer has no header, so no term either."""
    old, new = stage.leader, stage.follower
    everybody = stage.at(*stage.cluster.members)
    rans = []
    for run in (stage.both.real, stage.both.ours):
        stage.cluster.move_leader(old)
        rans.append(run("move-leader", stage.id(new), everybody, *format))
        until(lambda: stage.leader is new, "the leadership at its new place")
    assert rans[1] == rans[0]
    if format[1] == "simple":
        assert rans[0].text == f"Leadership transferred from {stage.id(old)} to {stage.id(new)}\n"
    if format[1] in ("table", "fields"):  # refused after it was done, as by etcdctl
        assert error(rans[0]) == (4, f"{format[1]} not supported as output format")


@pytest.mark.parametrize("learner", [[], ["--learner"]], ids=["voter", "learner"])
@pytest.mark.parametrize("by", ["real", "ours"])
def test_a_member_is_added_listed_updated_and_removed(stage: Stage, by: str, learner: list[str]) -> None:
    """Changed by one program, which has to say what it did, and looked at by both."""
    run = stage.both.real if by == "real" else stage.both.ours
    urls = ",".join(f"http://127.0.0.1:{free_port()}" for _ in range(2))
    at = stage.at(stage.leader)
    added = run("member", "add", 'new "é"', f"--peer-urls={urls}", *learner, at)
    told = stage.leader.client.members()
    (new,) = [member for member in told.members if not member.name]
    cluster = f"cluster {told.header.cluster_id:16x}"
    name = 'new \\"é\\"'
    initial = ",".join(f"{member.name or name}={url}" for member in told.members for url in member.peerURLs)
    assert added.text == (
        f"Member {new.ID:16x} added {'as learner ' if learner else ''}to {cluster}\n\n"
        f'ETCD_NAME="{name}"\nETCD_INITIAL_CLUSTER="{initial}"\n'
        f'ETCD_INITIAL_ADVERTISE_PEER_URLS="{urls}"\nETCD_INITIAL_CLUSTER_STATE="existing"\n'
    )
    moved = f"--peer-urls=http://127.0.0.1:{free_port()}"
    for format in FORMATS:
        for hexadecimal in ([], ["--hex"]):
            stage.both.same("member", "list", at, *format, *hexadecimal)
            stage.both.same("member", "list", at, "--consistency=s", *format, *hexadecimal)
            stage.both.same("member", "update", f"{new.ID:x}", moved, at, *format, *hexadecimal)
    if learner:
        out_of_sync = "etcdserver: can only promote a learner member which is in sync with leader"
        assert error(stage.both.same("member", "promote", f"{new.ID:x}", at)) == (1, out_of_sync)
    status = "unstarted, , " + moved.partition("=")[2] + f", , {'true' if learner else 'false'}\n"
    assert f"{new.ID:x}, {status}" in stage.both.same("member", "list", at).text
    removed = run("member", "remove", f"{new.ID:x}", at)
    assert removed.text == f"Member {new.ID:16x} removed from {cluster}\n"
    assert stage.both.same("member", "remove", f"{new.ID:x}", at).code == 1


def test_a_learner_that_has_caught_up_is_promoted(stage: Stage) -> None:
    rans = []
    for run in (stage.both.real, stage.both.ours):
        learner = stage.cluster.add(OURS, learner=True)
        id = stage.cluster.id_of(learner)
        refused = stage.both.same("member", "list", stage.at(learner))
        assert error(refused) == (1, "etcdserver: rpc not supported for learner")
        at = stage.at(stage.follower, learner, stage.leader)
        listed = stage.both.same("member", "list", at)
        assert f"{id:x}, started, {learner.name}, " in listed.text
        stage.cluster.same_hashes()
        until(lambda learner=learner: in_sync(stage.cluster, learner), "the learner has caught up")
        stage.settled()
        at_one = stage.at(
            stage.cluster.follower_but(learner)
        )  # who answers is told, and may be any of several
        for format in FORMATS:
            stage.both.same("member", "list", at_one, *format)
            stage.both.same("endpoint", "status", "--cluster", at_one, *format)
            assert stage.both.same("endpoint", "hashkv", "--cluster", at_one, *format).code
        rans.append(masked(run("member", "promote", f"{id:x}", at), {id: "NEW"}))
        assert not learner.client.status().isLearner
        stage.cluster.remove(learner)
    assert rans[1] == rans[0]
    assert rans[0].text.startswith("Member NEW promoted in cluster ")


def in_sync(cluster: Cluster, learner: Member) -> bool:
    return learner.client.status().raftAppliedIndex == cluster.leader().client.status().raftAppliedIndex


@pytest.mark.parametrize("hexadecimal", [[], ["--hex"]], ids=["", "hex"])
@every_format
def test_all_members_are_asked_in_the_order_of_the_list(
    stage: Stage, format: list[str], hexadecimal: list[str]
) -> None:
    stage.settled()
    one, everybody = stage.at(stage.follower), stage.at(*stage.cluster.members)
    for command in ("status", "hashkv"):
        stage.both.same("endpoint", command, "--cluster", one, *format, *hexadecimal)
        stage.both.same("endpoint", command, everybody, *format, *hexadecimal)


def test_health_is_told_as_it_becomes_known(stage: Stage) -> None:
    """Members who answer at once come before one who is waited for; among them their order is chance."""
    dead_first = f"--endpoints={DEAD},127.0.0.1:{stage.leader.port}"
    for format in FORMATS:
        if format[1] != "table":  # whose columns are as wide as the times
            stage.both.same("endpoint", "health", dead_first, "--command-timeout=1s", *format)
    ran = stage.both.same("endpoint", "health", dead_first, "--command-timeout=1s", "-w", "json")
    assert [health["health"] for health in json.loads(ran.out)] == [True, False]
    one = stage.at(stage.follower)
    real, ours = (
        without_times(run("endpoint", "health", "--cluster", one))
        for run in (stage.both.real, stage.both.ours)
    )
    assert sorted(ours.text.splitlines()) == sorted(real.text.splitlines())
    assert ours.text.count(" is healthy: successfully committed proposal: took = T\n") == 3
