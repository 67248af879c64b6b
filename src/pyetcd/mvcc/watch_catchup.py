"""Watchers that are behind: they read history from the backend, together and in slices, until they are up
to date.

A *round* is one pass over history: a reader that starts at some revision, and an audience of watchers that
want events from there on. Each turn of the loop one round reads a slice, about a millisecond; when it has
reached the present its watchers become live. Several rounds run side by side, so that somebody a few
revisions behind need not wait for somebody a million behind; within a round thousands of watchers share one
pass and, where they want the same, one message.

Rules that hold here:

* A watcher belongs to one round at most, and joins it before the round has read anything the watcher wants.
* What the history no longer has is never skipped in silence: a watcher that needs a revision below the
  compacted one is ended with the compact revision (the compacted revision itself can still be read, as in
  etcd).
* Short histories leave as one message, as from etcd; of long ones something leaves every few slices.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from operator import attrgetter

from pyetcd.mvcc.watch_group import CATCHING_UP, QUEUED, Audience, Watcher
from pyetcd.mvcc.watch_seams import History, Loop
from pyetcd.mvcc.watch_send import Sender, Stall

SLICE_CHANGES = 512  # read and matched in one turn: about 1 ms
SLICES_PER_FLUSH = 8
ROUND_BYTES = 4 << 20  # a round that has gathered so much sends it
ROUND_WATCHERS = 1024
ROUNDS = 8
NEAR_REVISIONS = 10_000  # join a round under way that is at most so far behind what the watcher wants
ADMIT_PER_TURN = 1024
RETRY_SECONDS = 0.005  # when history has nothing more to read yet (a large deletion is being settled)

_next_revision = attrgetter("next_revision")


class Round:
    """One pass over history."""

    __slots__ = ("audience", "events", "slices")

    def __init__(self, history: History, start_revision: int) -> None:
        self.audience = Audience(history.previous_record)
        self.events = history.events(start_revision)
        self.slices = 0

    def takes(self, watcher: Watcher, near: int) -> bool:
        """Whether the watcher can join: everything it wants is still ahead, at most `near` revisions."""
        ahead = watcher.next_revision - self.events.next_revision
        # Once reading has begun, the next revision may be half read.
        return (0 if self.slices == 0 else 1) <= ahead <= near and self.audience.watchers < ROUND_WATCHERS


class CatchUp:
    """All watchers that are behind and whose streams take messages. The hub is told through three
    callbacks: `arrived` (before they join the live ones), `compacted` and `stall`.
    """

    def __init__(
        self,
        history: History,
        sender: Sender,
        loop: Loop,
        arrived: Callable[[list[Watcher]], None],
        compacted: Callable[[Watcher, int], None],
        stall: Stall,
    ) -> None:
        self._history = history
        self._sender = sender
        self._loop = loop
        self._arrived = arrived
        self._compacted = compacted
        self._stall = stall
        self._queue: dict[Watcher, None] = {}
        self._rounds: list[Round] = []
        self._turn_at = 0
        self._scheduled = False

    def __len__(self) -> int:
        return len(self._queue) + sum(each.audience.watchers for each in self._rounds)

    @property
    def pending_bytes(self) -> int:
        return sum(each.audience.pending_bytes for each in self._rounds)

    def add(self, watcher: Watcher) -> None:
        """Let a watcher catch up from its `next_revision`."""
        watcher.place = QUEUED
        self._queue[watcher] = None
        self._schedule(True)

    def remove(self, watcher: Watcher) -> None:
        """A watcher that is QUEUED or CATCHING_UP wants no more."""
        if watcher.place == QUEUED:
            del self._queue[watcher]
        else:
            assert watcher.group is not None, "a watcher that catches up is in a round"
            watcher.group.audience.leave(watcher)

    def restart(self) -> None:
        """The history has been replaced: all begin anew at what they have not been sent."""
        rounds, self._rounds = self._rounds, []
        for each in rounds:
            for group in list(each.audience):
                for watcher in list(group.watchers()):
                    batches = group.batches
                    position = batches[0].first_revision if batches else each.events.next_revision
                    watcher.next_revision = max(watcher.next_revision, position)
                    each.audience.leave(watcher)
                    self.add(watcher)

    def _schedule(self, soon: bool) -> None:
        if not self._scheduled:
            self._scheduled = True
            if soon:
                self._loop.call_soon(self._turn)
            else:
                self._loop.call_later(RETRY_SECONDS, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._admit()
        read = not self._rounds
        for _ in range(len(self._rounds)):
            self._turn_at = (self._turn_at + 1) % len(self._rounds)
            each = self._rounds[self._turn_at]
            read = self._slice(each)
            if read:
                break
        if self._rounds or self._queue:
            self._schedule(read)

    # Admission

    def _admit(self) -> None:
        # The oldest first: those who want nearly the same then find a round that is about to read it.
        for watcher in sorted(islice(self._queue, ADMIT_PER_TURN), key=_next_revision):
            if watcher.next_revision < self._history.compact_revision:
                del self._queue[watcher]
                self._compacted(watcher, self._history.compact_revision)
                continue
            chosen = self._choose(watcher)
            if chosen is None:
                continue
            del self._queue[watcher]
            watcher.place = CATCHING_UP
            chosen.audience.join(watcher, watcher.next_revision, self._sender.flushes)

    def _choose(self, watcher: Watcher) -> Round | None:
        """A round that has what the watcher wants a little ahead, else a new one, else the nearest that has
        it ahead at all.
        """
        for each in self._rounds:
            if each.takes(watcher, NEAR_REVISIONS):
                return each
        if len(self._rounds) < ROUNDS:
            fresh = Round(self._history, watcher.next_revision)
            self._rounds.append(fresh)
            return fresh
        far = self._history.revision
        able = [each for each in self._rounds if each.takes(watcher, far)]
        return max(able, key=lambda each: each.events.next_revision, default=None)

    # Reading

    def _slice(self, each: Round) -> bool:
        """Read on; False when there was nothing to be read."""
        if each.events.next_revision < self._history.compact_revision:
            self._overtaken(each)
            return True
        audience = each.audience
        if not audience.watchers:
            self._rounds.remove(each)
            return True
        current = self._history.revision
        changes = each.events.read(current, SLICE_CHANGES)
        audience.publish(changes)
        each.slices += 1
        position = each.events.next_revision
        if position > current:
            self._finish(each, current)
        elif audience.pending_bytes >= ROUND_BYTES or each.slices % SLICES_PER_FLUSH == 0:
            self._sender.send(audience, self._stall, before=position)
        return bool(changes) or position > current

    def _finish(self, each: Round, current: int) -> None:
        """The round has reached the present: send what is left, then its watchers are live."""
        self._sender.send(each.audience, self._stall, revision=current)
        self._rounds.remove(each)
        watchers = [watcher for group in each.audience for watcher in group.watchers()]
        for watcher in watchers:
            each.audience.leave(watcher)
            watcher.next_revision = current + 1
        self._arrived(watchers)

    def _overtaken(self, each: Round) -> None:
        """A compaction has passed the reader. What was read whole is sent; who needs more than is left is
        ended.
        """
        position = each.events.next_revision
        self._sender.send(each.audience, self._stall, before=position)
        self._rounds.remove(each)
        compact_revision = self._history.compact_revision
        for group in list(each.audience):
            for watcher in list(group.watchers()):
                watcher.next_revision = max(watcher.next_revision, position)
                each.audience.leave(watcher)
                if watcher.next_revision < compact_revision:
                    self._compacted(watcher, compact_revision)
                else:
                    self.add(watcher)
