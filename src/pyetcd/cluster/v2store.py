"""The members in the form of etcd's former v2 store, which raft snapshots still carry.

etcd 3.7 writes this into every `.snap` file and every snapshot message and reads it back nowhere; older
members and tools do. So it is written in full: a tree of nodes, the events by which it came to be (in a
ring of 1,000), and the counts of operations. Members come in order of their IDs, where Go takes them as
they happen to lie in a map.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyetcd.cluster.gojson import fields, string
from pyetcd.cluster.members import Member, attributes_json, raft_attributes_json
from pyetcd.cluster.versions import Version

_RING = 1000
_NEVER = '"0001-01-01T00:00:00Z"'


class _Node:
    """A directory, or with a `value` a file."""

    def __init__(self, path: str, index: int, value: str | None = None) -> None:
        self.path = path
        self.index = index
        self.value = value
        self.children: dict[str, _Node] = {}

    def text(self) -> str:
        children = "null"
        if self.value is None:
            children = fields((name, self.children[name].text()) for name in sorted(self.children))
        return fields(
            [
                ("Path", string(self.path)),
                ("CreatedIndex", str(self.index)),
                ("ModifiedIndex", str(self.index)),
                ("ExpireTime", _NEVER),
                ("Value", string(self.value or "")),
                ("Children", children),
            ]
        )


class _Store:
    """The store while it is being filled."""

    def __init__(self) -> None:
        self.root = _Node("/", 0)
        self.index = 0
        self.events: list[str] = []
        self.counts = {"create": 0, "set": 0}
        for name in ("0", "1"):
            self.root.children[name] = _Node(f"/{name}", 0)

    def put(self, action: str, path: str, value: str) -> None:
        self.index += 1
        self.counts[action] += 1
        node = self.root
        names = path.split("/")[1:]
        for depth, name in enumerate(names[:-1], 2):
            node = node.children.setdefault(name, _Node("/".join(["", *names[: depth - 1]]), self.index))
        node.children[names[-1]] = _Node(path, self.index, value)
        about = [
            ("key", string(path)),
            ("value", string(value)),
            ("modifiedIndex", str(self.index)),
            ("createdIndex", str(self.index)),
        ]
        self.events.append(fields([("action", string(action)), ("node", fields(about))]))

    def text(self) -> str:
        ring = self.events[-_RING:] + ["null"] * (_RING - len(self.events))
        queue = fields(
            [
                ("Events", f"[{','.join(ring)}]"),
                ("Size", str(min(len(self.events), _RING))),
                ("Front", "0"),
                ("Back", str(len(self.events) % _RING)),
                ("Capacity", str(_RING)),
            ]
        )
        first = max(len(self.events) - _RING, 0) + 1 if self.events else 0
        history = fields([("Queue", queue), ("StartIndex", str(first)), ("LastIndex", str(self.index))])
        return fields(
            [
                ("Root", self.root.text()),
                ("WatcherHub", fields([("EventHistory", history)])),
                ("CurrentIndex", str(self.index)),
                ("Stats", self._stats()),
                ("CurrentVersion", "2"),
            ]
        )

    def _stats(self) -> str:
        # One failed get: before it fills the store, etcd looks whether members are in it already.
        known = {"getsFail": 1, "setsSuccess": self.counts["set"], "createSuccess": self.counts["create"]}
        names = ["getsSuccess", "getsFail"]
        for action in ("sets", "delete", "update", "create", "compareAndSwap", "compareAndDelete"):
            names += [f"{action}Success", f"{action}Fail"]
        return fields((name, str(known.get(name, 0))) for name in [*names, "expireCount", "watchers"])


def membership_json(members: Iterable[Member], removed: Iterable[int], version: Version | None) -> bytes:
    """The data of a raft snapshot."""
    store = _Store()
    for member in sorted(members, key=lambda member: member.id):
        path = f"/0/members/{member.hex_id}"
        store.put("create", f"{path}/raftAttributes", raft_attributes_json(member))
        if member.client_urls:
            store.put("set", f"{path}/attributes", attributes_json(member))
    for id in sorted(removed):
        store.put("create", f"/0/removed_members/{id:x}", "")
    if version is not None:
        store.put("set", "/0/version", str(version))
    return store.text().encode()
