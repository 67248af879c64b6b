"""What a leader does with a message."""

from __future__ import annotations

from collections.abc import Callable

from pyetcd.raft import codec
from pyetcd.raft.core import Raft
from pyetcd.raft.describe import describe_conf_change
from pyetcd.raft.errors import ProposalDropped
from pyetcd.raft.progress import PROBE, REPLICATE, SNAPSHOT, Progress
from pyetcd.raft.reads import MAX_WAITING, round_of
from pyetcd.raft.replication import (
    append,
    broadcast_append,
    broadcast_heartbeat,
    maybe_commit,
    maybe_send_append,
    number_and_append,
    send_append,
)
from pyetcd.raft.roles import become_follower
from pyetcd.raft.types import (
    NONE,
    Entry,
    EntryType,
    Message,
    MessageType,
    ReadState,
    new_entries,
)

Handler = Callable[[Raft, Message], None]
FollowerHandler = Callable[[Raft, Message, Progress], None]


def about_follower(handler: FollowerHandler | None) -> Handler:
    """A handler for messages that concern one follower: what comes from strangers is ignored."""

    def handle(raft: Raft, message: Message) -> None:
        progress = raft.tracker.progress.get(message.from_)
        if progress is None:
            raft.logger.debug(f"{raft.id:x} no progress available for {message.from_:x}")
        elif handler is not None:
            handler(raft, message, progress)

    return handle


# Proposals


def propose(raft: Raft, payloads: list[bytes]) -> None:
    """Append one normal entry per payload. The hot path of every write: no message is made, no entry looked
    at.
    """
    _check_may_propose(raft)
    entries = new_entries(raft.term, raft.log.last_index(), payloads)
    if not append(raft, entries, sum(map(len, payloads))):
        raise ProposalDropped
    broadcast_append(raft)


def handle_proposal(raft: Raft, message: Message) -> None:
    """MsgProp, from a follower or with a membership change in it."""
    _check_may_propose(raft)
    last = raft.log.last_index()
    entries = [
        _checked_conf_change(raft, entry, last + 1 + i) if entry.type else entry
        for i, entry in enumerate(message.entries)
    ]
    if not number_and_append(raft, entries):
        raise ProposalDropped
    broadcast_append(raft)


def _check_may_propose(raft: Raft) -> None:
    if raft.id not in raft.tracker.progress:  # removed while leading
        raise ProposalDropped
    if raft.transferee != NONE:
        raft.logger.debug(
            f"{raft.id:x} [term {raft.term}] transfer leadership to {raft.transferee:x} is in "
            "progress; dropping proposal"
        )
        raise ProposalDropped


def _checked_conf_change(raft: Raft, entry: Entry, index: int) -> Entry:
    """The entry if its change may be tried at `index`, else an empty one: its proposer learns of it at
    apply.
    """
    change = codec.conf_change_of(entry)
    config = raft.tracker.config
    refusal = ""
    if raft.pending_conf_index > raft.log.applied:
        pending, done = raft.pending_conf_index, raft.log.applied
        refusal = f"possible unapplied conf change at index {pending} (applied to {done})"
    elif config.voters.is_joint() and change.as_v2().changes:
        refusal = "must transition out of joint config first"
    elif not config.voters.is_joint() and not change.as_v2().changes:
        refusal = "not in joint state; refusing empty conf change"
    if refusal and not raft.disable_conf_change_validation:
        raft.logger.info(
            f"{raft.id:x} ignoring conf change {describe_conf_change(change)} at config {config}: {refusal}"
        )
        return Entry(0, 0, EntryType.EntryNormal, b"")
    raft.pending_conf_index = index
    return entry


# Replication


def handle_append_response(raft: Raft, message: Message, progress: Progress) -> None:
    """A follower, or our own disk, has or has not appended."""
    progress.recent_active = True
    if message.reject:
        _handle_append_rejection(raft, message, progress)
        return
    index = message.index
    if not progress.acknowledged(index) and not (progress.match == index and progress.state is PROBE):
        return
    follower = message.from_
    if progress.state is PROBE:
        progress.become_replicate()
    elif progress.state is REPLICATE:
        progress.inflights.free_to(index)
    elif progress.match + 1 >= raft.log.first_index():
        # It has the snapshot, or got so far without: our log reaches back to where it is.
        raft.logger.debug(
            f"{raft.id:x} recovered from needing snapshot, resumed sending replication messages "
            f"to {follower:x} [{progress}]"
        )
        progress.become_probe()
        progress.become_replicate()

    committed = maybe_commit(raft)
    if committed:
        release_postponed_reads(raft)
        broadcast_append(raft)
    if follower == raft.id:
        return
    if not committed and progress.can_raise_commit(raft.log.committed):
        send_append(raft, follower)
    while maybe_send_append(raft, follower, progress, send_if_empty=False):
        pass  # the window has room again: fill it
    if follower == raft.transferee and progress.match == raft.log.last_index():
        raft.logger.info(f"{raft.id:x} sent MsgTimeoutNow to {follower:x} after received MsgAppResp")
        _send_timeout_now(raft, follower)


def _handle_append_rejection(raft: Raft, message: Message, progress: Progress) -> None:
    """Our guess where the logs meet was too high: guess again, lower.

    The follower's hint is its best guess, with its term there. Ours takes that term into account: entries
    of ours of a later term cannot be in its log, so they are skipped at once instead of one per round trip.
    """
    follower = message.from_
    raft.logger.debug(
        f"{raft.id:x} received MsgAppResp(rejected, hint: (index {message.reject_hint}, term "
        f"{message.log_term})) "
        f"from {follower:x} for index {message.index}"
    )
    hint = message.reject_hint
    if message.log_term:
        hint, _ = raft.log.find_conflict_by_term(hint, message.log_term)
    if progress.rejected(message.index, hint):
        raft.logger.debug(f"{raft.id:x} decreased progress of {follower:x} to [{progress}]")
        if progress.state is REPLICATE:
            progress.become_probe()
        send_append(raft, follower)


def handle_heartbeat_response(raft: Raft, message: Message, progress: Progress) -> None:
    progress.recent_active = True
    progress.paused = False
    if progress.match < raft.log.last_index() or progress.state is PROBE:
        send_append(raft, message.from_)
    if raft.lease_reads or not message.context:
        return
    raft.read_queue.acknowledge(message.from_, round_of(message.context))
    for request, index in raft.read_queue.confirmed(raft.tracker.config.voters):
        answer_read(raft, request, index)
    if raft.gather_reads and raft.read_queue.wants_round():
        broadcast_heartbeat(raft)


def handle_snapshot_status(raft: Raft, message: Message, progress: Progress) -> None:
    """The snapshot went out, or could not: probe again, but not before the follower has shown a sign of
    life.
    """
    if progress.state is not SNAPSHOT:
        return
    if message.reject:
        progress.pending_snapshot = 0  # so that the probe starts where the log ended before
    progress.become_probe()
    outcome = "failed" if message.reject else "succeeded"
    raft.logger.debug(
        f"{raft.id:x} snapshot {outcome}, resumed sending replication messages to "
        f"{message.from_:x} [{progress}]"
    )
    progress.paused = True


def handle_unreachable(raft: Raft, message: Message, progress: Progress) -> None:
    """What was under way is probably lost."""
    if progress.state is REPLICATE:
        progress.become_probe()
    raft.logger.debug(
        f"{raft.id:x} failed to send message to {message.from_:x} because it is unreachable [{progress}]"
    )


# Leadership


def handle_beat(raft: Raft, message: Message) -> None:
    broadcast_heartbeat(raft)


def handle_check_quorum(raft: Raft, message: Message) -> None:
    """Step down if a majority has been silent for an election timeout; somebody else may lead by now."""
    if not raft.tracker.quorum_active():
        raft.logger.warning(f"{raft.id:x} stepped down to follower since quorum is not active")
        become_follower(raft, raft.term, NONE)
    for id, progress in raft.tracker.ordered:
        if id != raft.id:
            progress.recent_active = False


def handle_transfer(raft: Raft, message: Message, progress: Progress) -> None:
    """Move leadership to the sender: as soon as it has everything, it is told to campaign at once."""
    own, target = f"{raft.id:x} [term {raft.term}]", message.from_
    if progress.is_learner:
        raft.logger.debug(f"{raft.id:x} is learner. Ignored transferring leadership")
        return
    if raft.transferee == target:
        raft.logger.info(
            f"{own} transfer leadership to {target:x} is in progress, ignores request to same node {target:x}"
        )
        return
    if raft.transferee != NONE:
        raft.logger.info(f"{own} abort previous transferring leadership to {raft.transferee:x}")
        raft.transferee = NONE
    if target == raft.id:
        raft.logger.debug(f"{raft.id:x} is already leader. Ignored transferring leadership to self")
        return
    raft.logger.info(f"{own} starts to transfer leadership to {target:x}")
    raft.election_elapsed = 0  # it has one election timeout to succeed
    raft.transferee = target
    if progress.match == raft.log.last_index():
        _send_timeout_now(raft, target)
        raft.logger.info(
            f"{raft.id:x} sends MsgTimeoutNow to {target:x} immediately as {target:x} already "
            "has up-to-date log"
        )
    else:
        send_append(raft, target)


def _send_timeout_now(raft: Raft, to: int) -> None:
    raft.send(Message(MessageType.MsgTimeoutNow, to=to))


# Linearizable reads


def handle_read_index(raft: Raft, message: Message) -> None:
    if raft.tracker.config.voters.is_singleton():
        answer_read(raft, message, raft.log.committed)
    elif not raft.committed_in_term():
        # What we believe committed may lag behind what our predecessor answered from.
        if len(raft.postponed_reads) < MAX_WAITING:
            raft.postponed_reads.append(message)
        else:
            raft.logger.warning(f"{raft.id:x} too many reads are waiting; dropping index reading msg")
    else:
        _confirm_read(raft, message)


def release_postponed_reads(raft: Raft) -> None:
    """After our term's first commit."""
    if not raft.postponed_reads:
        return
    if not raft.committed_in_term():
        raft.logger.error("pending MsgReadIndex should be released only after first commit in current term")
        return
    postponed, raft.postponed_reads = raft.postponed_reads, []
    for message in postponed:
        _confirm_read(raft, message)


def _confirm_read(raft: Raft, message: Message) -> None:
    if raft.lease_reads:
        answer_read(raft, message, raft.log.committed)
    elif raft.read_queue.add(message, raft.log.committed):
        raft.read_queue.acknowledge(raft.id, raft.read_queue.round())
        if not raft.gather_reads or raft.read_queue.wants_round():
            broadcast_heartbeat(raft)
    else:
        raft.logger.warning(f"{raft.id:x} too many reads are waiting; dropping index reading msg")


def answer_read(raft: Raft, request: Message, index: int) -> None:
    """Give our own reader its state, or send the asking follower the answer."""
    if request.from_ in (NONE, raft.id):
        raft.read_states.append(ReadState(index, request.entries[0].data))
    else:
        raft.send(
            Message(MessageType.MsgReadIndexResp, to=request.from_, index=index, entries=request.entries)
        )
