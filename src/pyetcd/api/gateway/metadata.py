"""Which HTTP headers a call gets to see as metadata, and until when it may take: grpc-gateway's rules.

`Authorization` goes through as it is (it carries the token); `Grpc-Metadata-X` becomes `x`; headers that IANA
knows as permanent are there with `grpcgateway-` in front; others are not passed on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pyetcd._native import Meta
from pyetcd.api.gateway.decode import base64_of
from pyetcd.proto.errors import INVALID_ARGUMENT, EtcdError

PREFIX: Final = "grpc-metadata-"
_PERMANENT: Final = frozenset(
    (
        "accept",
        "accept-charset",
        "accept-language",
        "accept-ranges",
        "authorization",
        "cache-control",
        "content-type",
        "cookie",
        "date",
        "expect",
        "from",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-schedule-tag-match",
        "if-unmodified-since",
        "max-forwards",
        "origin",
        "pragma",
        "referer",
        "user-agent",
        "via",
        "warning",
    )
)
_NAME: Final = re.compile(r"[a-z0-9._-]+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*")
_TEXT: Final = re.compile(r"[\x20-\x7e]*")
_TIMEOUT: Final = re.compile(r"([-+]?[0-9]+)([HMSmun])")
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_INT64_MAX: Final = (1 << 63) - 1


def meta_of(headers: Sequence[tuple[str, str]], meta: Meta) -> Meta:
    """The metadata of the call that a request makes. `headers`: the request's, `meta`: what the wire knows
    of it. EtcdError for what no call can be made with."""
    timeout = None
    passed: list[tuple[str, str]] = []
    forwarded: list[str] = []
    forwarded_host = ""
    for name, value in headers:
        if name == "grpc-timeout" and timeout is None and value:
            timeout = _seconds(value)
        if name == "x-forwarded-for":
            forwarded.append(value)
        elif name == "x-forwarded-host":
            forwarded_host = forwarded_host or value
        elif name == "host":
            continue  # Go takes it out of the headers
        else:
            _pass(name, value, passed)
    host = forwarded_host or meta.authority
    if host:
        passed.append(("x-forwarded-host", host))
    if meta.peer != "@":
        forwarded.append(meta.peer.rpartition(":")[0].strip("[]"))
    if forwarded:
        passed.append(("x-forwarded-for", ", ".join(forwarded)))
    return Meta(
        peer=meta.peer,
        authority=meta.authority,
        headers=passed,
        timeout_seconds=timeout or None,  # Go takes 0 for none
        certificate_names=list(meta.certificate_names),
    )


def _pass(name: str, value: str, passed: list[tuple[str, str]]) -> None:
    if name == "authorization":
        passed.append((name, value))
    if name in _PERMANENT:
        key = "grpcgateway-" + name
    elif name.startswith(PREFIX):
        key = name[len(PREFIX) :]
    else:
        return
    if name.endswith("-bin"):
        decoded = base64_of(value)
        if decoded is None:
            shown = "-".join(part.capitalize() for part in name.split("-"))
            raise EtcdError(INVALID_ARGUMENT, f"invalid binary header {shown}: {_illegal(value)}")
        value = decoded.decode("latin-1")
    elif not _TEXT.fullmatch(value):
        return
    if _NAME.fullmatch(key) and "\n" not in value and "\r" not in value and "\0" not in value:
        passed.append((key, value))


def _illegal(text: str) -> str:
    """Where Go finds what is wrong with base64."""
    match = _BASE64.match(text)
    assert match is not None, "nothing is a match too"
    return f"illegal base64 data at input byte {match.end()}"


def _seconds(text: str) -> float:
    match = _TIMEOUT.fullmatch(text)
    if match is None or abs(int(match[1])) > _INT64_MAX:
        raise EtcdError(INVALID_ARGUMENT, f"invalid grpc-timeout: {text}")
    return int(match[1]) * _UNITS[match[2]]
