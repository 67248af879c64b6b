"""The key index: which revision a key has now, and which it had.

What is kept, and why it is this little (bytes per key beside the key itself, at a million keys):

* `live`: key → number of its latest revision, for keys that exist now (74 B). Create revision and version
  are read from the stored record. A key updated once a second has one entry here, as every other.
* `keys`: the live keys in order (8 B), so a range is a slice and a count is a difference of two positions.
* `history`: the older revisions, only for keys that have some since the last compaction: one int, or a list
  of ints in ascending order. For a dead key the last one is its tombstone.
* `dead`: the keys with nothing but history, in order.
* `membership`: births and deaths, to correct counts at older revisions.

Rules that hold here:

* Revisions are numbers as in `revision`; `top` is the highest one the index knows.
* A key is in `live` and in `keys`, or in `history` and in `dead`; `history` of a live key holds no revision
  after the live one. The exception is a key of a pending deletion (see `deletion`): still in `live`, no
  longer in `keys`. Whoever looks into `live` by a key that did not come from `keys` settles it first.
* What a key was at a bound never changes while the bound is not compacted, wherever the key has moved
  meanwhile: that is what lets a reader stop between two keys and go on after other writes.
"""

from __future__ import annotations

from bisect import bisect_right

from pyetcd.mvcc.key_list import Block, KeyList
from pyetcd.mvcc.membership import Membership
from pyetcd.mvcc.revision import SHIFT, TOMBSTONE, bound_of

History = dict[bytes, int | list[int]]


class KeyIndex:
    """See the module. Methods do not check for pending deletions; their callers do."""

    __slots__ = ("dead", "history", "keys", "live", "membership", "top")

    def __init__(
        self, live: dict[bytes, int] | None = None, history: History | None = None, top: int = 0
    ) -> None:
        """Empty, or restored: `live` and `history` as they are to be; sorting a million keys takes about a
        second.
        """
        self.live: dict[bytes, int] = {} if live is None else live
        self.history: History = {} if history is None else history
        self.keys = KeyList(sorted(self.live))
        self.dead = KeyList(sorted(key for key in self.history if key not in self.live))
        self.membership = Membership(top)
        self.top = top

    # Writing

    def put(self, key: bytes, revision: int) -> int:
        """Note a put; returns the revision number before it, 0 when the key did not exist (0.4 us; 1.5 us
        for a new key).
        """
        self.top = revision
        live = self.live
        old = live.get(key)
        if old is None:
            if self.history and key in self.history:
                self.dead.remove(key)
            live[key] = revision
            self.keys.add(key)
            self.membership.add(revision, key)
            return 0
        live[key] = revision
        self._push(key, old)
        return old

    def _push(self, key: bytes, revision: int) -> None:
        history = self.history
        before = history.get(key)
        if before is None:
            history[key] = revision
        elif isinstance(before, int):
            history[key] = [before, revision]
        else:
            before.append(revision)

    def delete(self, key: bytes, tombstone: int) -> int:
        """Note the deletion of a live key; returns the revision number it had (3 us)."""
        self.top = tombstone
        old = self.live.pop(key)
        self.keys.remove(key)
        self._bury(key, old, tombstone)
        self.dead.add(key)
        self.membership.add(tombstone, key)
        return old

    def _bury(self, key: bytes, old: int, tombstone: int) -> None:
        before = self.history.get(key)
        if before is None:
            self.history[key] = [old, tombstone]
        elif isinstance(before, int):
            self.history[key] = [before, old, tombstone]
        else:
            before.append(old)
            before.append(tombstone)

    def bury_cut(self, keys: list[bytes], tombstones: range) -> None:
        """The index part of settling: `keys` (sorted) are no longer in `keys` but still in `live`."""
        bury = self._bury
        for key, old, tombstone in zip(keys, map(self.live.pop, keys), tombstones, strict=True):
            bury(key, old, tombstone)
        self.dead.merge(keys)

    def bury_one(self, key: bytes, tombstone: int) -> None:
        """`bury_cut` for one key."""
        self._bury(key, self.live.pop(key), tombstone)
        self.dead.add(key)

    # Reading

    def at(self, key: bytes, bound: int) -> int:
        """The revision number `key` had at `bound`; 0 when it did not exist."""
        revision = self.live.get(key)
        if revision is not None and revision <= bound:
            return revision
        return self._past(key, bound)

    def _past(self, key: bytes, bound: int) -> int:
        before = self.history.get(key)
        if before is None:
            return 0
        if isinstance(before, int):
            return before if before <= bound and not before & TOMBSTONE else 0
        place = bisect_right(before, bound)
        if not place:
            return 0
        revision = before[place - 1]
        return 0 if revision & TOMBSTONE else revision

    def walk(
        self, start: bytes, end: bytes | None, bound: int, limit: int
    ) -> tuple[list[bytes], list[int], bytes | None]:
        """Keys of [start, end) that exist at `bound`, in order, with their revision numbers.

        Looks at no more than `limit` live and `limit` dead keys. The third result is where to go on, None
        when all was seen.
        """
        keys = self.keys.slice(start, end, limit)
        after = keys[-1] + b"\0" if len(keys) == limit else None
        if bound >= self.top:
            return keys, list(map(self.live.__getitem__, keys)), after
        upto = end if after is None else after
        dead = self.dead.slice(start, upto, limit)
        if len(dead) == limit:
            after = dead[-1] + b"\0"
            while keys and keys[-1] >= after:
                keys.pop()
        revisions = list(map(self.live.__getitem__, keys))
        if not dead and (not revisions or max(revisions) <= bound):
            return keys, revisions, after
        past = self._past
        found = [
            (key, then)
            for key, now in zip(keys, revisions, strict=True)
            if (then := now if now <= bound else past(key, bound))
        ]
        revived = [(key, then) for key in dead if (then := past(key, bound))]
        if revived:
            found += revived
            found.sort()
        return [key for key, _ in found], [then for _, then in found], after

    def count(self, start: bytes, end: bytes | None, bound: int) -> int | None:
        """How many keys of [start, end) exist at `bound`; None when only a walk can tell."""
        now = self.keys.count(start, end)
        if bound >= self.top:
            return now
        net = self.membership.net_since(bound, start, end)
        return None if net is None else now - net

    def cut(self, start: bytes, end: bytes | None, first_tombstone: int) -> Block:
        """Take [start, end) out of the live order at once; the rest of the deletion is settled later."""
        block = self.keys.cut(start, end)
        if block.length:
            self.membership.add_block(first_tombstone, block)
            self.top = first_tombstone + 2 * (block.length - 1)
        return block

    def cut_keys(self, keys: list[bytes], first_tombstone: int) -> Block:
        """`cut` for sorted live keys that need not lie together."""
        self.keys.discard_many(keys)
        block = Block([keys[i : i + 1024] for i in range(0, len(keys), 1024)])
        self.membership.add_block(first_tombstone, block)
        self.top = first_tombstone + 2 * (block.length - 1)
        return block

    # Compaction

    def compact_key(self, key: bytes, revision: int, main: int) -> bool:
        """Does compaction at `main` keep this stored revision of `key`? Forgets what it does not keep.

        Kept are, of each key, the latest revision at or before `main`, unless that is a tombstone from
        before `main` (etcd's keyIndex.compact). Called for stored revisions up to `main`.
        """
        bound = bound_of(main)
        live = self.live.get(key)
        if live is not None and live <= bound:
            self.history.pop(key, None)
            return revision == live
        before = self.history.get(key)
        if before is None:
            return False
        if isinstance(before, int):
            kept = before if before <= bound else 0
        else:
            place = bisect_right(before, bound)
            kept = before[place - 1] if place else 0
            if place > 1:
                del before[: place - 1]
        if kept & TOMBSTONE and kept >> SHIFT < main:
            self._forget_first(key)
            return False
        return kept == revision

    def _forget_first(self, key: bytes) -> None:
        before = self.history[key]
        if isinstance(before, list) and len(before) > 1:
            del before[0]
            return
        del self.history[key]
        if key not in self.live:
            self.dead.remove(key)
