"""The Cluster service: who the members are."""

from __future__ import annotations

from collections.abc import Mapping

from pyetcd._native import Meta
from pyetcd.api.dispatch import AsyncUnary, Body
from pyetcd.member.member import Member
from pyetcd.proto import strict
from pyetcd.proto.rpc_pb2 import Member as MemberMessage
from pyetcd.proto.rpc_pb2 import MemberListRequest, MemberListResponse


class Cluster:
    """etcdserverpb.Cluster."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.coroutines: Mapping[str, AsyncUnary] = {"/etcdserverpb.Cluster/MemberList": self.member_list}

    async def member_list(self, call: int, payload: bytes, meta: Meta) -> Body:
        """The members by ID. Its header carries no revision, as etcd's does not."""
        request = strict.parse(MemberListRequest, payload)
        if request.linearizable:
            await self._member.current()
        members = [
            MemberMessage(
                ID=member.id,
                name=member.name,
                peerURLs=member.peer_urls,
                clientURLs=member.client_urls,
                isLearner=member.is_learner,
            )
            for member in self._member.cluster.list()
        ]
        return [self._member.header(0), MemberListResponse(members=members).SerializeToString()]
