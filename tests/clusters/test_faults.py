"""Members that die, freeze or are cut off under load, one at a time: the cluster serves on, nobody is told
anything wrong, and all members end with the same data."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest
from cluster import Cluster, until
from cluster_load import Load
from conftest import ROUNDS, SEED, Start
from members import Member
from proxies import State

Fault = Callable[[Cluster, Member], None]


def kill(cluster: Cluster, member: Member) -> None:
    member.kill()


def freeze(cluster: Cluster, member: Member) -> None:
    member.freeze()


def cut(cluster: Cluster, member: Member) -> None:
    cluster.isolate(member, State.CUT)


def stall(cluster: Cluster, member: Member) -> None:
    cluster.isolate(member, State.STALLED)


def lose(cluster: Cluster, member: Member) -> None:
    cluster.isolate(member, State.LOSSY)


def hush(cluster: Cluster, member: Member) -> None:
    cluster.hush(member, State.LOSSY)


def deafen(cluster: Cluster, member: Member) -> None:
    cluster.deafen(member, State.LOSSY)


def recover(cluster: Cluster, member: Member, *, wait: bool = True) -> None:
    if not member.running:
        cluster.begin_restart(member)
        if wait:
            member.wait_ready()
    elif not member.answering:
        member.thaw()
    if cluster.network is not None:
        cluster.heal()


FAULTS = (kill, freeze, cut, stall, lose, hush, deafen)
FAULTS_A_ROUND = 5
FEW = 8  # clients wait a second for a member that does not answer, so it takes a while to write so many


@pytest.mark.parametrize("victim", ["follower", "leader"])
@pytest.mark.parametrize(
    "faults", [(kill, freeze, cut), (stall, lose, hush, deafen)], ids=["it is gone", "it is not reached"]
)
def test_the_cluster_serves_on_when_something_happens_to_one_member(
    faults: tuple[Fault, ...], victim: str, mixture: str, start: Start
) -> None:
    cluster = start(mixture, 3, proxied=True)
    with Load(cluster) as load:
        load.wait_writes()
        for fault in faults * ROUNDS:
            member = cluster.leader() if victim == "leader" else cluster.follower()
            fault(cluster, member)
            cluster.leader(cluster.others(member))
            load.wait_writes(FEW)
            recover(cluster, member)
            cluster.leader()
            load.wait_writes(FEW)
    cluster.same_hashes()


def test_faults_at_random_also_of_a_majority(mixture: str, start: Start) -> None:
    """The log is short, so that members that were away are caught up by entries and by snapshots."""
    chance = random.Random(SEED)
    cluster = start(mixture, 3, proxied=True, snapshot_count=100, snapshot_catchup_entries=10)
    with Load(cluster, seed=SEED) as load:
        for _ in range(FAULTS_A_ROUND * ROUNDS):
            victims = chance.sample(cluster.members, chance.choice([1, 1, 1, 2, 3]))
            for victim in victims:
                chance.choice(FAULTS)(cluster, victim)
                load.pause(chance.uniform(0, 1))
            load.pause(chance.uniform(0, 1.5))
            for victim in victims:
                recover(cluster, victim, wait=False)
            if chance.random() < 0.6:
                load.wait_writes(FEW)
        for member in cluster.members:
            member.wait_ready()
        load.wait_writes(20)
    cluster.same_hashes()


def test_a_follower_that_was_cut_off_does_not_disturb_the_leader_when_it_is_back(
    mixture: str, start: Start
) -> None:
    """It asks first whether it would be elected (pre-vote), so no term begins."""
    cluster = start(mixture, 3, proxied=True)
    leader, follower = cluster.leader(), cluster.follower()
    term = leader.client.status().raftTerm
    cluster.isolate(follower, State.STALLED)
    until(lambda: follower.client.status().leader == 0, "the follower knows that it has no leader")
    time.sleep(1)  # as long as another attempt at an election takes
    cluster.heal()
    assert cluster.leader() is leader
    assert leader.client.status().raftTerm == term


def test_five_members_serve_on_without_two_and_again_after_a_loss_of_three(
    mixture: str, start: Start
) -> None:
    cluster = start(mixture, 5)
    with Load(cluster) as load:
        for _ in range(ROUNDS):
            load.wait_writes(20)
            first = cluster.leader()
            first.kill()
            second = cluster.leader()
            second.kill()
            cluster.leader()
            load.wait_writes(20)
            third = cluster.leader()
            third.kill()
            cluster.begin_restart(first)
            first.wait_ready()
            cluster.leader()
            load.wait_writes(20)
            for member in (second, third):
                cluster.begin_restart(member)
            for member in (second, third):
                member.wait_ready()
    cluster.same_hashes()


def test_all_members_killed_at_once_come_back_with_all_that_was_acknowledged(
    mixture: str, start: Start
) -> None:
    cluster = start(mixture, 3)
    with Load(cluster) as load:
        for _ in range(ROUNDS):
            load.wait_writes(100)
            for member in cluster.members:
                member.signal(signal.SIGKILL)
            for member in cluster.members:
                member.wait_end()
            for member in cluster.members:
                cluster.begin_restart(member)
            for member in cluster.members:
                member.wait_ready()
            load.wait_writes(20)
    cluster.same_hashes()


def test_a_slow_network_costs_time_and_nothing_else(mixture: str, start: Start) -> None:
    cluster = start(mixture, 3, proxied=True)
    assert cluster.network is not None
    term = cluster.leader().client.status().raftTerm
    names = [member.name for member in cluster.members]
    with Load(cluster) as load:
        load.wait_writes(20)
        cluster.network.set(names, names, State.OPEN, delay=0.05)
        load.wait_writes(30)
        cluster.heal()
        load.wait_writes(20)
    assert cluster.leader().client.status().raftTerm == term
    cluster.same_hashes()
