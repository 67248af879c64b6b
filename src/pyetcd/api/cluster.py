"""The Cluster service: who the members are, and how that changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pyetcd._native import Meta
from pyetcd.api.dispatch import AsyncUnary, Body
from pyetcd.cluster.members import Member as ClusterMember
from pyetcd.member.member import Member
from pyetcd.proto import strict
from pyetcd.proto.rpc_pb2 import Member as MemberMessage
from pyetcd.proto.rpc_pb2 import (
    MemberAddRequest,
    MemberAddResponse,
    MemberListRequest,
    MemberListResponse,
    MemberPromoteRequest,
    MemberPromoteResponse,
    MemberRemoveRequest,
    MemberRemoveResponse,
    MemberUpdateRequest,
    MemberUpdateResponse,
)


class Cluster:
    """etcdserverpb.Cluster. Its headers carry no revision, as etcd's do not."""

    def __init__(self, member: Member, unix: Callable[[], float]) -> None:
        """`unix`: seconds since 1970, from which the IDs of new members are made."""
        self._member = member
        self._unix = unix
        self.coroutines: Mapping[str, AsyncUnary] = {
            "/etcdserverpb.Cluster/MemberAdd": self.member_add,
            "/etcdserverpb.Cluster/MemberRemove": self.member_remove,
            "/etcdserverpb.Cluster/MemberUpdate": self.member_update,
            "/etcdserverpb.Cluster/MemberList": self.member_list,
            "/etcdserverpb.Cluster/MemberPromote": self.member_promote,
        }

    async def member_add(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(MemberAddRequest, payload)
        added, members = await self._member.reconfiguration.add(
            request.peerURLs, request.isLearner, int(self._unix())
        )
        shown = MemberMessage(ID=added.id, peerURLs=added.peer_urls, isLearner=added.is_learner)
        return self._answer(MemberAddResponse(member=shown, members=_messages(members)).SerializeToString())

    async def member_remove(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(MemberRemoveRequest, payload)
        members = await self._member.reconfiguration.remove(request.ID)
        return self._answer(MemberRemoveResponse(members=_messages(members)).SerializeToString())

    async def member_update(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(MemberUpdateRequest, payload)
        members = await self._member.reconfiguration.update(request.ID, list(request.peerURLs))
        return self._answer(MemberUpdateResponse(members=_messages(members)).SerializeToString())

    async def member_list(self, call: int, payload: bytes, meta: Meta) -> Body:
        """The members by ID."""
        request = strict.parse(MemberListRequest, payload)
        if request.linearizable:
            await self._member.current()
        members = self._member.cluster.list()
        return self._answer(MemberListResponse(members=_messages(members)).SerializeToString())

    async def member_promote(self, call: int, payload: bytes, meta: Meta) -> Body:
        request = strict.parse(MemberPromoteRequest, payload)
        members = await self._member.promote(request.ID, meta.token)
        return self._answer(MemberPromoteResponse(members=_messages(members)).SerializeToString())

    def _answer(self, body: bytes) -> Body:
        return [self._member.header(0), body]


def _messages(members: Sequence[ClusterMember]) -> Sequence[MemberMessage]:
    return [
        MemberMessage(
            ID=member.id,
            name=member.name,
            peerURLs=member.peer_urls or (),
            clientURLs=member.client_urls,
            isLearner=member.is_learner,
        )
        for member in members
    ]
