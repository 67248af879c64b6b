"""How a request becomes a websocket, as etcd's proxy in front of the gateway has it (grpc-websocket-proxy).

Browsers cannot set headers on a websocket, so the token may stand in `Sec-WebSocket-Protocol: Bearer,
<token>` or in a cookie named `token`; both become `Authorization: Bearer <token>`. Of the other headers only
Origin and Referer go through.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from pyetcd._native import HttpRequest
from pyetcd.api.http_reply import TEXT, Headers, Reply

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_KEY_BYTES: Final = 16
_VERSION: Final[Headers] = (("Sec-Websocket-Version", "13"),)
_PASSED: Final = ("origin", "referer")


def is_upgrade(request: HttpRequest) -> bool:
    """Whether the client wants a websocket."""
    return _has_token(request, "connection", "upgrade") and _has_token(request, "upgrade", "websocket")


def refusal(request: HttpRequest) -> Reply | None:
    """What a handshake that breaks the rules gets."""
    if request.method != "GET":
        return Reply(405, (*_VERSION, *TEXT), b"Method Not Allowed\n")
    if not _has_token(request, "sec-websocket-version", "13") or not _is_key(header(request, _KEY)):
        return Reply(400, (*_VERSION, *TEXT), b"Bad Request\n")
    return None


def acceptance(request: HttpRequest) -> Headers:
    """The headers that accept it."""
    digest = hashlib.sha1(header(request, _KEY).encode("latin-1") + _GUID, usedforsecurity=False).digest()
    headers = (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", base64.b64encode(digest).decode()),
    )
    if header(request, _PROTOCOL).startswith("Bearer"):
        return (*headers, ("Sec-WebSocket-Protocol", "Bearer"))
    return headers


def passed_headers(request: HttpRequest) -> list[tuple[str, str]]:
    """The headers of the request that the gateway gets to see."""
    headers = [(name, header(request, name)) for name in _PASSED if header(request, name)]
    protocol = header(request, _PROTOCOL)
    token = _cookie(request, "token")
    if token is not None:
        headers.append(("authorization", f"Bearer {token}"))
    elif protocol:
        _, bearer, rest = protocol.partition("Bearer,")
        headers.append(("authorization", f"Bearer {rest.strip(' ')}" if bearer else ""))
    return headers


def header(request: HttpRequest, name: str) -> str:
    """The first value of a header; empty for none."""
    for key, value in request.headers:
        if key == name:
            return value
    return ""


_KEY: Final = "sec-websocket-key"
_PROTOCOL: Final = "sec-websocket-protocol"


def _has_token(request: HttpRequest, name: str, token: str) -> bool:
    values = (value for key, value in request.headers if key == name)
    return any(token == each.strip(" \t").lower() for value in values for each in value.split(","))


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == _KEY_BYTES
    except (binascii.Error, ValueError):
        return False


def _cookie(request: HttpRequest, wanted: str) -> str | None:
    for key, value in request.headers:
        if key == "cookie":
            for part in value.split(";"):
                name, equals, content = part.strip(" \t").partition("=")
                if equals and name == wanted:
                    return content.removeprefix('"').removesuffix('"')
    return None
