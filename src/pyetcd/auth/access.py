"""What one user may do, put together from the roles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pyetcd.auth.intervals import Intervals
from pyetcd.proto.auth_pb2 import Permission, Role

ROOT: Final = "root"  # the name of the user that must exist, and of the role that may do everything


class Access:
    """The keys a user may read and write; a root may everything."""

    __slots__ = ("is_root", "reads", "writes")

    def __init__(self, is_root: bool, roles: Iterable[Role]) -> None:
        self.is_root = is_root
        reads: list[tuple[bytes, bytes]] = []
        writes: list[tuple[bytes, bytes]] = []
        for role in roles:
            for permission in role.keyPermission:
                span = permission.key, permission.range_end
                if permission.permType in (Permission.READ, Permission.READWRITE):
                    reads.append(span)
                if permission.permType in (Permission.WRITE, Permission.READWRITE):
                    writes.append(span)
        self.reads = Intervals(reads)
        self.writes = Intervals(writes)
