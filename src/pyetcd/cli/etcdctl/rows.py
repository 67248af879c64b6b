"""Members, endpoints' states and hashes as rows of text, for the simple and the table format."""

from __future__ import annotations

from pyetcd.cli.gotext import bytes_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.etcdctl.output import Health
    from pyetcd.proto.lite import Message

MEMBER_HEADER = ["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"]
HEALTH_HEADER = ["endpoint", "health", "took", "error"]
STATUS_HEADER = [
    "endpoint",
    "ID",
    "version",
    "storage version",
    "db size",
    "in use",
    "percentage not in use",
    "quota",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
    "downgrade target version",
    "downgrade enabled",
]
HASH_HEADER = ["endpoint", "hash", "hash_revision"]


def boolean(value: bool) -> str:
    return "true" if value else "false"


def member_rows(answer: Message) -> list[list[str]]:
    return [
        [
            f"{member.number('ID'):x}",
            "started" if member.text("name") else "unstarted",
            member.text("name"),
            ",".join(member.texts("peerURLs")),
            ",".join(member.texts("clientURLs")),
            boolean(member.flag("isLearner")),
        ]
        for member in answer.children("members")
    ]


def health_rows(healths: list[Health]) -> list[list[str]]:
    return [[health.endpoint, boolean(health.healthy), health.took, health.error] for health in healths]


def status_row(endpoint: str, status: Message) -> list[str]:
    member = status.child("header").number("member_id")
    size, in_use = status.number("dbSize"), status.number("dbSizeInUse")
    downgrade = status.child("downgradeInfo")
    return [
        endpoint,
        f"{member:x}",
        status.text("version"),
        status.text("storageVersion"),
        bytes_size(size),
        bytes_size(in_use),
        f"{100 - in_use * 100 // size if size else 0}%",
        bytes_size(status.number("dbSizeQuota")),
        boolean(status.number("leader") == member),
        boolean(status.flag("isLearner")),
        str(status.number("raftTerm")),
        str(status.number("raftIndex")),
        str(status.number("raftAppliedIndex")),
        ", ".join(status.texts("errors")),
        downgrade.text("targetVersion"),
        boolean(downgrade.flag("enabled")),
    ]


def status_rows(statuses: list[tuple[str, Message]]) -> list[list[str]]:
    return [status_row(endpoint, status) for endpoint, status in statuses]


def hash_rows(hashes: list[tuple[str, Message]]) -> list[list[str]]:
    return [
        [endpoint, str(answer.number("hash")), str(answer.number("hash_revision"))]
        for endpoint, answer in hashes
    ]
