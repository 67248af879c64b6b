"""Streams of answers to one request, with clientv3's rule: tried again only while nothing has come."""

from __future__ import annotations

from pyetcd._native import RpcError
from pyetcd.cli.etcdctl.client import (
    DEADLINE_EXCEEDED,
    NOT_CONNECTED,
    REDIAL_SECONDS,
    UNAVAILABLE,
    CallError,
)
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.proto import lite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyetcd.cli.etcdctl.client import Client, Deadline
    from pyetcd.cli.etcdctl.session import Session


def receive_all(
    session: Session, path: str, request: lite.Message, answer_type: str
) -> Iterator[lite.Message]:
    """Send the request, give every answer. Exit when the stream ends badly."""
    try:
        for message in messages(session.client, path, request, session.deadline):
            yield lite.decode(answer_type, message)
    except CallError as error:
        raise Exit(ERROR, str(error)) from None


def messages(client: Client, path: str, request: lite.Message, deadline: Deadline) -> Iterator[bytes]:
    """Send the request, give every answer as it came. CallError when the stream ends badly."""
    payload = request.encode()
    received = False
    while True:
        try:
            stream = client.stream(path, deadline)
            stream.send(payload)
            stream.half_close()
            while True:
                message = stream.recv()
                if message is None:
                    return
                received = True
                yield message
        except RpcError as error:
            failure = CallError(error.code, error.message)
        except CallError as error:
            failure = error
        if failure.code == DEADLINE_EXCEEDED and deadline.passed():
            raise CallError(DEADLINE_EXCEEDED, "context deadline exceeded")
        unreached = failure.code == UNAVAILABLE and failure.message.startswith(NOT_CONNECTED)
        if received or not unreached:
            raise failure
        client.next_endpoint()
        deadline.sleep(REDIAL_SECONDS[0])
        if deadline.passed():
            raise CallError(DEADLINE_EXCEEDED, "context deadline exceeded")
