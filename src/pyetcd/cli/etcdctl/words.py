"""Lines that `txn` and interactive `watch` read, split into words as etcdctl splits them."""

from __future__ import annotations

import re

from pyetcd.cli import gotext
from pyetcd.cli.exits import INVALID_INPUT, Exit

_WORD = re.compile(r"""\"(?:[^"\\]|\\.)*"|'[^']*'|[^'"\s]\S*[^'"\s]?""", re.ASCII)


def split(line: str) -> list[str]:
    """Words, with `'single'` and `"double\\t"` quotes taken off; double ones may hold Go's escapes."""
    return [_plain(word) for word in _WORD.findall(line)]


def _plain(word: str) -> str:
    if word[0] == "'":
        return word[1:-1]
    if word[0] != '"':
        return word
    try:
        return gotext.unquote(word)[0]
    except gotext.GoValueError as error:
        raise Exit(INVALID_INPUT, str(error)) from None
