"""Which function gets which message: one row for each role.

First the term is looked at, the same way for every role. A message of a later term makes us a follower of
it (unless it only asks whether there could be one); of an earlier term, it is ignored, or answered so that
its sender learns of ours. What is left belongs to our term, or comes from ourselves (term 0), and goes
where the table says. A type that is not in a role's row is ignored by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pyetcd.raft import election, follower, leader
from pyetcd.raft.core import Raft
from pyetcd.raft.errors import RaftError
from pyetcd.raft.leader import Handler, about_follower
from pyetcd.raft.replication import applied_payload
from pyetcd.raft.roles import become_follower
from pyetcd.raft.types import (
    NONE,
    Entry,
    EntryType,
    Message,
    MessageType,
    Role,
    Snapshot,
)

M: Final = MessageType


def step(raft: Raft, message: Message) -> None:
    """Take one message. Raises ProposalDropped for a proposal nobody takes."""
    term = message.term
    if term:
        if term > raft.term:
            if not _enter_higher_term(raft, message):
                return
        elif term < raft.term:
            _answer_lower_term(raft, message)
            return
    TABLE[raft.role][message.type](raft, message)


def tick(raft: Raft) -> None:
    """Time has passed."""
    if raft.role is Role.StateLeader:
        _tick_leader(raft)
    else:
        raft.election_elapsed += 1
        if raft.promotable() and raft.election_elapsed >= raft.randomized_timeout:
            raft.election_elapsed = 0
            step(raft, Message(M.MsgHup, from_=raft.id))


def _tick_leader(raft: Raft) -> None:
    raft.heartbeat_elapsed += 1
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.election_timeout:
        raft.election_elapsed = 0
        if raft.check_quorum:
            step(raft, Message(M.MsgCheckQuorum, from_=raft.id))
        raft.transferee = NONE  # a transfer that took so long has failed: take proposals again
    if raft.role is Role.StateLeader and raft.heartbeat_elapsed >= raft.heartbeat_timeout:
        raft.heartbeat_elapsed = 0
        step(raft, Message(M.MsgBeat, from_=raft.id))


# Terms


def _enter_higher_term(raft: Raft, message: Message) -> bool:
    """Follow the message into its term. False if it is to be ignored."""
    type = message.type
    asked_by_itself = type in (M.MsgVote, M.MsgPreVote) and message.context != election.TRANSFER_CONTEXT
    if asked_by_itself and election.leader_lease_holds(raft):
        remaining = raft.election_timeout - raft.election_elapsed
        why = f": lease is not expired (remaining ticks: {remaining})"
        election.log_vote(raft, message, "ignored", "from", why)
        return False
    if type is M.MsgPreVote or (type is M.MsgPreVoteResp and not message.reject):
        return True  # that term is one that could be; it becomes ours only if the election is held
    raft.logger.info(
        f"{raft.id:x} [term: {raft.term}] received a {type.name} message with higher term from "
        f"{message.from_:x} [term: {message.term}]"
    )
    from_leader = type in (M.MsgApp, M.MsgHeartbeat, M.MsgSnap)
    become_follower(raft, message.term, message.from_ if from_leader else NONE)
    return True


def _answer_lower_term(raft: Raft, message: Message) -> None:
    type = message.type
    if type in (M.MsgHeartbeat, M.MsgApp) and (raft.check_quorum or raft.pre_vote):
        # A leader of an earlier term: either late, or we campaigned while cut off and nobody will vote for
        # us, as they hear from it. Any answer of our term makes it step down, which frees us both.
        raft.send(Message(M.MsgAppResp, to=message.from_))
    elif type is M.MsgPreVote:
        # Silence would leave a candidate with a lower term and longer log waiting for ever.
        election.log_vote(raft, message, "rejected", "from")
        raft.send(Message(M.MsgPreVoteResp, to=message.from_, term=raft.term, reject=True))
    elif type is M.MsgStorageAppendResp:
        if message.index:
            # Entries of a later term may be on their way to disk in the place of these.
            raft.logger.info(
                f"{raft.id:x} [term: {raft.term}] ignored entry appends from a {type.name} "
                "message with lower term "
                f"[term: {message.term}]"
            )
        if message.snapshot is not None:
            _applied_snapshot(raft, message.snapshot)  # committed, so right in every term
    else:
        raft.logger.info(
            f"{raft.id:x} [term: {raft.term}] ignored a {type.name} message with lower term from "
            f"{message.from_:x} "
            f"[term: {message.term}]"
        )


# From storage


def _handle_append_stable(raft: Raft, message: Message) -> None:
    if message.index:
        raft.log.unstable.stable_to(message.index, message.log_term)
    if message.snapshot is not None:
        _applied_snapshot(raft, message.snapshot)


def _applied_snapshot(raft: Raft, snapshot: Snapshot) -> None:
    raft.log.unstable.stable_snapshot_to(snapshot.index)
    applied(raft, snapshot.index, 0, 0)


def applied(raft: Raft, index: int, encoded_bytes: int, payload_bytes: int) -> None:
    """The state machine is at `index`. A leader may now have to leave a joint configuration."""
    index = max(index, raft.log.applied)
    raft.log.applied_to(index, encoded_bytes)
    applied_payload(raft, payload_bytes)
    config = raft.tracker.config
    if config.auto_leave and index >= raft.pending_conf_index and raft.role is Role.StateLeader:
        # An empty change means leaving, and empty entries are never refused for their size. If leadership
        # is moving it is dropped, and tried again with the next entry applied, here or by the new leader.
        leaving = Entry(0, 0, EntryType.EntryConfChangeV2, b"")
        try:
            step(raft, Message(M.MsgProp, entries=[leaving]))
        except RaftError as error:
            raft.logger.debug(
                f"not initiating automatic transition out of joint configuration {config}: {error}"
            )
        else:
            raft.logger.info(f"initiating automatic transition out of joint configuration {config}")


# The table


def _ignore(raft: Raft, message: Message) -> None:
    pass


def _row(handlers: Mapping[MessageType, Handler], otherwise: Handler = _ignore) -> tuple[Handler, ...]:
    common: dict[MessageType, Handler] = {
        M.MsgHup: election.handle_hup,
        M.MsgVote: election.handle_vote_request,
        M.MsgPreVote: election.handle_vote_request,
        M.MsgStorageAppendResp: _handle_append_stable,
    }
    return tuple({**common, **handlers}.get(type, otherwise) for type in MessageType)


def _candidate(awaited: MessageType) -> tuple[Handler, ...]:
    return _row(
        {
            M.MsgProp: follower.drop_proposal,
            M.MsgApp: follower.handle_append,
            M.MsgHeartbeat: follower.handle_heartbeat,
            M.MsgSnap: follower.handle_snapshot,
            M.MsgTimeoutNow: election.ignore_timeout_now,
            awaited: election.handle_vote_response,
        }
    )


# Rows by role, handlers by message type: both are numbered from 0 without a gap.
TABLE: Final[Mapping[Role, tuple[Handler, ...]]] = {
    Role.StateFollower: _row(
        {
            M.MsgProp: follower.handle_proposal,
            M.MsgApp: follower.handle_append,
            M.MsgHeartbeat: follower.handle_heartbeat,
            M.MsgSnap: follower.handle_snapshot,
            M.MsgTransferLeader: follower.handle_transfer,
            M.MsgForgetLeader: follower.handle_forget_leader,
            M.MsgTimeoutNow: election.handle_timeout_now,
            M.MsgReadIndex: follower.handle_read_index,
            M.MsgReadIndexResp: follower.handle_read_index_response,
        }
    ),
    Role.StateCandidate: _candidate(awaited=M.MsgVoteResp),
    Role.StatePreCandidate: _candidate(awaited=M.MsgPreVoteResp),
    Role.StateLeader: _row(
        {
            M.MsgBeat: leader.handle_beat,
            M.MsgCheckQuorum: leader.handle_check_quorum,
            M.MsgProp: leader.handle_proposal,
            M.MsgReadIndex: leader.handle_read_index,
            M.MsgForgetLeader: _ignore,
            M.MsgAppResp: about_follower(leader.handle_append_response),
            M.MsgHeartbeatResp: about_follower(leader.handle_heartbeat_response),
            M.MsgSnapStatus: about_follower(leader.handle_snapshot_status),
            M.MsgUnreachable: about_follower(leader.handle_unreachable),
            M.MsgTransferLeader: about_follower(leader.handle_transfer),
        },
        otherwise=about_follower(None),
    ),
}
