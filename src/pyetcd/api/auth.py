"""The Auth service of a member that has authentication off, which is all there is yet (a database with
authentication on is refused at the start).

Clients that are given a name and a password ask for a token first, and go on without one when they hear that
authentication is not enabled; so that answer matters to those who never use it.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyetcd._native import Meta
from pyetcd.api.dispatch import AsyncUnary, Body
from pyetcd.member.member import Member
from pyetcd.mvcc.answer import Answer
from pyetcd.proto import errors, strict
from pyetcd.proto.rpc_pb2 import AuthenticateRequest, AuthStatusRequest, AuthStatusResponse
from pyetcd.storage.schema import AUTH, AUTH_ENABLED, AUTH_REVISION, uint64


class Auth:
    """etcdserverpb.Auth, without what changes users and roles."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.coroutines: Mapping[str, AsyncUnary] = {
            "/etcdserverpb.Auth/AuthStatus": self.status,
            "/etcdserverpb.Auth/Authenticate": self.authenticate,
        }

    async def status(self, call: int, payload: bytes, meta: Meta) -> Body:
        strict.parse(AuthStatusRequest, payload)
        await self._become_current()
        response = AuthStatusResponse(
            enabled=self._is_enabled(),
            authRevision=uint64(self._member.backend.get(AUTH, AUTH_REVISION)),
        )
        return self._member.encode(Answer(self._member.store.revision, (response.SerializeToString(),)))

    async def authenticate(self, call: int, payload: bytes, meta: Meta) -> Body:
        strict.parse(AuthenticateRequest, payload)
        await self._become_current()
        assert not self._is_enabled(), "a member that cannot enforce it does not run with it"
        raise errors.AUTH_NOT_ENABLED

    async def _become_current(self) -> None:
        if not self._member.reads_are_current:
            await self._member.current()

    def _is_enabled(self) -> bool:
        return self._member.backend.get(AUTH, AUTH_ENABLED) == b"\x01"
