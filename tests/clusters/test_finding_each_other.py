"""Members begin together through another etcd cluster, ours and real ones, whichever keeps the registry."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from conftest import Start
from members import Member
from programs import GO, OURS

from pyetcd.proto.rpc_pb2 import (
    AuthEnableRequest,
    AuthEnableResponse,
    AuthRoleAddRequest,
    AuthRoleAddResponse,
    AuthUserAddRequest,
    AuthUserAddResponse,
    AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse,
)

TOKEN = "a-token"
PREFIX = f"/_etcd/registry/{TOKEN}"


@pytest.fixture
def members(tmp_path: Path) -> Iterator[list[Member]]:
    """Whatever is appended is gone in the end."""
    begun: list[Member] = []
    yield begun
    for member in begun:
        member.discard()


def begin(directory: Path, members: list[Member], kinds: Sequence[str], endpoints: str, **flags: str) -> None:
    own = {"discovery-token": TOKEN, "discovery-endpoints": endpoints, **flags}
    for kind in kinds:
        member = Member(f"d{len(members)}", kind, directory, own)
        members.append(member)
        begin_one(member)


def begin_one(member: Member) -> None:
    member.begin("", "new")


@pytest.mark.parametrize("registry", [OURS, GO])
@pytest.mark.parametrize("kinds", [[OURS] * 3, [OURS, GO, OURS]], ids=["ours", "mixed"])
def test_members_find_each_other(
    start: Start, tmp_path: Path, members: list[Member], registry: str, kinds: list[str]
) -> None:
    keeper = start([registry], 1).leader()
    keeper.client.put(f"{PREFIX}/_config/size".encode(), b"3")
    begin(tmp_path, members, kinds, f"127.0.0.1:1,{keeper.client_url}")
    for member in members:
        member.wait_ready()
    lists = [[(each.ID, each.name) for each in member.client.members().members] for member in members]
    assert lists[0] == lists[1] == lists[2]
    assert {name for _, name in lists[0]} == {"d0", "d1", "d2"}
    members[0].client.put(b"key", b"value")
    assert members[2].client.get(b"key") == b"value"
    # What stands in the registry is what real etcd would have put there.
    found = keeper.client.range(f"{PREFIX}/members/".encode(), f"{PREFIX}/members0".encode()).kvs
    assert {kv.key.decode().rpartition("/")[2] for kv in found} == {f"{id:x}" for id, _ in lists[0]}
    assert {kv.value.decode() for kv in found} == {f"{each.name}={each.peer_url}" for each in members}
    # Who comes too late is refused, and who has begun asks nobody any more.
    begin(tmp_path, members, [OURS], keeper.client_url)
    assert members[-1].wait_end() == 1
    assert members[-1].output.has("failed to join discovery cluster (discovery: cluster is full)")
    assert members[-1].output.has("do not reuse discovery token; generate a new one to bootstrap a cluster")
    keeper.stop()
    members[0].kill()
    begin_one(members[0])
    members[0].wait_ready()
    assert members[0].output.has("discovery token is ignored since cluster already initialized")


def test_a_token_nobody_gave_a_size_is_refused(start: Start, tmp_path: Path, members: list[Member]) -> None:
    keeper = start("go", 1).leader()
    begin(tmp_path, members, [OURS, GO], keeper.client_url)
    for member in members:
        assert member.wait_end() == 1
        assert member.output.has("failed to join discovery cluster (discovery: size key not found)")
    assert not (members[0].data / "member" / "wal").exists()


def test_a_start_that_waits_for_others_can_be_ended(
    start: Start, tmp_path: Path, members: list[Member]
) -> None:
    keeper = start("go", 1).leader()
    keeper.client.put(f"{PREFIX}/_config/size".encode(), b"3")
    begin(tmp_path, members, [OURS], keeper.client_url)
    assert members[0].output.wait("waiting for peers from discovery service", 20)
    members[0].stop()


def test_a_registry_that_restarts_is_waited_for(start: Start, tmp_path: Path, members: list[Member]) -> None:
    cluster = start("go", 1)
    keeper = cluster.leader()
    keeper.client.put(f"{PREFIX}/_config/size".encode(), b"2")
    begin(tmp_path, members, [OURS], keeper.client_url)
    assert members[0].output.wait("waiting for peers from discovery service", 20)
    keeper.kill()
    cluster.restart(keeper)
    begin(tmp_path, members, [GO], keeper.client_url)
    for member in members:
        member.wait_ready()


def demand_passwords(keeper: Member) -> None:
    """Only root, with a password, may use the registry from now on."""
    ask = keeper.client.ask
    ask("Auth/UserAdd", AuthUserAddRequest(name="root", password="secret"), AuthUserAddResponse)
    ask("Auth/RoleAdd", AuthRoleAddRequest(name="root"), AuthRoleAddResponse)
    ask("Auth/UserGrantRole", AuthUserGrantRoleRequest(user="root", role="root"), AuthUserGrantRoleResponse)
    ask("Auth/AuthEnable", AuthEnableRequest(), AuthEnableResponse)


@pytest.mark.parametrize(
    "credentials",
    [
        {"discovery-user": "root", "discovery-password": "secret"},
        {"discovery-user": "root:secret"},
    ],
)
def test_a_registry_may_demand_a_password(
    start: Start, tmp_path: Path, members: list[Member], credentials: dict[str, str]
) -> None:
    keeper = start("go", 1).leader()
    keeper.client.put(f"{PREFIX}/_config/size".encode(), b"1")
    demand_passwords(keeper)
    begin(tmp_path, members, [OURS], keeper.client_url, **credentials)
    members[0].wait_ready()
    begin(tmp_path, members, [OURS, GO], keeper.client_url, **{**credentials, "discovery-password": "wrong"})
    for member in members[1:]:
        assert member.wait_end() == 1
        assert member.output.has("authentication failed, invalid user ID or password")


def made_certificates(directory: Path) -> dict[str, str]:
    """An authority, and one certificate of it for both sides, by openssl."""
    run = partial(subprocess.run, cwd=directory, check=True, capture_output=True)
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    run([*new, "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt"])
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", "own.key", "-out", "own.crt"]
    run([*new, "-subj", "/CN=own", *names, *signed])
    return {name: str(directory / name) for name in ("ca.crt", "own.crt", "own.key")}


def test_a_registry_may_demand_certificates(tmp_path: Path, members: list[Member]) -> None:
    made = made_certificates(tmp_path)
    keeper = Member("keeper", GO, tmp_path, {})
    members.append(keeper)
    keeper.begin(f"keeper={keeper.peer_url}", "new")
    keeper.wait_ready()
    keeper.client.put(f"{PREFIX}/_config/size".encode(), b"1")
    keeper.stop()
    secure = keeper.client_url.replace("http", "https")
    keeper.flags = {
        "listen-client-urls": secure,
        "advertise-client-urls": secure,
        "cert-file": made["own.crt"],
        "key-file": made["own.key"],
        "trusted-ca-file": made["ca.crt"],
        "client-cert-auth": "true",
    }
    keeper.begin(f"keeper={keeper.peer_url}", "new")
    keeper.wait_ready()
    files = {
        "discovery-cacert": made["ca.crt"],
        "discovery-cert": made["own.crt"],
        "discovery-key": made["own.key"],
    }
    begin(tmp_path, members, [OURS], secure, **files)
    members[-1].wait_ready()
    begin(tmp_path, members, [OURS], secure, **{**files, "discovery-key": "nowhere"})
    assert members[-1].wait_end() == 1
    assert members[-1].output.has(
        "failed to join discovery cluster (open nowhere: no such file or directory)"
    )
