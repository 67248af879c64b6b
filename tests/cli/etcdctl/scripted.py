"""A server that answers what a test tells it to: what two clients ask, and make of an answer, is compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.protobuf.message import Message

HEALTH = "/grpc.health.v1.Health/Check"  # our client's question whether somebody is there; not an etcd matter


class Scripted(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """`answers` by the name of the method, as "MemberAdd". `asked` is what was asked, in order."""

    def __init__(self, answers: Mapping[str, Message]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, bytes]] = []
        self.endpoint = ""

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = call.method.rpartition("/")[2]
        if call.method == HEALTH or method not in self.answers:
            return None

        def answer(request: bytes, _: grpc.ServicerContext) -> bytes:
            self.asked.append((call.method, request))
            return self.answers[method].SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer)

    def take_asked(self) -> list[tuple[str, bytes]]:
        asked, self.asked = self.asked, []
        return asked


@contextmanager
def scripted(answers: Mapping[str, Message]) -> Iterator[Scripted]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    handler = Scripted(answers)
    server.add_generic_rpc_handlers((handler,))
    handler.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield handler
    finally:
        server.stop(None).wait()
