"""A plain HTTP answer as a value, and the few that are the same everywhere. Forms are Go's `http.Error`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

Body = bytes | Sequence[bytes]

Headers = tuple[tuple[str, str], ...]
PLAIN: Final[Headers] = (("Content-Type", "text/plain; charset=utf-8"),)
TEXT: Final[Headers] = (
    ("Content-Type", "text/plain; charset=utf-8"),
    ("X-Content-Type-Options", "nosniff"),
)


class Replier(Protocol):
    """What is needed of the wire's server."""

    def http_reply(
        self, call: int, status: int, headers: Sequence[tuple[str, str]], body: Body, end: bool = True
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers beside those of the wire (Date, Content-Length), body."""

    status: int
    headers: Headers
    body: bytes

    @classmethod
    def error(cls, status: int, text: str) -> Reply:
        """A text for people; a newline follows it."""
        return cls(status, TEXT, text.encode() + b"\n")


NOT_FOUND: Final = Reply.error(404, "404 page not found")
NOT_ALLOWED: Final = Reply(405, (("Allow", "GET"), *TEXT), b"Method Not Allowed\n")
