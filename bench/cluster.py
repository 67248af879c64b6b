"""Clusters that are compared, every member of one kind: started, asked who leads, one member killed.

Both kinds get the same flags, and with them etcd's default timers: a heartbeat every 100 ms, elections after
a random time of one to two seconds. All members run on this machine: an operation costs what all of them use.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import grpc

from bench.programs import REPOSITORY, Programs
from bench.servers import (
    GO,
    POLL_SECONDS,
    QUOTA_BYTES,
    READY_TIMEOUT_SECONDS,
    SNAPSHOT_COUNT,
    Server,
    ServerFailed,
    free_ports,
)
from pyetcd.proto.rpc_pb2 import StatusRequest, StatusResponse


class Member(Server):
    """A server among others. Its ports stay."""

    def __init__(self, kind: str, programs: Programs, name: str, ports: tuple[int, int]) -> None:
        super().__init__(kind, programs)
        self.name = name
        self.port, self.peer_port = ports
        self.initial_cluster = ""
        channel = grpc.insecure_channel(
            self.endpoint,
            options=[("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 100)],
        )
        self._status = channel.unary_unary(
            "/etcdserverpb.Maintenance/Status",
            request_serializer=StatusRequest.SerializeToString,
            response_deserializer=StatusResponse.FromString,
        )

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    def _command(self) -> list[str]:
        client = f"http://{self.endpoint}"
        executable = self._programs.etcd if self.kind == GO else REPOSITORY / ".venv" / "bin" / "etcd"
        return [
            str(executable),
            f"--name={self.name}",
            f"--data-dir={self._directory / 'data'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={self.initial_cluster}",
            f"--quota-backend-bytes={QUOTA_BYTES}",
            f"--snapshot-count={SNAPSHOT_COUNT}",
            "--log-level=warn",
        ]

    def status(self) -> StatusResponse | None:
        """None when it does not answer."""
        try:
            answer: StatusResponse = self._status(StatusRequest(), timeout=2)
        except grpc.RpcError:
            return None
        return answer


class Cluster:
    """`size` members of one kind."""

    def __init__(self, kind: str, programs: Programs, size: int) -> None:
        self.kind = kind
        ports = free_ports(2 * size)
        self.members = [
            Member(kind, programs, f"m{number}", (ports[2 * number], ports[2 * number + 1]))
            for number in range(size)
        ]
        initial = ",".join(f"{member.name}={member.peer_url}" for member in self.members)
        for member in self.members:
            member.initial_cluster = initial

    @property
    def endpoint(self) -> str:
        return ",".join(member.endpoint for member in self.members)

    def cpu_seconds(self) -> float:
        return sum(member.cpu_seconds() for member in self.members)

    def start(self) -> None:
        """Until all are healthy and agree on a leader. Raises ServerFailed."""
        for member in self.members:
            member.begin()
        for member in self.members:
            member.wait_healthy()
        self.leader()

    def leader(self) -> Member:
        """The one that all members follow. Raises ServerFailed."""
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            told = [(member, member.status()) for member in self.members]
            for member, status in told:
                if status is not None and self._follow(status.header.member_id, (s for _, s in told)):
                    return member
            time.sleep(POLL_SECONDS)
        raise ServerFailed(f"the members of {self.kind} do not agree on a leader")

    @staticmethod
    def _follow(id: int, told: Iterable[StatusResponse | None]) -> bool:
        return all(status is not None and status.leader == id for status in told)

    def discard(self) -> None:
        for member in self.members:
            member.discard()
