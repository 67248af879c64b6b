"""Errors as the gateway tells of them: google.rpc.Status in JSON, and the HTTP status that goes with it."""

from __future__ import annotations

from typing import Final

from pyetcd.api.gateway.encode import string
from pyetcd.proto.errors import INVALID_ARGUMENT, NOT_FOUND, UNIMPLEMENTED, EtcdError

_HTTP: Final = (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)

BAD_REQUEST: Final = EtcdError(INVALID_ARGUMENT, "Bad Request")
NO_SUCH_PATH: Final = EtcdError(NOT_FOUND, "Not Found")
NO_SUCH_METHOD: Final = EtcdError(UNIMPLEMENTED, "Method Not Allowed")


def http_status(code: int) -> int:
    """The HTTP status of a gRPC code."""
    return _HTTP[code] if 0 <= code < len(_HTTP) else 500


def status_json(code: int, message: str, *, html: bool = False) -> bytes:
    """`html`: as for `encode.json_of`."""
    fields = []
    if code:
        fields.append(b'"code":%d' % code)
    if message:
        fields.append(b'"message":' + string(message.encode(), html))
    return b"{" + b",".join(fields) + b"}"
