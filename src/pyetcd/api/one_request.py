"""Streams on which the client sends one request and then closes its side: server-streaming calls of gRPC.

The request is answered when both are there, and a client that breaks the rule is told so in grpc-go's words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from pyetcd.proto.errors import INTERNAL, EtcdError

NONE = "cardinality violation: received no request message from non-client-streaming RPC"
SEVERAL = "cardinality violation: received multiple request messages for non-client-streaming RPC"

Request = TypeVar("Request")


class OneRequest(ABC, Generic[Request]):
    """The client's half of such a stream."""

    _request: Request | None = None

    @abstractmethod
    def parse(self, payload: bytes) -> Request:
        """Raises DecodeError."""

    @abstractmethod
    def begin(self, request: Request) -> None:
        """Answer it. Called once; raises what refuses it."""

    def on_message(self, payload: bytes) -> None:
        request = self.parse(payload)
        if self._request is not None:
            raise EtcdError(INTERNAL, SEVERAL)
        self._request = request

    def on_half_close(self) -> None:
        if self._request is None:
            raise EtcdError(INTERNAL, NONE)
        self.begin(self._request)
