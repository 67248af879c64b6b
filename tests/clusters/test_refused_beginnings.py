"""What keeps a member from beginning is told in etcd's words: the same flags, ours and real etcd."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from conftest import Start
from members import Member, free_port
from programs import GO, OURS

Refusal = Callable[..., str]
MEMBER = re.compile(r"&\{ID:.*?Attributes:.*?Attributes:.*?\}\}")  # Go tells them in any order


@pytest.fixture
def refusal(tmp_path: Path) -> Iterator[Refusal]:
    """Starts a member of either kind with the same flags, and gives the reason that both end with."""
    begun: list[Member] = []

    def ask(initial_cluster: str, state: str, **flags: str) -> str:
        own = {name.replace("_", "-"): value for name, value in flags.items()}
        reasons = []
        for kind in (OURS, GO):
            place = tmp_path / f"{kind}{len(begun)}"
            place.mkdir()
            member = Member("new", kind, place, own)
            begun.append(member)
            member.begin(initial_cluster, state)
            assert member.wait_end(40) == 1
            reasons.append(reason(member))
            assert not (member.data / "member" / "wal").exists()
        ours, theirs = reasons
        assert sorted(MEMBER.findall(ours)) == sorted(MEMBER.findall(theirs))
        assert MEMBER.sub("", ours) == MEMBER.sub("", theirs)
        return ours

    yield ask
    for member in begun:
        member.discard()


def reason(member: Member) -> str:
    """The last error that is logged."""
    lines = [json.loads(line) for line in member.log.read_text().splitlines() if line.startswith("{")]
    return [str(line["error"]) for line in lines if line.get("error")][-1]


URL = "http://127.0.0.1:1"


def test_flags_that_contradict_each_other(refusal: Refusal) -> None:
    own = {"initial_advertise_peer_urls": URL}
    for cluster in (
        "other=http://127.0.0.1:1",
        "new=http://127.0.0.1:2",
        "new=http://127.0.0.1:2,new=http://127.0.0.1:1",
        "new=http://127.0.0.1:1,other=http://127.0.0.1:1",
        "new=http://127.0.0.1",
        "new=tcp://127.0.0.1:1",
        "new",
    ):
        assert refusal(cluster, "new", **own)
    assert "has http://127.0.0.1:3 but missing" in refusal(
        "new=http://127.0.0.1:1", "new", initial_advertise_peer_urls=f"{URL},http://127.0.0.1:3"
    )


def test_a_cluster_nobody_of_which_answers(refusal: Refusal) -> None:
    cluster = f"new={URL},other=http://127.0.0.1:{free_port()}"
    text = refusal(cluster, "existing", initial_advertise_peer_urls=URL)
    assert text.startswith("cannot fetch cluster info from peer urls: could not retrieve")


def test_a_cluster_that_does_not_know_the_member(start: Start, refusal: Refusal) -> None:
    """The same with a cluster of ours, whose `/members` is read then."""
    cluster = start("go", 1)
    known = f"{cluster.members[0].name}={cluster.members[0].peer_url}"
    text = refusal(f"{known},new={URL}", "existing", initial_advertise_peer_urls=URL)
    assert text.endswith("RemovedMemberIDs:[]}: member count is unequal")
    cluster.leader().client.member_add("http://127.0.0.1:2", learner=True)
    text = refusal(f"{known},new={URL}", "existing", initial_advertise_peer_urls=URL)
    assert "PeerURLs: no match found for existing member" in text
    text = refusal(
        f"{known},new=http://127.0.0.1:2", "existing", initial_advertise_peer_urls=URL, max_learners="0"
    )
    assert text == "membership: too many learner members in cluster"


@pytest.mark.parametrize("kind", [OURS, GO])
def test_a_member_that_lost_its_data_does_not_begin_anew(start: Start, kind: str) -> None:
    cluster: Cluster = start("go", 3)
    lost = cluster.follower()
    id = cluster.id_of(lost)
    lost.kill()
    shutil.rmtree(lost.data)
    lost.kind = kind
    cluster.begin_restart(lost)
    assert lost.wait_end() == 1
    assert lost.output.has(f"member {id:x} has already been bootstrapped")
