"""Calls of etcd's lease service."""

from __future__ import annotations

from rpc import Client

from pyetcd.proto.rpc_pb2 import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)


def grant(client: Client, seconds: int) -> int:
    return client.ask("Lease/LeaseGrant", LeaseGrantRequest(TTL=seconds), LeaseGrantResponse).ID


def revoke(client: Client, lease: int) -> None:
    client.ask("Lease/LeaseRevoke", LeaseRevokeRequest(ID=lease), LeaseRevokeResponse)


def time_to_live(client: Client, lease: int) -> LeaseTimeToLiveResponse:
    request = LeaseTimeToLiveRequest(ID=lease, keys=True)
    return client.ask("Lease/LeaseTimeToLive", request, LeaseTimeToLiveResponse)


def keep_alive(client: Client, lease: int) -> int:
    """What it has to live now; 0 when there is no such lease."""
    requests = iter([LeaseKeepAliveRequest(ID=lease)])
    for answer in client.stream("Lease/LeaseKeepAlive", requests, LeaseKeepAliveResponse, seconds=10):
        return int(answer.TTL)
    raise AssertionError("the stream ended without an answer")


def leases(client: Client) -> set[int]:
    answer = client.ask("Lease/LeaseLeases", LeaseLeasesRequest(), LeaseLeasesResponse)
    return {lease.ID for lease in answer.leases}
