"""What a follower does with a message. A candidate that hears from a leader of its term becomes one first."""

from __future__ import annotations

from pyetcd.raft import confchange
from pyetcd.raft.core import Raft
from pyetcd.raft.describe import describe_conf_state
from pyetcd.raft.errors import InvalidConfChange, InvariantBroken, ProposalDropped
from pyetcd.raft.membership import switch_to
from pyetcd.raft.roles import become_follower
from pyetcd.raft.tracker import Tracker
from pyetcd.raft.types import NONE, Message, MessageType, ReadState, Role, Snapshot

# From the leader


def hear_leader(raft: Raft, message: Message) -> None:
    """Whoever sends this leads our term: wait for it, instead of campaigning."""
    if raft.role is Role.StateFollower:
        raft.election_elapsed = 0
        raft.lead = message.from_
    else:
        become_follower(raft, message.term, message.from_)


def handle_append(raft: Raft, message: Message) -> None:
    hear_leader(raft, message)
    log = raft.log
    if message.index < log.committed:
        # Old, or repeated: what is committed matches, so say how far that goes.
        raft.send(Message(MessageType.MsgAppResp, to=message.from_, index=log.committed))
        return
    last_new = log.append_after(message.index, message.log_term, message.entries, message.commit)
    if last_new is not None:
        raft.send(Message(MessageType.MsgAppResp, to=message.from_, index=last_new))
        return
    raft.logger.debug(
        f"{raft.id:x} [logterm: {log.term_or_zero(message.index)}, index: {message.index}] rejected MsgApp "
        f"[logterm: {message.log_term}, index: {message.index}] from {message.from_:x}"
    )
    # Guess where the logs may meet: no later than our last entry of at most the leader's term there.
    hint, hint_term = log.find_conflict_by_term(min(message.index, log.last_index()), message.log_term)
    raft.send(
        Message(
            MessageType.MsgAppResp,
            to=message.from_,
            index=message.index,
            reject=True,
            reject_hint=hint,
            log_term=hint_term,
        )
    )


def handle_heartbeat(raft: Raft, message: Message) -> None:
    hear_leader(raft, message)
    raft.log.commit_to(message.commit)
    raft.send(Message(MessageType.MsgHeartbeatResp, to=message.from_, context=message.context))


def handle_snapshot(raft: Raft, message: Message) -> None:
    hear_leader(raft, message)
    snapshot = message.snapshot if message.snapshot is not None else Snapshot()
    restored = _restore(raft, snapshot)
    raft.logger.info(
        f"{raft.id:x} [commit: {raft.log.committed}] {'restored' if restored else 'ignored'} snapshot "
        f"[index: {snapshot.index}, term: {snapshot.term}]"
    )
    index = raft.log.last_index() if restored else raft.log.committed
    raft.send(Message(MessageType.MsgAppResp, to=message.from_, index=index))


def _restore(raft: Raft, snapshot: Snapshot) -> bool:
    """Start over from `snapshot`, its configuration included. False if it has nothing for us."""
    log = raft.log
    if snapshot.index <= log.committed:
        return False
    state = snapshot.metadata.conf_state
    # learners_next need not be looked at: they are outgoing voters.
    if raft.id not in state.voters + state.learners + state.voters_outgoing:
        raft.logger.warning(
            f"{raft.id:x} attempted to restore snapshot but it is not in the ConfState "
            f"{describe_conf_state(state)}; "
            "should never happen"
        )
        return False
    bounds = f"[index: {snapshot.index}, term: {snapshot.term}]"
    if log.matches(snapshot.index, snapshot.term):
        raft.logger.info(
            f"{raft.id:x} [commit: {log.committed}, lastindex: {log.last_index()}, lastterm: "
            f"{log.last_term()}] "
            f"fast-forwarded commit to snapshot {bounds}"
        )
        log.commit_to(snapshot.index)
        return False

    empty = Tracker(raft.tracker.max_inflight, raft.tracker.max_inflight_bytes)
    try:
        outcome = confchange.restore(empty, snapshot.index, state)
    except InvalidConfChange as error:
        raise InvariantBroken(f"unable to restore config {describe_conf_state(state)}: {error}") from error
    log.restore(snapshot)
    raft.tracker.votes = {}
    if not state.equivalent(switch_to(raft, outcome)):
        raise InvariantBroken(f"ConfStates not equivalent after sorting: {describe_conf_state(state)}")
    raft.logger.info(
        f"{raft.id:x} [commit: {log.committed}, lastindex: {log.last_index()}, lastterm: {log.last_term()}] "
        f"restored snapshot {bounds}"
    )
    return True


# From clients, for the leader


def handle_proposal(raft: Raft, message: Message) -> None:
    """Pass it on, if there is somebody to pass it to."""
    if raft.lead == NONE:
        drop_proposal(raft, message)
    if raft.disable_proposal_forwarding:
        raft.logger.info(
            f"{raft.id:x} not forwarding to leader {raft.lead:x} at term {raft.term}; dropping proposal"
        )
        raise ProposalDropped
    _forward(raft, message)


def drop_proposal(raft: Raft, message: Message) -> None:
    raft.logger.info(f"{raft.id:x} no leader at term {raft.term}; dropping proposal")
    raise ProposalDropped


def handle_transfer(raft: Raft, message: Message) -> None:
    if raft.lead == NONE:
        raft.logger.info(f"{raft.id:x} no leader at term {raft.term}; dropping leader transfer msg")
    else:
        _forward(raft, message)


def handle_read_index(raft: Raft, message: Message) -> None:
    if raft.lead == NONE:
        raft.logger.info(f"{raft.id:x} no leader at term {raft.term}; dropping index reading msg")
    else:
        _forward(raft, message)


def _forward(raft: Raft, message: Message) -> None:
    """To the leader, in the name of whom it came from."""
    raft.send(Message(message.type, to=raft.lead, from_=message.from_, entries=message.entries))


def handle_read_index_response(raft: Raft, message: Message) -> None:
    if len(message.entries) != 1:
        raft.logger.error(
            f"{raft.id:x} invalid format of MsgReadIndexResp from {message.from_:x}, entries "
            f"count: {len(message.entries)}"
        )
        return
    raft.read_states.append(ReadState(message.index, message.entries[0].data))


def handle_forget_leader(raft: Raft, message: Message) -> None:
    """The application knows that the leader is dead: be ready to vote for another before the timeout."""
    if raft.lease_reads:
        raft.logger.error("ignoring MsgForgetLeader due to ReadOnlyLeaseBased")
    elif raft.lead != NONE:
        raft.logger.info(f"{raft.id:x} forgetting leader {raft.lead:x} at term {raft.term}")
        raft.lead = NONE
