"""Messages from outside that no correct member sends are refused before they can change anything.

etcd's raft trusts its peers: a heartbeat that commits more than there is, a proposal without entries or a
membership change that cannot be read stop the process, some of them at every start from then on. Here each
is an `InvalidMessage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyetcd.raft import codec, confchange
from pyetcd.raft.core import Raft
from pyetcd.raft.errors import InvalidConfChange, InvalidMessage, LocalMessage, PeerNotFound
from pyetcd.raft.tracker import Tracker
from pyetcd.raft.types import (
    APPEND_THREAD,
    APPLY_THREAD,
    NONE,
    Entry,
    EntryType,
    Message,
    MessageType,
    Role,
)

_M: Final = MessageType
_LOCAL: Final = frozenset(
    (
        _M.MsgHup,
        _M.MsgBeat,
        _M.MsgUnreachable,
        _M.MsgSnapStatus,
        _M.MsgCheckQuorum,
        _M.MsgStorageAppend,
        _M.MsgStorageAppendResp,
        _M.MsgStorageApply,
        _M.MsgStorageApplyResp,
    )
)
_RESPONSES: Final = frozenset(
    (
        _M.MsgAppResp,
        _M.MsgVoteResp,
        _M.MsgHeartbeatResp,
        _M.MsgUnreachable,
        _M.MsgReadIndexResp,
        _M.MsgPreVoteResp,
        _M.MsgStorageAppendResp,
        _M.MsgStorageApplyResp,
    )
)
TERM_LEAP_MAX: Final = 1 << 48  # an election a millisecond takes 8,900 years to get so far
_WITHOUT_TERM: Final = frozenset((_M.MsgProp, _M.MsgReadIndex, _M.MsgTransferLeader, _M.MsgForgetLeader))


def check(raft: Raft, message: Message) -> None:
    """Raises InvalidMessage, or LocalMessage and PeerNotFound, which are such."""
    type = message.type
    if type in _LOCAL:
        raise LocalMessage
    if type in _RESPONSES and message.from_ not in raft.tracker.progress:
        raise PeerNotFound
    if type not in _WITHOUT_TERM:
        if not message.term:
            raise InvalidMessage(f"{type.name} without a term")
        if message.term > raft.term + TERM_LEAP_MAX:  # after the last term there is no election
            raise InvalidMessage(f"{type.name} of term {message.term}, ours is {raft.term}")
        if message.from_ in (
            NONE,
            APPEND_THREAD,
            APPLY_THREAD,
            raft.id,
        ):  # what we tell ourselves never leaves `Node.stable`
            raise InvalidMessage(f"{type.name} from {message.from_:x}, which sends none")
    if type is _M.MsgApp:
        _check_append(message)
    elif type is _M.MsgHeartbeat:
        _check_heartbeat(raft, message)
    elif type is _M.MsgSnap:
        _check_snapshot(raft, message)
    elif type is _M.MsgProp:
        _check_proposal(message.entries)
    elif type is _M.MsgReadIndex:
        if len(message.entries) != 1:
            raise InvalidMessage(f"MsgReadIndex with {len(message.entries)} contexts")
    elif type is _M.MsgAppResp:
        _check_append_response(raft, message)
    elif type is _M.MsgHeartbeatResp and message.context and len(message.context) != 8:
        raise InvalidMessage("MsgHeartbeatResp with a context that is not ours")


def _check_append(message: Message) -> None:
    """Entries follow on one another, and terms never fall (Raft paper, figure 3, log matching)."""
    index, term = message.index, message.log_term
    for entry in message.entries:
        index += 1
        if entry.index != index or not term <= entry.term <= message.term:
            raise InvalidMessage(f"MsgApp with entry {entry.term}/{entry.index} after {term}/{index - 1}")
        term = entry.term


def _check_append_response(raft: Raft, message: Message) -> None:
    """Nobody has more of a leader's log than there is."""
    leading = raft.role is Role.StateLeader and message.term == raft.term
    if leading and not message.reject and message.index > raft.log.last_index():
        raise InvalidMessage(f"MsgAppResp for {message.index} of {raft.log.last_index()} entries")


def _check_snapshot(raft: Raft, message: Message) -> None:
    """There is one, of a term there has been, and its configuration is one."""
    snapshot = message.snapshot
    if snapshot is None or not snapshot.index:
        raise InvalidMessage("MsgSnap without a snapshot")
    if not 0 < snapshot.term <= message.term:
        raise InvalidMessage(f"MsgSnap of term {message.term} with a snapshot of term {snapshot.term}")
    state = snapshot.metadata.conf_state
    empty = Tracker(raft.tracker.max_inflight, raft.tracker.max_inflight_bytes)
    try:
        config, _ = confchange.restore(empty, snapshot.index, state)
    except InvalidConfChange as error:
        raise InvalidMessage(f"MsgSnap with a configuration that cannot be: {error}") from None
    if not state.equivalent(config.conf_state()):
        raise InvalidMessage("MsgSnap with a configuration that contradicts itself")


def _check_heartbeat(raft: Raft, message: Message) -> None:
    """A leader tells us to commit what we have acknowledged. If we have not got it, it is no leader of
    ours, or our log was lost, and we must not go on as if it had not been.
    """
    if message.term >= raft.term and message.commit > raft.log.last_index():
        raise InvalidMessage(
            f"tocommit({message.commit}) is out of range [lastIndex({raft.log.last_index()})]. "
            "Was the raft log corrupted, truncated, or lost?"
        )


def _check_proposal(entries: Sequence[Entry]) -> None:
    if not entries:
        raise InvalidMessage("MsgProp without entries")
    for entry in entries:
        if entry.type != EntryType.EntryNormal:
            codec.conf_change_of(entry)
