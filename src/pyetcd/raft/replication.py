"""How a leader appends to its own log and sends it to everyone else."""

from __future__ import annotations

from pyetcd.raft.core import Raft
from pyetcd.raft.errors import InvariantBroken, SnapshotTemporarilyUnavailable, StorageError
from pyetcd.raft.progress import REPLICATE, Progress
from pyetcd.raft.types import Entry, Message, MessageType, payload_size


def append(raft: Raft, entries: list[Entry], payload_bytes: int) -> bool:
    """Append entries that are numbered already. False, and nothing done, if too much is uncommitted.

    One proposal may overshoot when nothing else is under way, and empty ones always pass: a new leader's
    first entry and the leaving of a joint configuration must not wait.
    """
    uncommitted = raft.uncommitted_bytes
    if uncommitted and payload_bytes and uncommitted + payload_bytes > raft.max_uncommitted_bytes:
        raft.logger.warning(
            f"{raft.id:x} appending new entries to log would exceed uncommitted entry size "
            "limit; dropping proposal"
        )
        return False
    raft.uncommitted_bytes = uncommitted + payload_bytes
    last = raft.log.append(entries)
    # Counted like a follower's answer, once it is on disk.
    raft.send(Message(MessageType.MsgAppResp, to=raft.id, index=last))
    return True


def number_and_append(raft: Raft, entries: list[Entry]) -> bool:
    """Append entries from elsewhere as new ones of our term."""
    first = raft.log.last_index() + 1
    numbered = [Entry(raft.term, first + i, e.type, e.data) for i, e in enumerate(entries)]
    return append(raft, numbered, payload_size(numbered))


def applied_payload(raft: Raft, payload_bytes: int) -> None:
    """That much data is no longer uncommitted. May be more than was counted: entries of earlier leaders
    were not.
    """
    raft.uncommitted_bytes = max(raft.uncommitted_bytes - payload_bytes, 0)


def maybe_commit(raft: Raft) -> bool:
    """Commit what a quorum holds. True if that is news, which everyone should be told."""
    return raft.log.maybe_commit(raft.tracker.committed(), raft.term)


def broadcast_append(raft: Raft) -> None:
    """Send everyone what they lack, or at least the commit index."""
    for id, progress in raft.tracker.ordered:
        if id != raft.id:
            maybe_send_append(raft, id, progress, send_if_empty=True)


def send_append(raft: Raft, to: int) -> None:
    maybe_send_append(raft, to, raft.tracker.progress[to], send_if_empty=True)


def maybe_send_append(raft: Raft, to: int, progress: Progress, *, send_if_empty: bool) -> bool:
    """Send one append, or a snapshot where the log no longer reaches back far enough. False if nothing was
    sent.

    An empty append still carries the commit index, and probes a follower whose window is full: everything
    under way to it may be lost.
    """
    if progress.is_paused():
        return False
    log = raft.log
    previous = progress.next - 1
    try:
        previous_term = log.term(previous)
        may_fill = progress.state is not REPLICATE or not progress.inflights.full()
        entries = log.entries_from(progress.next, raft.max_message_bytes) if may_fill else []
    except StorageError:
        return _maybe_send_snapshot(raft, to, progress)
    if not entries and not send_if_empty:
        return False
    raft.send(
        Message(
            MessageType.MsgApp,
            to=to,
            index=previous,
            log_term=previous_term,
            entries=entries,
            commit=log.committed,
        )
    )
    progress.sent_entries(len(entries), payload_size(entries))
    progress.sent_commit = log.committed
    return True


def _maybe_send_snapshot(raft: Raft, to: int, progress: Progress) -> bool:
    logger = raft.logger
    if not progress.recent_active:
        logger.debug(f"ignore sending snapshot to {to:x} since it is not recently active")
        return False
    try:
        snapshot = raft.log.snapshot()
    except SnapshotTemporarilyUnavailable:
        logger.debug(
            f"{raft.id:x} failed to send snapshot to {to:x} because snapshot is temporarily unavailable"
        )
        return False
    if not snapshot.index:
        raise InvariantBroken("need non-empty snapshot")
    logger.debug(
        f"{raft.id:x} [firstindex: {raft.log.first_index()}, commit: {raft.log.committed}] sent "
        f"snapshot[index: {snapshot.index}, term: {snapshot.term}] to {to:x} [{progress}]"
    )
    progress.become_snapshot(snapshot.index)
    logger.debug(f"{raft.id:x} paused sending replication messages to {to:x} [{progress}]")
    raft.send(Message(MessageType.MsgSnap, to=to, snapshot=snapshot))
    return True


def broadcast_heartbeat(raft: Raft) -> None:
    """Heartbeats, each with the commit index as far as its receiver is known to have the entries."""
    context = raft.read_queue.context()
    committed = raft.log.committed
    for id, progress in raft.tracker.ordered:
        if id == raft.id:
            continue
        commit = min(progress.match, committed)
        raft.send(Message(MessageType.MsgHeartbeat, to=id, commit=commit, context=context))
        progress.sent_commit = commit
