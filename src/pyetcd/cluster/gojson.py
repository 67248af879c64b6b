"""JSON as Go's encoding/json writes it, byte for byte.

Membership is stored and hashed as the JSON text etcd would have written, so the text is part of the format:
no spaces, fields in declaration order, `<`, `>`, `&` and the two Unicode line separators escaped,
everything else in UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

_ESCAPED = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


def string(text: str) -> str:
    """A JSON string."""
    return json.dumps(text, ensure_ascii=False).translate(_ESCAPED)


def strings(texts: Iterable[str]) -> str:
    """An array of strings."""
    return "[" + ",".join(map(string, texts)) + "]"


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """An object of `(name, encoded value)` pairs, in their order."""
    return "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}"
