"""How far the database is: consistent index, term and configuration, kept in bucket `meta` beside the data.

They are written into the buffer just before it is frozen for a commit, so they lie in one transaction with
the entries
they cover: a restart replays the log from exactly there.
"""

from __future__ import annotations

from typing import Final

from pyetcd.cluster.gojson import fields
from pyetcd.cluster.membership import Buckets
from pyetcd.raft import ConfState

META: Final = b"meta"
_INDEX: Final = b"consistent_index"
_TERM: Final = b"term"
_CONF_STATE: Final = b"confState"
_STORAGE_VERSION: Final = b"storageVersion"
BEFORE_STORED: Final = "3.5.0"  # the last version that did not write its own down


class Position:
    """The applied position. `save` is the backend's `before_commit`."""

    def __init__(self, backend: Buckets) -> None:
        self._backend = backend
        self.load()

    def load(self) -> None:
        """As the database has it: at the start, or when another one has taken its place."""
        backend = self._backend
        self.index = int.from_bytes(backend.get(META, _INDEX) or b"", "big")
        self.term = int.from_bytes(backend.get(META, _TERM) or b"", "big")
        self.conf_state: ConfState | None = None  # set by a change of configuration; None: as it is stored
        self._saved = self.index

    def save(self) -> None:
        if self.index != self._saved:
            self._backend.put(META, _INDEX, self.index.to_bytes(8, "big"))
            self._backend.put(META, _TERM, self.term.to_bytes(8, "big"))
            self._saved = self.index
        if self.conf_state is not None:
            self._backend.put(META, _CONF_STATE, conf_state_json(self.conf_state))
            self.conf_state = None

    @property
    def storage_version(self) -> str:
        """As it is stored; a cluster that has no version yet is of 3.5 by its term and configuration, as to
        etcd. Empty for an older database, or a new one."""
        stored = (self._backend.get(META, _STORAGE_VERSION) or b"").decode()
        if stored or not self.term:
            return stored
        configured = self.conf_state is not None or self._backend.get(META, _CONF_STATE) is not None
        return BEFORE_STORED if configured else ""


def conf_state_json(state: ConfState) -> bytes:
    """As Go's encoding/json writes raftpb.ConfState: empty lists left out, auto_leave always there."""

    def ids(values: tuple[int, ...]) -> str:
        return "[" + ",".join(map(str, sorted(values))) + "]"

    lists = (
        ("voters", state.voters),
        ("learners", state.learners),
        ("voters_outgoing", state.voters_outgoing),
        ("learners_next", state.learners_next),
    )
    pairs = [(name, ids(values)) for name, values in lists if values]
    return fields([*pairs, ("auto_leave", "true" if state.auto_leave else "false")]).encode()
