"""Users and roles in the database, in etcd's buckets and encoding (authpb, fields in ascending order)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from pyetcd.proto.auth_pb2 import Role, User
from pyetcd.proto.errors import INVALID_ARGUMENT, EtcdError
from pyetcd.storage.schema import AUTH, AUTH_ENABLED, AUTH_REVISION, AUTH_ROLES, AUTH_USERS, uint64

NAME_BYTES_MAX: Final = 32 << 10  # of a key in the database; a longer one ends real etcd


class Backend(Protocol):
    """What is asked of the database."""

    def get(self, bucket: bytes, key: bytes) -> bytes | None: ...
    def put(self, bucket: bytes, key: bytes, value: bytes) -> None: ...
    def delete(self, bucket: bytes, key: bytes) -> None: ...
    def scan(
        self, bucket: bytes, start: bytes, end: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]: ...


class Accounts:
    """Reads and writes single users and roles; rules are the store's."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def enabled(self) -> bool:
        return self._backend.get(AUTH, AUTH_ENABLED) == b"\x01"

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._backend.put(AUTH, AUTH_ENABLED, b"\x01" if value else b"\x00")

    @property
    def revision(self) -> int:
        return uint64(self._backend.get(AUTH, AUTH_REVISION))

    @revision.setter
    def revision(self, value: int) -> None:
        self._backend.put(AUTH, AUTH_REVISION, value.to_bytes(8, "big"))

    def user(self, name: str) -> User | None:
        data = self._backend.get(AUTH_USERS, name.encode()) if name else None
        return None if data is None else User.FromString(data)

    def users(self) -> Sequence[User]:
        """By name."""
        return [User.FromString(data) for _, data in self._backend.scan(AUTH_USERS, b"")]

    def put_user(self, user: User) -> None:
        self._backend.put(AUTH_USERS, user.name, user.SerializeToString())

    def delete_user(self, name: str) -> None:
        self._backend.delete(AUTH_USERS, name.encode())

    def role(self, name: str) -> Role | None:
        data = self._backend.get(AUTH_ROLES, name.encode()) if name else None
        return None if data is None else Role.FromString(data)

    def roles(self) -> Sequence[Role]:
        """By name."""
        return [Role.FromString(data) for _, data in self._backend.scan(AUTH_ROLES, b"")]

    def put_role(self, role: Role) -> None:
        self._backend.put(AUTH_ROLES, role.name, role.SerializeToString())

    def delete_role(self, name: str) -> None:
        self._backend.delete(AUTH_ROLES, name.encode())


def check_name(name: str) -> bytes:
    """The name of a new user or role, as the database's key."""
    encoded = name.encode()
    if len(encoded) > NAME_BYTES_MAX:
        raise EtcdError(INVALID_ARGUMENT, "etcdserver: name is too long")
    return encoded
