"""A request that is answered with one message."""

from __future__ import annotations

from pyetcd._native import UNARY, Meta
from pyetcd.api.gateway.encode import json_of
from pyetcd.api.gateway.exchanges import FROM_GRPC, JSON, Exchange, Parts, first_message, joined
from pyetcd.api.gateway.paths import Rpc
from pyetcd.api.http_reply import Headers
from pyetcd.api.local_calls import Body
from pyetcd.proto.errors import EtcdError


class Unary(Exchange):
    """Begins when it is made."""

    def __init__(self, parts: Parts, http: int, rpc: Rpc, meta: Meta, headers: Headers, body: bytes) -> None:
        super().__init__(parts, http, rpc, meta, headers)
        self._run(first_message(rpc.request, body, parts.message_bytes_max), self._ask)

    def _ask(self, payload: bytes) -> None:
        self._open_call()
        self._tell(UNARY, payload)

    def replied(self, body: Body) -> None:
        self._call = 0
        self._run(json_of(self._rpc.response, joined(body)), self._answer)

    def _answer(self, pieces: list[bytes]) -> None:
        self._let_go()
        self._parts.server.http_reply(self._http, 200, (*self._headers, *FROM_GRPC, *JSON), pieces)

    def ended(self, code: int, message: str) -> None:
        self._call = 0
        self.refuse(EtcdError(code, message))

    def on_writable(self) -> None:
        raise AssertionError("the answer is sent as a whole")

    def sent(self, body: Body) -> int:
        raise AssertionError("a unary call sends nothing before its answer")
