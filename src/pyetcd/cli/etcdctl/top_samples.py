"""What `top` knows: each endpoint is asked by a thread of its own, so that one that is dead holds up none of
the others, and one more thread watches all keys.

An endpoint is asked for its status and its member list, for a key that is not there (a linearizable read,
which takes a quorum), and by HTTP for its metrics, which alone count reads and writes. What it does not
answer is not known; without a status it is not reached.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from threading import Event, Thread

from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.hot_prefixes import HotPrefixes
from pyetcd.cli.etcdctl.metrics import Unknown, fetch, values
from pyetcd.cli.etcdctl.watcher import Watcher
from pyetcd.cli.exits import Exit
from pyetcd.cluster.endpoints import Target
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.etcdctl.settings import Settings

PUTS, READS = "etcd_mvcc_put_total", "etcd_mvcc_range_total"
FSYNC_SECONDS, FSYNCS = (f"etcd_disk_wal_fsync_duration_seconds_{end}" for end in ("sum", "count"))
METRICS = frozenset({PUTS, READS, FSYNC_SECONDS, FSYNCS})
PERMISSION_DENIED = "etcdserver: permission denied"
ALL_KEYS = b"\0"
READ_SECONDS_MIN = 1.0


class Round:
    """What an endpoint answered once. Without `status` there is an `error`. `at` is a moment of a clock that
    never goes back; times are in seconds, None where they are not known; `counters` are of the metrics."""

    __slots__ = ("at", "counters", "error", "members", "read_seconds", "status")

    def __init__(
        self,
        at: float,
        status: Message | None = None,
        *,
        error: str = "",
        members: list[Message] | None = None,
        read_seconds: float | None = None,
        counters: dict[str, float] | None = None,
    ) -> None:
        self.at = at
        self.status = status
        self.error = error
        self.members = members or []
        self.read_seconds = read_seconds
        self.counters = counters or {}


class Seen:
    """The last two rounds at an endpoint, None where there were none."""

    __slots__ = ("before", "endpoint", "last")

    def __init__(self, endpoint: str, last: Round | None = None, before: Round | None = None) -> None:
        self.endpoint = endpoint
        self.last = last
        self.before = before

    @property
    def status(self) -> Message | None:
        return None if self.last is None else self.last.status

    def growth(self, counter: str) -> float | None:
        """By how much it has grown; None where that is not known, as after a restart."""
        if self.last is None or self.before is None:
            return None
        new, old = self.last.counters.get(counter), self.before.counters.get(counter)
        return None if new is None or old is None or new < old else new - old

    def rate(self, counter: str) -> float | None:
        """By how much it has grown in a second."""
        growth = self.growth(counter)
        if growth is None or self.last is None or self.before is None or self.last.at <= self.before.at:
            return None
        return growth / (self.last.at - self.before.at)

    def fsync_seconds(self) -> float | None:
        """How long a sync of the log took, on the average."""
        seconds, count = self.growth(FSYNC_SECONDS), self.growth(FSYNCS)
        return seconds / count if seconds is not None and count else None


class Worker(ABC):
    """Something that goes on in a thread of its own until it is stopped."""

    def __init__(self) -> None:
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()

    @abstractmethod
    def stop(self) -> None:
        """Have it end, which may take as long as a call takes."""

    @abstractmethod
    def _run(self) -> None: ...


class Asker(Worker):
    """Asks one endpoint, every `interval` seconds. `twice` is set once it has been asked so often."""

    def __init__(self, settings: Settings, endpoint: str, interval: float) -> None:
        self.seen = Seen(endpoint)
        self.twice = Event()
        self._settings = settings
        self._interval = interval
        self._client: Client | None = None
        self._stopped = Event()
        super().__init__()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            last = self._round()
            self.seen = Seen(self.seen.endpoint, last, self.seen.last)
            if self.seen.before is not None:
                self.twice.set()
            self._stopped.wait(max(0.0, began + self._interval - time.monotonic()))
        if self._client is not None:
            self._client.close()

    def _round(self) -> Round:
        at = time.monotonic()
        try:
            if self._client is None:
                self._client = Client(self._settings, [self.seen.endpoint], logger="")
            status = self._call("Maintenance/Status", Message("etcdserverpb.StatusRequest"))
        except CallError as error:
            return Round(at, error=str(error))
        except Exit as refused:
            return Round(at, error=refused.message or "")
        return Round(
            at,
            status,
            members=self._members(),
            read_seconds=self._read_seconds(),
            counters=self._counters(),
        )

    def _call(self, method: str, request: Message, seconds: float | None = None) -> Message:
        assert self._client is not None, "there is one once a round has begun"
        deadline = Deadline(self._settings.command_timeout if seconds is None else seconds)
        answer_type = f"{request.type.removesuffix('Request')}Response"
        return self._client.call(f"/etcdserverpb.{method}", request, answer_type, deadline, reads=True)

    def _members(self) -> list[Message]:
        try:
            answer = self._call("Cluster/MemberList", Message("etcdserverpb.MemberListRequest"))
        except CallError:
            return []
        return answer.children("members")

    def _read_seconds(self) -> float | None:
        began = time.monotonic()
        seconds = min(self._settings.command_timeout, max(self._interval, READ_SECONDS_MIN))
        try:
            self._call("KV/Range", Message("etcdserverpb.RangeRequest", key=b"health"), seconds)
        except CallError as error:
            if error.message != PERMISSION_DENIED:  # which is answered after the quorum has been asked
                return None
        return time.monotonic() - began

    def _counters(self) -> dict[str, float]:
        target, tls = Target(self.seen.endpoint), self._settings.tls
        scheme = "https" if target.speaks_tls(tls is not None) else "http"
        url = f"{scheme}://{target.name}/metrics"
        try:
            return values(fetch(url, tls, self._settings.command_timeout), METRICS)
        except Unknown:
            return {}


class ChangeWatch(Worker):
    """Watches all keys for the hottest prefixes, and tries again every `interval` seconds where it may not or
    cannot; `failure` then says why."""

    def __init__(self, settings: Settings, depth: int, interval: float) -> None:
        self.prefixes = HotPrefixes(depth, time.monotonic())
        self.failure = ""
        self._settings = settings
        self._interval = interval
        self._watcher: Watcher | None = None
        self._stopped = Event()
        super().__init__()

    def stop(self) -> None:
        self._stopped.set()
        if self._watcher is not None:
            self._watcher.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._watch()
            except Exit as refused:
                self.failure = refused.message or ""
            self._stopped.wait(self._interval)

    def _watch(self) -> None:
        request = Message("etcdserverpb.WatchCreateRequest", key=ALL_KEYS, range_end=ALL_KEYS)
        client = Client(self._settings, logger="")
        self._watcher = Watcher(client, request, has_leader=False)
        if not self._stopped.is_set():  # as it may have been before there was a watcher to close
            for answer in self._watcher.answers():
                self.failure = answer.error
                self.prefixes.count([event.child("kv").data("key") for event in answer.events])
        client.close()
