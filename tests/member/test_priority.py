"""The feature gate PriorityRequest: revocations of leases still come through where others are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import virtual_time
from whole_member import UnsyncedFiles, configured, put, serving

from pyetcd.member.features import FeatureGates
from pyetcd.member.member import MAX_APPLY_GAP, MAX_PRIORITY_GAP, Member
from pyetcd.proto import errors
from pyetcd.proto.raft_internal_pb2 import InternalRaftRequest
from pyetcd.proto.rpc_pb2 import LeaseRevokeRequest, PutRequest

PUT, REVOKE = InternalRaftRequest.PUT_FIELD_NUMBER, InternalRaftRequest.LEASE_REVOKE_FIELD_NUMBER


def is_taken(member: Member, kind: int, gap: int) -> bool:
    """Whether a request is, when so many committed entries are still to be applied."""
    request = PutRequest(key=b"k") if kind == PUT else LeaseRevokeRequest(ID=7)
    applied = member._position.index
    member._position.index = member.committed_index - gap
    try:
        member.propose(kind, request.SerializeToString(), request, lambda *_: None, None)
    except errors.TOO_MANY_REQUESTS:
        return False
    finally:
        member._position.index = applied
    return True


@pytest.mark.parametrize("gate", [False, True])
def test_a_revocation_has_twice_the_room_with_the_gate(tmp_path: Path, gate: bool) -> None:
    async def run() -> None:
        features = FeatureGates().with_text(f"PriorityRequest={str(gate).lower()}")
        async with serving(configured(tmp_path, features=features), UnsyncedFiles()) as member:
            await put(member, b"k", b"v")
            for gap in (0, MAX_APPLY_GAP, MAX_APPLY_GAP + 1, MAX_PRIORITY_GAP, MAX_PRIORITY_GAP + 1):
                assert is_taken(member, PUT, gap) == (gap <= MAX_APPLY_GAP), gap
                room = MAX_PRIORITY_GAP if gate else MAX_APPLY_GAP
                assert is_taken(member, REVOKE, gap) == (gap <= room), gap
            await put(member, b"k", b"v")

    virtual_time.run(run())
