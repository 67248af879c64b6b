"""`GODEBUG=http2debug=2`: by what name (`:authority`) each call addresses the member, as a line of Go's.

For those who look for a wrong name in a client, a proxy or a certificate. What else Go writes under this
variable, about frames and other headers, is not written: it would tell tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from pyetcd._native import Meta
from pyetcd.api.dispatch import Admit, OpenStream, Stream
from pyetcd.logs.gotext import quote

VARIABLE: Final = "GODEBUG"
SETTING: Final = "http2debug=2"


def is_asked_for(environment: Mapping[str, str]) -> bool:
    return SETTING in environment.get(VARIABLE, "").split(",")


class Authorities:
    """Notes calls on their way in. `write` takes a line."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def _note(self, meta: Meta) -> None:
        when = time.strftime("%Y/%m/%d %H:%M:%S")
        name = quote(meta.authority)
        self._write(f'{when} http2: decoded hpack field header field ":authority" = {name}\n')

    def admission(self, others: Callable[[], Admit | None]) -> Callable[[], Admit | None]:
        """What unary calls must pass: this, and then what they must pass anyway."""

        def noted(method: str, payload: bytes, meta: Meta) -> None:
            self._note(meta)
            admit = others()
            if admit is not None:
                admit(method, payload, meta)

        return lambda: noted

    def streams(self, openers: Mapping[str, OpenStream]) -> dict[str, OpenStream]:
        return {path: self._noted(opener) for path, opener in openers.items()}

    def _noted(self, opener: OpenStream) -> OpenStream:
        def opened(call: int, meta: Meta) -> Stream:
            self._note(meta)
            return opener(call, meta)

        return opened
