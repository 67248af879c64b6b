"""The form of a signed token (RFC 7515, RFC 7519): header, claims and signature, each in base64url, joined by
dots.

Which tokens are good has to be the same on every member of a cluster, real etcd among them, so they are read
as Go's library (golang-jwt 5) reads them, where Python's reads more or less: no padding, no characters beside
the alphabet, whatever stands in the header beside `alg`, a time of 0 that is none, times that are numbers.
The texts of WrongToken are that library's.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from pyetcd.auth.signing import METHODS, Signer

MALFORMED: Final = "token is malformed"
UNVERIFIABLE: Final = "token is unverifiable"
NO_METHOD: Final = "none"  # one that the library knows, and etcd never takes
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]*")


class WrongToken(Exception):
    """Why this is no token of ours."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says; `expires`: seconds since 1970, None: never."""

    fields: Mapping[str, object]
    expires: float | None


def encoded(method: str, claims: Mapping[str, object], signer: Signer) -> str:
    """CannotSign."""
    parts = [_pack(_text(part)) for part in ({"alg": method, "typ": "JWT"}, claims)]
    signature = signer.sign(".".join(parts).encode())
    return ".".join([*parts, _pack(signature)])


def decoded(token: str, method: str, signer: Signer, now: float) -> Claims:
    """`now`: seconds since 1970. WrongToken."""
    parts = token.split(".")
    if len(parts) != 3:
        raise WrongToken(f"{MALFORMED}: token contains an invalid number of segments")
    header = _object(parts[0], "header")
    fields = _object(parts[1], "claim")
    _check_method(header.get("alg"), method)
    signature = _unpack(parts[2], "signature")
    if not signer.verify(f"{parts[0]}.{parts[1]}".encode(), signature):
        raise WrongToken(f"token signature is invalid: {signer.mismatch}")
    return Claims(fields, _checked_times(fields, now))


def _check_method(named: object, method: str) -> None:
    if named == method:
        return
    if not isinstance(named, str):
        why = "signing method (alg) is unspecified"
    elif named in METHODS or named == NO_METHOD:
        why = "error while executing keyfunc: invalid signing method"
    else:
        why = "signing method (alg) is unavailable"
    raise WrongToken(f"{UNVERIFIABLE}: {why}")


def _checked_times(fields: Mapping[str, object], now: float) -> float | None:
    """The end; times count in whole seconds."""
    wrong = []
    expires = starts = None
    try:
        expires = _time(fields, "exp")
        if expires is not None and now >= expires:
            wrong.append("token is expired")
    except WrongToken as error:
        wrong.append(str(error))
    try:
        starts = _time(fields, "nbf")
        if starts is not None and now < starts:
            wrong.append("token is not valid yet")
    except WrongToken as error:
        wrong.append(str(error))
    if wrong:
        raise WrongToken(f"token has invalid claims: {', '.join(wrong)}")
    return expires


def _time(fields: Mapping[str, object], name: str) -> float | None:
    if name not in fields:
        return None
    value = fields[name]
    if not isinstance(value, float):
        raise WrongToken(f"invalid type for claim: {name} is invalid")
    return math.floor(value) if value else None


def _object(part: str, name: str) -> Mapping[str, object]:
    text = _unpack(part, name).decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_refuse)
        if value is not None and not isinstance(value, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise WrongToken(f"{MALFORMED}: could not JSON decode {name}: {error}") from None
    return value or {}


def _number(text: str) -> float:
    """Every number is a float64, as in Go."""
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is no float64")
    return value


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _unpack(part: str, name: str) -> bytes:
    known = _BASE64URL.match(part)
    wrong_at = known.end() if known is not None else 0
    if wrong_at == len(part) and len(part) % 4 == 1:
        wrong_at -= 1
    if wrong_at != len(part):
        raise WrongToken(
            f"{MALFORMED}: could not base64 decode {name}: illegal base64 data at input byte {wrong_at}"
        )
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _pack(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _text(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
