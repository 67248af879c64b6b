"""`--auth-token`: which tokens there are. The text is a kind and its options, separated by commas."""

from __future__ import annotations

import random
from collections.abc import Callable

from pyetcd import logs
from pyetcd.auth.signed_tokens import INVALID_OPTIONS, signed_tokens
from pyetcd.auth.simple_tokens import SimpleTokens
from pyetcd.auth.tokens import BadTokenOptions, NoTokens, Tokens

_log = logs.get("auth")


def make_tokens(
    text: str,
    ttl_seconds: float,
    clock: Callable[[], float],
    unix: Callable[[], float],
    chance: random.Random,
    read: Callable[[str], bytes],
) -> Tokens:
    """BadTokenOptions. `ttl_seconds`: of simple tokens; `chance`: one that cannot be guessed."""
    kind, *pairs = text.split(",")
    options: dict[str, str] = {}
    for pair in pairs:
        name, *values = pair.split("=")
        if len(values) != 1 or name in options:
            _log.error("invalid token option")
            raise BadTokenOptions(INVALID_OPTIONS)
        options[name] = values[0]
    if kind == "simple":
        _log.warn("simple token is not cryptographically signed")
        return SimpleTokens(clock, chance, ttl_seconds)
    if kind == "jwt":
        return signed_tokens(options, read, unix)
    if kind == "":
        return NoTokens()
    _log.warn("unknown token type", {"type": kind, "error": INVALID_OPTIONS})
    raise BadTokenOptions(INVALID_OPTIONS)
