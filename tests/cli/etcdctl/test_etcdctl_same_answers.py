"""Real etcdctl 3.7.1 and ours ask the same of a server, and show its answers alike, in every format.

The server is scripted: so there are answers that no cluster gives when it is asked to, and nothing is masked.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from both import Both
from scripted import Scripted, scripted

from pyetcd.proto.rpc_pb2 import (
    DowngradeInfo,
    HashKVResponse,
    Member,
    MemberAddResponse,
    MemberListResponse,
    MemberPromoteResponse,
    MemberRemoveResponse,
    MemberUpdateResponse,
    MoveLeaderResponse,
    ResponseHeader,
    StatusResponse,
)

LEADER, FOLLOWER = 0x8E9E05C52164694D, 0xFF  # one of all digits, one that wants padding
FORMATS = [
    ["-w", format, *hexadecimal]
    for format in ("simple", "table", "json", "fields", "protobuf")
    for hexadecimal in ([], ["--hex"])
]
every_format = pytest.mark.parametrize("format", FORMATS, ids=" ".join)


def header(member: int = LEADER) -> ResponseHeader:
    return ResponseHeader(cluster_id=0xABC, member_id=member, revision=7, raft_term=3)


VOTER = Member(
    ID=LEADER, name="one", peerURLs=["http://a:1", "unix://p:1"], clientURLs=["http://a:2", "http://[::1]:2"]
)
MEMBERS = [
    VOTER,
    Member(ID=FOLLOWER, name='<tw"o> & é\n', peerURLs=["http://b:1"], clientURLs=["http://b:2"]),
    Member(ID=0x10, name="learner", peerURLs=["http://c:1"], clientURLs=["http://c:2"], isLearner=True),
    Member(ID=0x11, peerURLs=["http://d:1"], isLearner=True),
    Member(ID=2**64 - 1, peerURLs=["http://e:1", "http://e:11"]),
]
ANSWERS = {
    "MemberAdd": MemberAddResponse(header=header(), member=MEMBERS[4], members=MEMBERS),
    "MemberRemove": MemberRemoveResponse(header=header(), members=MEMBERS[:2]),
    "MemberUpdate": MemberUpdateResponse(header=header(), members=MEMBERS),
    "MemberPromote": MemberPromoteResponse(header=header(), members=MEMBERS),
    "MemberList": MemberListResponse(header=header(), members=MEMBERS),
    "MoveLeader": MoveLeaderResponse(header=header()),
    "HashKV": HashKVResponse(header=header(), hash=0xFFFFFFFF, compact_revision=5, hash_revision=6),
    "Status": StatusResponse(
        header=header(),
        version="3.7.1",
        dbSize=25_000_000_000,
        leader=LEADER,
        raftIndex=2**64 - 1,
        raftTerm=3,
        raftAppliedIndex=12,
        errors=["memberID:255 alarm:NOSPACE ", "second"],
        dbSizeInUse=1_500,
        storageVersion="3.7.0",
        dbSizeQuota=8 << 30,
        downgradeInfo=DowngradeInfo(enabled=True, targetVersion="3.6.0"),
    ),
}
OF_FOLLOWER = {
    "Status": StatusResponse(
        header=header(FOLLOWER), version="3.6.5", dbSize=20480, leader=LEADER, raftTerm=3, isLearner=True
    ),
    "HashKV": HashKVResponse(header=header(FOLLOWER)),
}


@pytest.fixture(scope="module")
def leader() -> Iterator[Scripted]:
    with scripted(ANSWERS) as server:
        yield server


@pytest.fixture(scope="module")
def follower() -> Iterator[Scripted]:
    with scripted(OF_FOLLOWER) as server:
        yield server


def same(both: Both, args: list[str], *servers: Scripted) -> None:
    """The same questions to each of the servers, and the same shown of the answers."""
    asked: list[object] = []
    shown = []
    for run in (both.real, both.ours):
        shown.append(run(*args, f"--endpoints={','.join(server.endpoint for server in servers)}"))
        asked.append([server.take_asked() for server in servers])
    assert shown[1] == shown[0], args
    assert asked[1] == asked[0], args
    assert any(asked[0]), "the server was not asked at all"  # type: ignore[arg-type]


@every_format
@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["list", "--consistency=s"],
        ["add", 'new "one"', "--peer-urls=http://e:1,http://e:11"],
        ["add", "new", "--peer-urls=https://e:1", "--learner"],
        ["remove", "00ff"],
        ["update", "FFFFFFFFFFFFFFFF", "--peer-urls=http://x:1,unix://y:1"],
        ["promote", "10"],
    ],
    ids=" ".join,
)
def test_changes_and_lists_of_members(
    both: Both, leader: Scripted, command: list[str], format: list[str]
) -> None:
    same(both, ["member", *command, *format], leader)


def test_a_learner_that_is_added_is_called_so(both: Both) -> None:
    learner = MemberAddResponse(header=header(), member=MEMBERS[3], members=MEMBERS)
    with scripted({"MemberAdd": learner}) as server:
        same(both, ["member", "add", "é", "--peer-urls=http://d:1", "--learner"], server)


@every_format
def test_answers_with_nothing_in_them(both: Both, format: list[str]) -> None:
    empty = {name: type(answer)() for name, answer in ANSWERS.items()}
    del empty["MemberAdd"]  # etcdctl wants the member in it
    empty["Status"] = StatusResponse(dbSize=1)  # etcdctl divides by it
    with scripted(empty) as server:
        for command in (["member", "list"], ["member", "remove", "1"], ["member", "promote", "1"]):
            same(both, [*command, *format], server)
        for command in (["endpoint", "status"], ["endpoint", "hashkv"], ["move-leader", "1"]):
            same(both, [*command, *format], server)


@every_format
def test_the_leader_is_sought_among_the_endpoints(
    both: Both, leader: Scripted, follower: Scripted, format: list[str]
) -> None:
    same(both, ["move-leader", "ff", *format], follower, leader)
    same(both, ["move-leader", "fF", *format], leader, follower)
    same(both, ["move-leader", "0ff", *format], follower, follower)


@every_format
@pytest.mark.parametrize("command", ["status", "hashkv"])
def test_what_several_endpoints_say_comes_in_their_order(
    both: Both, leader: Scripted, follower: Scripted, command: str, format: list[str]
) -> None:
    same(both, ["endpoint", command, *format], leader, follower)
    same(both, ["endpoint", command, *format], follower, leader, follower)


@every_format
@pytest.mark.parametrize("command", ["status", "hashkv"])
def test_the_members_client_urls_are_asked_in_the_order_of_their_list(
    both: Both, leader: Scripted, follower: Scripted, command: str, format: list[str]
) -> None:
    members = [
        Member(ID=1, name="a", clientURLs=[f"http://{follower.endpoint}", f"http://{leader.endpoint}"]),
        Member(ID=2),
        Member(ID=3, name="c", clientURLs=[f"http://{leader.endpoint}"], isLearner=True),
    ]
    with scripted({"MemberList": MemberListResponse(header=header(), members=members)}) as server:
        same(both, ["endpoint", command, "--cluster", *format], server)
