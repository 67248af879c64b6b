"""What a request under `/v3/` gets: an RPC by its path, or one of the gateway's own errors."""

from __future__ import annotations

from pyetcd._native import HttpRequest, Meta
from pyetcd.api.gateway import handshake
from pyetcd.api.gateway.exchanges import Parts, send_error
from pyetcd.api.gateway.handshake import header
from pyetcd.api.gateway.metadata import meta_of
from pyetcd.api.gateway.paths import rpcs
from pyetcd.api.gateway.status import NO_SUCH_METHOD, NO_SUCH_PATH
from pyetcd.api.gateway.streams import StreamOfMany, StreamOfOne
from pyetcd.api.gateway.unary import Unary
from pyetcd.api.http_reply import Headers
from pyetcd.proto.errors import EtcdError

_FORM = "application/x-www-form-urlencoded"


class Gateway:
    """Serves the paths."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rpcs = rpcs()

    def handle(self, call: int, request: HttpRequest, meta: Meta, path: str, headers: Headers) -> None:
        """`path`: of the request, unescaped; `headers`: what every answer of this port carries."""
        if handshake.is_upgrade(request):
            self._open_socket(call, request, meta, path, headers)
            return
        method, body = request.method, request.body
        override = header(request, "x-http-method-override")
        if override and method == "POST" and header(request, "content-type") == _FORM:
            method, body = override.upper(), b""  # the form has been read for it
        rpc = self._rpcs.get(path)
        if rpc is None or method != "POST":
            error = NO_SUCH_PATH if rpc is None else NO_SUCH_METHOD
            send_error(self._parts.server, call, error, headers)
            return
        try:
            passed = meta_of(request.headers, meta)
        except EtcdError as error:
            send_error(self._parts.server, call, error, headers)
            return
        if rpc.takes_several:
            StreamOfMany(self._parts, call, rpc, passed, headers, body)
        elif rpc.gives_several:
            StreamOfOne(self._parts, call, rpc, passed, headers, body)
        else:
            Unary(self._parts, call, rpc, passed, headers, body)

    def _open_socket(self, call: int, request: HttpRequest, meta: Meta, path: str, headers: Headers) -> None:
        from pyetcd.api.gateway import websocket  # 30 ms of imports that few need

        reply = handshake.refusal(request)
        if reply is not None:
            self._parts.server.http_reply(call, reply.status, (*headers, *reply.headers), reply.body)
            return
        rpc = self._rpcs.get(path)
        try:
            if rpc is None:
                raise NO_SUCH_PATH
            passed = meta_of(handshake.passed_headers(request), meta)
        except EtcdError as error:
            websocket.refuse_path(self._parts, call, request, error)
            return
        websocket.WebSocket(self._parts, call, rpc, passed, request)
