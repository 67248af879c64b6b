"""Raft's values as people read them in logs and transcripts, in etcd's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyetcd.raft import codec
from pyetcd.raft.changes import AnyConfChange, ConfChangeType
from pyetcd.raft.errors import InvalidMessage
from pyetcd.raft.types import (
    APPEND_THREAD,
    APPLY_THREAD,
    NONE,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    ReadState,
    Snapshot,
    SoftState,
)

Formatter = Callable[[bytes], str]

_LETTER = {
    ConfChangeType.ConfChangeAddNode: "v",
    ConfChangeType.ConfChangeAddLearnerNode: "l",
    ConfChangeType.ConfChangeRemoveNode: "r",
    ConfChangeType.ConfChangeUpdateNode: "u",
}
_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def quote(data: bytes) -> str:
    """`data` as a Go string literal."""
    parts = []
    for char in data.decode("utf-8", "surrogateescape"):
        code = ord(char)
        if char in _ESCAPES:
            parts.append(_ESCAPES[char])
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
            parts.append(f"\\x{code - 0xDC00:02x}")
        elif char.isprintable():
            parts.append(char)
        elif code < 0x80:
            parts.append(f"\\x{code:02x}")
        else:
            parts.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return f'"{"".join(parts)}"'


def describe_hard_state(state: HardState) -> str:
    vote = f" Vote:{state.vote}" if state.vote else ""
    return f"Term:{state.term}{vote} Commit:{state.commit}"


def describe_soft_state(state: SoftState) -> str:
    return f"Lead:{state.lead} State:{state.role.name}"


def describe_conf_state(state: ConfState) -> str:
    def ids(values: Sequence[int]) -> str:
        return f"[{' '.join(map(str, values))}]"

    return (
        f"Voters:{ids(state.voters)} VotersOutgoing:{ids(state.voters_outgoing)} "
        f"Learners:{ids(state.learners)} "
        f"LearnersNext:{ids(state.learners_next)} AutoLeave:{str(state.auto_leave).lower()}"
    )


def describe_snapshot(snapshot: Snapshot) -> str:
    members = describe_conf_state(snapshot.metadata.conf_state)
    return f"Index:{snapshot.index} Term:{snapshot.term} ConfState:{members}"


def describe_read_states(states: Sequence[ReadState]) -> str:
    shown = (f"{{{s.index} [{' '.join(map(str, s.context))}]}}" for s in states)
    return f"[{' '.join(shown)}]"


def describe_changes(change: AnyConfChange) -> str:
    """Short: `v1 l2 r3`."""
    return " ".join(f"{_LETTER[c.type]}{c.node_id}" for c in change.as_v2().changes)


def describe_conf_change(change: AnyConfChange) -> str:
    """Long, as in the log line that refuses it."""
    v2 = change.as_v2()
    text = f"transition:{v2.transition.name}"
    for single in v2.changes:
        text += f" changes:{{type:{single.type.name} node_id:{single.node_id}}}"
    return f"{text} context:{quote(v2.context)}" if v2.context else text


def describe_entry(entry: Entry, formatter: Formatter = quote) -> str:
    if entry.type == EntryType.EntryNormal:
        shown = formatter(entry.data)
    else:
        try:
            shown = describe_changes(codec.conf_change_of(entry))
        except InvalidMessage as error:
            shown = str(error)
    head = f"{entry.term}/{entry.index} {EntryType(entry.type).name}"
    return f"{head} {shown}" if shown else head


def describe_entries(entries: Sequence[Entry], formatter: Formatter = quote) -> str:
    """One line each, ended by a newline."""
    return "".join(f"{describe_entry(e, formatter)}\n" for e in entries)


def describe_target(id: int) -> str:
    names = {NONE: "None", APPEND_THREAD: "AppendThread", APPLY_THREAD: "ApplyThread"}
    return names.get(id, f"{id:x}")


def describe_message(message: Message, formatter: Formatter = quote, indent: str = "") -> str:
    parts = [
        f"{indent}{describe_target(message.from_)}->{describe_target(message.to)} {message.type.name} "
        f"Term:{message.term} Log:{message.log_term}/{message.index}"
    ]
    if message.reject:
        parts.append(f" Rejected (Hint: {message.reject_hint})")
    if message.commit:
        parts.append(f" Commit:{message.commit}")
    if message.vote:
        parts.append(f" Vote:{message.vote}")
    if len(message.entries) == 1:
        parts.append(f" Entries:[{describe_entry(message.entries[0], formatter)}]")
    elif message.entries:
        lines = "".join(f"\n{indent}  {describe_entry(e, formatter)}" for e in message.entries)
        parts.append(f" Entries:[{lines}\n{indent}]")
    if message.snapshot is not None and message.snapshot.index:
        parts.append(f"\n{indent}  Snapshot: {describe_snapshot(message.snapshot)}")
    if message.responses:
        lines = "".join("\n" + describe_message(r, formatter, indent + "  ") for r in message.responses)
        parts.append(f" Responses:[{lines}\n{indent}]")
    return "".join(parts)
