"""Log lines as etcdutl writes them: zap's console form on stderr, times to the second."""

from __future__ import annotations

import re

from pyetcd import logs
from pyetcd.logs.sinks import Writer

_STDERR = 2
# What `logs` puts first: 2026-11-25T23:23:21.004512Z, or +0200 in place of Z.
_STAMP = re.compile(rb"(\S{19})\.\d+(?:Z|([+-]\d\d)(\d\d))\t")


class _WholeSeconds(Writer):
    """RFC 3339 as etcdutl's encoder has it."""

    def write(self, level: int, line: bytes) -> None:
        match = _STAMP.match(line)
        if match is not None:
            zone = b"Z" if match[2] is None else match[2] + b":" + match[3]
            line = match[1] + zone + line[match.end() - 1 :]
        super().write(level, line)


def to_console() -> None:
    """From now on."""
    logs.setup("info", "console", [_WholeSeconds(_STDERR)])


def to_nowhere() -> None:
    """From now on."""
    logs.setup("info", "console", [])
