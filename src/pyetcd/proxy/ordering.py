"""`--experimental-serializable-ordering`: what clients read never goes back.

Serializable reads are answered by whichever member is asked, and one may lag behind another. An answer that
is older than one given before is not passed on; the next endpoint is asked, for a number of times in all.
"""

from __future__ import annotations

from pyetcd.proto.errors import UNKNOWN
from pyetcd.proxy.calls import Caller, Done, Handle, Kv
from pyetcd.proxy.kv import RANGE, TXN, revision_of

ROUNDS = 5  # over all endpoints
NO_GREATER = "etcdclient: no cluster members have a revision higher than the previously received revision"


class _Ordered:
    """A call that may be made several times."""

    def __init__(self) -> None:
        self.handle: Handle | None = None

    def cancel(self) -> None:
        if self.handle is not None:
            self.handle.cancel()


class OrderedKv:
    """Key-value calls made of `kv`, whose answers are in order."""

    def __init__(self, kv: Kv, endpoints: int) -> None:
        self._kv = kv
        self._attempts = ROUNDS * endpoints + 1
        self._seen = 0

    def begin(self, path: str, payload: bytes, caller: Caller, done: Done) -> Handle:
        if path not in (RANGE, TXN):
            return self._kv.begin(path, payload, caller, done)
        ordered = _Ordered()
        seen = self._seen
        attempts = 0

        def answered(message: bytes | None, code: int, text: str) -> None:
            nonlocal attempts
            if message is None:
                done(message, code, text)
                return
            revision = revision_of(message)
            attempts += 1
            if revision >= seen:
                self._seen = max(self._seen, revision)
                done(message, code, text)
            elif attempts >= self._attempts or path == TXN:
                done(None, UNKNOWN, NO_GREATER)
            else:
                ordered.handle = self._kv.begin(path, payload, caller, answered)

        ordered.handle = self._kv.begin(path, payload, caller, answered)
        return ordered
