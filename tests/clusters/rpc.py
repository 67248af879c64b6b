"""Calls of etcd's gRPC interface through grpcio, which is neither implementation's own client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from pyetcd.proto.rpc_pb2 import (
    HashKVRequest,
    HashKVResponse,
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
    MoveLeaderRequest,
    MoveLeaderResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    StatusRequest,
    StatusResponse,
)

CALL_SECONDS = 10.0
CHANGE_SECONDS = 3.0  # etcd leaves one that it has dropped unanswered
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # A member that comes back is found again at once, and one that is frozen is not waited for.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 300),
    ("grpc.max_reconnect_backoff_ms", 300),
)

Answer = TypeVar("Answer", bound=Message)


class Client:
    """A connection to one member. Calls may come from any thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._channel = grpc.insecure_channel(address, options=OPTIONS)

    def reconnect(self) -> None:
        """Forget the connection to what served here before."""
        with self._lock:
            old, self._channel = self._channel, grpc.insecure_channel(self._address, options=OPTIONS)
        old.close()

    def close(self) -> None:
        self._channel.close()

    def ask(
        self,
        path: str,
        request: Message,
        response: type[Answer],
        seconds: float = CALL_SECONDS,
        metadata: tuple[tuple[str, str], ...] = (),
        wait: bool = True,
    ) -> Answer:
        """`path` without its package, as "KV/Range". Waits for a connection, but with `wait` false. Raises
        grpc.RpcError."""
        with self._lock:
            method = self._channel.unary_unary(
                f"/etcdserverpb.{path}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=response.FromString,
            )
        try:
            answer: Answer = method(request, timeout=seconds, metadata=metadata, wait_for_ready=wait)
        except ValueError:  # the channel was closed by `reconnect` just now
            raise Disconnected from None
        return answer

    def stream(
        self,
        path: str,
        requests: Iterator[Message],
        response: type[Answer],
        seconds: float | None = None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> grpc.Call:
        """An open stream: iterate over its answers, `cancel` it."""
        with self._lock:
            method = self._channel.stream_stream(
                f"/etcdserverpb.{path}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=response.FromString,
            )
            return method(requests, timeout=seconds, metadata=metadata)

    # The few calls that many tests make

    def put(self, key: bytes, value: bytes, lease: int = 0, seconds: float = CALL_SECONDS) -> int:
        """Returns the revision."""
        request = PutRequest(key=key, value=value, lease=lease)
        return self.ask("KV/Put", request, PutResponse, seconds).header.revision

    def range(
        self, key: bytes, end: bytes = b"", *, serializable: bool = False, seconds: float = CALL_SECONDS
    ) -> RangeResponse:
        request = RangeRequest(key=key, range_end=end, serializable=serializable)
        return self.ask("KV/Range", request, RangeResponse, seconds)

    def get(self, key: bytes, *, serializable: bool = False, seconds: float = CALL_SECONDS) -> bytes | None:
        found = self.range(key, serializable=serializable, seconds=seconds).kvs
        return found[0].value if found else None

    def status(self, seconds: float = 2.0) -> StatusResponse:
        return self.ask("Maintenance/Status", StatusRequest(), StatusResponse, seconds)

    def hash_kv(self, revision: int) -> HashKVResponse:
        return self.ask("Maintenance/HashKV", HashKVRequest(revision=revision), HashKVResponse)

    def members(self, *, linearizable: bool = True) -> MemberListResponse:
        return self.ask(
            "Cluster/MemberList", MemberListRequest(linearizable=linearizable), MemberListResponse
        )

    def member_add(self, url: str, *, learner: bool = False) -> MemberAddResponse:
        request = MemberAddRequest(peerURLs=[url], isLearner=learner)
        return self.ask("Cluster/MemberAdd", request, MemberAddResponse, CHANGE_SECONDS)

    def member_remove(self, id: int) -> MemberRemoveResponse:
        return self.ask(
            "Cluster/MemberRemove", MemberRemoveRequest(ID=id), MemberRemoveResponse, CHANGE_SECONDS
        )

    def member_update(self, id: int, url: str) -> MemberUpdateResponse:
        request = MemberUpdateRequest(ID=id, peerURLs=[url])
        return self.ask("Cluster/MemberUpdate", request, MemberUpdateResponse, CHANGE_SECONDS)

    def member_promote(self, id: int) -> MemberPromoteResponse:
        return self.ask(
            "Cluster/MemberPromote", MemberPromoteRequest(ID=id), MemberPromoteResponse, CHANGE_SECONDS
        )

    def move_leader(self, id: int) -> MoveLeaderResponse:
        """To be asked of the leader."""
        return self.ask("Maintenance/MoveLeader", MoveLeaderRequest(targetID=id), MoveLeaderResponse)


class Disconnected(grpc.RpcError):  # type: ignore[misc]  # grpc has no types
    """Our own side closed the connection while a call was being made; nothing is known of the call."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        return "connection closed"
