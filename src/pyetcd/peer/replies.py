"""Answers to other members over HTTP, in the forms of Go's `http.Error` and etcd's `HTTPError`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pyetcd.cluster import gojson
from pyetcd.peer.seams import Refused

if TYPE_CHECKING:
    from pyetcd._native import Server

Headers = Sequence[tuple[str, str]]

TEXT: Final[Headers] = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
)
JSON: Final[Headers] = (("Content-Type", "application/json"),)


def error(server: Server, call: int, status: int, text: str, headers: Headers = ()) -> None:
    """A text for people; a newline follows it."""
    server.http_reply(call, status, (*headers, *TEXT), text.encode("utf-8", "replace") + b"\n")


def not_allowed(server: Server, call: int, allowed: str) -> None:
    error(server, call, 405, "Method Not Allowed", (("Allow", allowed),))


def not_found(server: Server, call: int) -> None:
    error(server, call, 404, "404 page not found")


def refused(server: Server, call: int, why: Refused, headers: Headers = ()) -> None:
    """What the member has refused."""
    server.http_reply(call, why.status, (*headers, *JSON), refusal_body(why))


def refusal_body(why: Refused) -> bytes:
    return f'{{"message":{gojson.string(why.text)}}}'.encode()
