"""A membership in memory, for tests of what a member decides by it."""

from __future__ import annotations

from pyetcd.cluster.members import Member
from pyetcd.cluster.membership import Membership

CLUSTER_ID = 0xC1


class Buckets:
    """In the place of a database."""

    def __init__(self) -> None:
        self._data: dict[bytes, dict[bytes, bytes]] = {}

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        return self._data.get(bucket, {}).get(key)

    def scan(
        self, bucket: bytes, start: bytes, end: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]:
        found = sorted(self._data.get(bucket, {}).items())
        return [(key, value) for key, value in found if key >= start and (end is None or key < end)]

    def put(self, bucket: bytes, key: bytes, value: bytes) -> None:
        self._data.setdefault(bucket, {})[key] = value

    def delete(self, bucket: bytes, key: bytes) -> None:
        self._data.get(bucket, {}).pop(key, None)


def member(id: int, *urls: str, learner: bool = False, started: bool = True) -> Member:
    return Member(id, urls or (f"http://m{id}:2380",), learner, f"m{id}" if started else "")


def membership(*members: Member, local: int = 1) -> Membership:
    made = Membership(Buckets(), local, CLUSTER_ID)
    made.members = {each.id: each for each in members}
    return made
