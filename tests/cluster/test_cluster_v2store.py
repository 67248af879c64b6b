"""The members as etcd's v2 store would hold them: the data of snapshots."""

from __future__ import annotations

import json

from pyetcd.cluster.members import Member
from pyetcd.cluster.v2store import membership_json
from pyetcd.cluster.versions import Version

NEVER = "0001-01-01T00:00:00Z"


def node(
    path: str, index: int, value: str = "", children: dict[str, object] | None = None
) -> dict[str, object]:
    return {
        "Path": path,
        "CreatedIndex": index,
        "ModifiedIndex": index,
        "ExpireTime": NEVER,
        "Value": value,
        "Children": children,
    }


def event(action: str, key: str, value: str, index: int) -> dict[str, object]:
    return {
        "action": action,
        "node": {"key": key, "value": value, "modifiedIndex": index, "createdIndex": index},
    }


def test_the_store_is_the_one_etcd_3_7_1_wrote_for_these_members() -> None:
    members = [
        Member(0xF61CC4F45931DB1A, ("http://10.0.0.1:2380?x=<a>&b",), True),
        Member(0x8E9E05C52164694D, ("http://localhost:2380",), False, "default", ("http://127.0.0.1:59297",)),
    ]
    one, two = "/0/members/8e9e05c52164694d", "/0/members/f61cc4f45931db1a"
    raft_one = '{"peerURLs":["http://localhost:2380"]}'
    about_one = '{"name":"default","clientURLs":["http://127.0.0.1:59297"]}'
    raft_two = '{"peerURLs":["http://10.0.0.1:2380?x=\\u003ca\\u003e\\u0026b"],"isLearner":true}'
    tree_one = {
        "attributes": node(f"{one}/attributes", 2, about_one),
        "raftAttributes": node(f"{one}/raftAttributes", 1, raft_one),
    }
    tree_two = {"raftAttributes": node(f"{two}/raftAttributes", 3, raft_two)}
    tree = {
        "members": node(
            "/0/members",
            1,
            "",
            {"8e9e05c52164694d": node(one, 1, "", tree_one), "f61cc4f45931db1a": node(two, 3, "", tree_two)},
        ),
        "version": node("/0/version", 4, "3.7.0"),
    }
    events = [
        event("create", f"{one}/raftAttributes", raft_one, 1),
        event("set", f"{one}/attributes", about_one, 2),
        event("create", f"{two}/raftAttributes", raft_two, 3),
        event("set", "/0/version", "3.7.0", 4),
    ]
    stats = {"getsSuccess": 0, "getsFail": 1, "setsSuccess": 2, "setsFail": 0}
    stats |= {"deleteSuccess": 0, "deleteFail": 0, "updateSuccess": 0, "updateFail": 0}
    stats |= {"createSuccess": 2, "createFail": 0, "compareAndSwapSuccess": 0, "compareAndSwapFail": 0}
    stats |= {"compareAndDeleteSuccess": 0, "compareAndDeleteFail": 0, "expireCount": 0, "watchers": 0}
    queue = {"Events": events + [None] * 996, "Size": 4, "Front": 0, "Back": 4, "Capacity": 1000}
    expected = {
        "Root": node("/", 0, "", {"0": node("/0", 0, "", tree), "1": node("/1", 0, "", {})}),
        "WatcherHub": {"EventHistory": {"Queue": queue, "StartIndex": 1, "LastIndex": 4}},
        "CurrentIndex": 4,
        "Stats": stats,
        "CurrentVersion": 2,
    }
    text = json.dumps(expected, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    assert membership_json(members, [], Version(3, 7)) == text.encode()


def test_removed_members_are_listed_by_id_with_no_value() -> None:
    found = json.loads(membership_json([], [0xAB, 1], None))
    root = found["Root"]["Children"]["0"]["Children"]
    assert list(root) == ["removed_members"]
    assert [child["Value"] for child in root["removed_members"]["Children"].values()] == ["", ""]
    assert list(root["removed_members"]["Children"]) == ["1", "ab"]
    assert found["Stats"]["createSuccess"] == found["CurrentIndex"] == 2
