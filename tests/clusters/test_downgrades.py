"""A cluster goes down to 3.6 and comes back: what it agrees on and what its members say of it is what real
etcd's members say, and executables of 3.6 take the data directories over under load."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import pytest
from cluster import Cluster, until
from cluster_load import Load
from conftest import Start
from members import Member
from programs import GO, GO36, OURS, executable

from pyetcd.proto.rpc_pb2 import DowngradeRequest, DowngradeResponse, StatusResponse

VALIDATE, ENABLE, CANCEL = DowngradeRequest.VALIDATE, DowngradeRequest.ENABLE, DowngradeRequest.CANCEL
FOLLOWS_SECONDS = 30.0  # versions are looked at every five seconds, by the leader and then by every member
OURS_ALONE, MIXED, MIXED_LED_BY_GO = [OURS], [OURS, GO], [GO, OURS]

mixtures = pytest.mark.parametrize(
    "kinds", [OURS_ALONE, MIXED, MIXED_LED_BY_GO], ids=["ours", "mixed, ours leads", "mixed, go leads"]
)


def downgrade(member: Member, action: DowngradeRequest.DowngradeAction, version: str = "") -> str:
    """The cluster's version, or the error."""
    request = DowngradeRequest(action=action, version=version)
    try:
        return member.client.ask("Maintenance/Downgrade", request, DowngradeResponse).version
    except grpc.RpcError as error:
        return error.details() or ""


def told(status: StatusResponse) -> tuple[str, bool, str]:
    info = status.downgradeInfo
    return status.storageVersion, info.enabled, info.targetVersion


def all_tell(cluster: Cluster, storage: str, enabled: bool, target: str) -> None:
    """Every member says so of its storage and of the downgrade."""

    def agreed() -> bool:
        try:
            return all(
                told(member.client.status()) == (storage, enabled, target) for member in cluster.members
            )
        except grpc.RpcError:
            return False

    try:
        until(agreed, "every member tells the versions", FOLLOWS_SECONDS)
    except AssertionError as error:
        error.add_note(str([(member, told(member.client.status())) for member in cluster.members]))
        raise


def started(start: Start, kinds: Sequence[str]) -> Cluster:
    """Three members at 3.7, led by the first."""
    executable(GO36)
    cluster = start(kinds, 3)
    cluster.move_leader(cluster.members[0])
    all_tell(cluster, "3.7.0", False, "")
    return cluster


@mixtures
def test_a_downgrade_is_validated_enabled_and_called_off(kinds: Sequence[str], start: Start) -> None:
    cluster = started(start, kinds)
    for member in cluster.members:
        assert downgrade(member, VALIDATE, "3.6") == "3.7"
        assert downgrade(member, VALIDATE, "3.6.9") == "3.7"
        assert downgrade(member, VALIDATE, "3.5") == "etcdserver: invalid downgrade target version"
        assert downgrade(member, ENABLE, "odd") == "etcdserver: wrong downgrade target version format"
        assert downgrade(member, CANCEL) == "3.7"
    asked, *others = reversed(cluster.members)
    assert downgrade(asked, ENABLE, "3.6") == "3.7"
    for member in others:
        assert downgrade(member, ENABLE, "3.6") in (
            "etcdserver: cluster has a downgrade job in progress",
            "etcdserver: invalid downgrade target version",  # the cluster is at 3.6 already
        )
    all_tell(cluster, "3.6.0", True, "3.6.0")
    assert downgrade(others[0], CANCEL) == "3.6"
    all_tell(cluster, "3.7.0", False, "")
    cluster.same_hashes()


@mixtures
def test_executables_of_the_version_before_take_over_and_ours_come_back(
    kinds: Sequence[str], start: Start
) -> None:
    cluster = started(start, kinds)
    with Load(cluster, watching=False) as load:  # real etcd waits seconds for clients to end their watches
        load.wait_writes(50)
        assert downgrade(cluster.members[1], ENABLE, "3.6") == "3.7"
        all_tell(cluster, "3.6.0", True, "3.6.0")
        for member in cluster.members:
            assert member.output.has("The server is ready to downgrade"), member
        load.wait_writes(20)
        for member in list(cluster.members):
            member.stop()
            cluster.leader()
            cluster.restart(member, GO36)
            load.wait_writes(20)
        until(
            lambda: not cluster.leader().client.status().downgradeInfo.enabled,
            "the downgrade ends by itself",
            FOLLOWS_SECONDS,
        )
        all_tell(cluster, "3.6.0", False, "")
        assert downgrade(cluster.members[0], VALIDATE, "3.5") == "3.6"
        cluster.same_hashes()
        for member in list(cluster.members):
            member.stop()
            cluster.leader()
            cluster.restart(member, OURS)
            load.wait_writes(20)
        all_tell(cluster, "3.7.0", False, "")
        load.wait_writes(20)
    cluster.same_hashes()


def test_our_leader_ends_a_downgrade_that_it_alone_has_not_made(start: Start) -> None:
    """It runs 3.7 and so does not match the target: only once it has gone, too, is the downgrade done."""
    cluster = started(start, OURS_ALONE)
    assert downgrade(cluster.members[0], ENABLE, "3.6") == "3.7"
    all_tell(cluster, "3.6.0", True, "3.6.0")
    leader = cluster.leader()
    for member in cluster.others(leader):
        member.stop()
        cluster.restart(member, GO36)
    cluster.move_leader(leader)
    mismatch = "remotes server has mismatching etcd version"
    until(lambda: leader.output.has(mismatch), "the leader looks", FOLLOWS_SECONDS)
    assert leader.client.status().downgradeInfo.enabled
    assert downgrade(leader, CANCEL) == "3.6"
    all_tell(cluster, "3.6.0", False, "")  # the others hold the cluster at 3.6
    cluster.same_hashes()
