"""Random watchers for `random_kv`'s keys: IDs, ranges, revisions, filters and forms clients may ask for."""

from __future__ import annotations

import random

from random_kv import MAX_INT64, MIN_INT64, History, Requests

from pyetcd.proto.rpc_pb2 import WatchCreateRequest

CHOSEN_IDS = (3, 7, 100, -5, MAX_INT64, MIN_INT64)


class Watches:
    """Draws creations."""

    def __init__(self, chance: random.Random, history: History, requests: Requests) -> None:
        self._chance = chance
        self._history = history
        self._requests = requests

    def create(self) -> WatchCreateRequest:
        chance = self._chance
        key, end = self._requests.bounds()
        return WatchCreateRequest(
            key=key,
            range_end=end,
            start_revision=self._start(),
            watch_id=chance.choice(CHOSEN_IDS) if chance.random() < 0.2 else 0,
            filters=chance.choice(([], [], [], [0], [1], [0, 1], [1, 1], [5], [-1, 0])),
            prev_kv=chance.random() < 0.4,
            progress_notify=chance.random() < 0.2,
            fragment=chance.random() < 0.2,
        )

    def _start(self) -> int:
        chance, history = self._chance, self._history
        kind = chance.randrange(12)
        if kind < 4:
            return 0
        if kind < 7:
            return chance.randint(max(history.compacted, 1), history.current)
        if kind < 9:
            return history.current + chance.randrange(1, 6)
        if kind < 10:
            return history.compacted + chance.choice((-1, 0, 1))
        return chance.choice((-1, MIN_INT64, MAX_INT64, 1))
