"""The two kinds of streams between members."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class StreamKind:
    """`text` is how log lines call it, `path` the path under which it is asked for (our ID follows), `picked`
    how it is called as a way for a message."""

    text: str
    path: str
    picked: str


MSGAPP: Final = StreamKind("stream MsgApp v2", "/raft/stream/msgapp", "streamMsgAppV2")
MESSAGE: Final = StreamKind("stream Message", "/raft/stream/message", "streamMsg")
