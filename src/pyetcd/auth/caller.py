"""Who asks: what a request's token or certificate says, and what travels with it in the log.

An entry's header carries the name and the auth revision (fields 2 and 3 of RequestHeader), so that every
member judges the same caller.
"""

from __future__ import annotations

from typing import Final

from pyetcd.proto.splice import field_bytes, field_varint


class Caller:
    """A user's name, and the auth revision at which it was found out. `encoded`: both, as in an entry's
    header."""

    __slots__ = ("encoded", "name", "revision")

    def __init__(self, name: str, revision: int) -> None:
        self.name = name
        self.revision = revision
        encoded = field_bytes(2, name.encode()) if name else b""
        self.encoded = encoded + field_varint(3, revision) if revision else encoded


NOBODY: Final = Caller("", 0)
"""Neither token nor certificate came with the request."""
