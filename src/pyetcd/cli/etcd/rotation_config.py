"""`--log-rotation-config-json`, read as Go's JSON decoder reads it: keys in any case, null for what is not
given, and its words for what does not fit. JSON that sets nothing, of which etcd dies, is the
defaults."""

from __future__ import annotations

import json
from typing import Final

from pyetcd.logs.files import Rotation
from pyetcd.member.config_check import ConfigError

_STRUCT: Final = "logRotationConfig"
_KEYS: Final = {
    "filename": "string",
    "maxsize": "int",
    "maxage": "int",
    "maxbackups": "int",
    "localtime": "bool",
    "compress": "bool",
}
_INT_MAX: Final = 2**63 - 1
_MAX_MEGABYTES: Final = 100
# What Python's decoder says of a place, and what Go's says of the character there.
_PLACES: Final = (
    ("Extra data", "after top-level value"),
    ("Expecting property name", "looking for beginning of object key string"),
    ("Illegal trailing comma", "looking for beginning of object key string"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("Invalid control", "in string literal"),
    ("Invalid \\", "in string escape code"),
)


class _Fraction(str):
    """A number with a point or an exponent, as it was written."""

    __slots__ = ()


def rotation_of(text: str) -> Rotation:
    """ConfigError with etcd's words."""
    try:
        document: object = json.loads(text, parse_float=_Fraction, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(f"improperly formatted log rotation config: {_syntax(text, error)}") from None
    given: dict[str, object] = {}
    if document is not None:
        if not isinstance(document, dict):
            raise _misfit(_kind(document), "value", f"embed.{_STRUCT}")
        for key, value in document.items():
            name = str(key).lower()
            if name in _KEYS and value is not None:
                given[name] = _fit(value, name)
    size, age, backups = (given.get(name, 0) for name in ("maxsize", "maxage", "maxbackups"))
    assert isinstance(size, int)
    assert isinstance(age, int)
    assert isinstance(backups, int)
    return Rotation(
        max_megabytes=size or _MAX_MEGABYTES,
        max_age_days=age,
        max_backups=backups,
        local_time=given.get("localtime", False) is True,
        compress=given.get("compress", False) is True,
    )


def _fit(value: object, name: str) -> object:
    kind, wanted = _kind(value), _KEYS[name]
    if kind == {"int": "number", "bool": "bool", "string": "string"}[wanted]:
        if wanted != "int" or (isinstance(value, int) and -_INT_MAX <= value + 1 <= _INT_MAX + 1):
            return value
        kind = f"number {value}"
    raise _misfit(kind, f"struct field {_STRUCT}.Logger.{name}", wanted)


def _misfit(kind: str, into: str, wanted: str) -> ConfigError:
    return ConfigError(
        f"invalid log rotation config: json: cannot unmarshal {kind} into Go {into} of type {wanted}"
    )


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | _Fraction):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def _no_constant(name: str) -> object:
    """Python's decoder knows NaN and Infinity."""
    raise json.JSONDecodeError("Expecting value", name, 0)


def _syntax(text: str, error: json.JSONDecodeError) -> str:
    if error.msg.startswith("Unterminated") or not error.doc[error.pos :].strip():
        return "unexpected end of JSON input"
    known = (where for said, where in _PLACES if error.msg.startswith(said))
    place = next(known, "looking for beginning of value")
    found = error.doc[error.pos :].lstrip(" \t\r\n")[:1]
    shown = {"'": "'\\''", '"': "'\"'"}.get(found, "'" + json.dumps(found)[1:-1] + "'")
    return f"invalid character {shown} {place}"
