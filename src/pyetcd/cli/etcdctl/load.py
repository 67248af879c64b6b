"""Many clients that write at once, for `check`: in processes of their own, and timed.

One Python process could not write as fast as the larger loads ask for, and what is measured must be the
cluster. So the clients are spread over some processes, each with a thread for each of its clients. These are
forked before anything has been said to a server: the wire does not live through a fork.
"""

from __future__ import annotations

import os
import signal
import time
from array import array
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from random import Random
from threading import Lock, Thread

from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.session import raw
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.process import BaseProcess

    from pyetcd.cli.etcdctl.settings import Settings

PUT = "/etcdserverpb.KV/Put"
CLIENTS_PER_PROCESS = 250
SLACK_SECONDS = 0.05  # how late a write may begin and still count as in time: threads do not wake at once
TELL_SECONDS = 0.1
RANDOM_BYTES = 8


@dataclass(frozen=True, slots=True)
class Work:
    """So many clients put keys of these sizes: `count` of them, or for `seconds` at `per_second`."""

    prefix: str
    clients: int
    key_bytes: int
    value_bytes: int
    count: int = 0
    seconds: float = 0.0
    per_second: float = 0.0


@dataclass
class Tally:
    """Seconds that each good write took, and how often each error came."""

    durations: array[float] = field(default_factory=lambda: array("d"))
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        self.durations.extend(other.durations)
        for error, times in other.errors.items():
            self.errors[error] = self.errors.get(error, 0) + times

    @property
    def per_second(self) -> float:
        return len(self.durations) / self.seconds if self.seconds else 0.0

    @property
    def slowest(self) -> float:
        return max(self.durations, default=0.0)

    @property
    def deviation(self) -> float:
        count = len(self.durations)
        if not count:
            return 0.0
        mean = sum(self.durations) / count
        return float((sum((each - mean) ** 2 for each in self.durations) / count) ** 0.5)


class Crew:
    """The processes. To be made before the first call to a server."""

    def __init__(self, settings: Settings, work: Work) -> None:
        processes = max(1, min(os.cpu_count() or 1, work.clients // CLIENTS_PER_PROCESS))
        context = get_context("fork")
        self._lines: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for share in shares(work, processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(settings, share, theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            self._lines.append(ours)
            self._processes.append(process)

    def prepare(self) -> None:
        """Have all clients made. Exit with the first one's reason if one cannot be."""
        for line in self._lines:
            told = _received(line)
            if isinstance(told, tuple):
                raise Exit(*told)

    def work(self, told: Callable[[int], None], unwanted: Callable[[], bool]) -> Tally:
        """Write; `told` hears how many writes were done, some times a second. All ends early once `unwanted`
        says so."""
        tally = Tally()
        started = time.monotonic()
        self._tell("go")
        waiting, stopped = list(self._lines), False
        while waiting:
            for line in wait(waiting, TELL_SECONDS):
                assert isinstance(line, Connection)
                answer = _received(line)
                if isinstance(answer, Tally):
                    tally.add(answer)
                    waiting.remove(line)
                elif isinstance(answer, int):
                    told(answer)
            if unwanted() and not stopped:
                stopped = True
                self._tell("stop")
        tally.seconds = time.monotonic() - started
        return tally

    def _tell(self, what: str) -> None:
        for line in self._lines:
            line.send(what)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def shares(work: Work, processes: int) -> list[Work]:
    """The work, split evenly."""
    split: list[Work] = []
    for at in range(processes):
        clients = work.clients * (at + 1) // processes - work.clients * at // processes
        count = work.count * (at + 1) // processes - work.count * at // processes
        split.append(replace(work, clients=clients, count=count, per_second=work.per_second / processes))
    return split


def _received(line: Connection) -> Tally | tuple[int, str] | int | None:
    """None: all clients are made; a number: so many writes more. Exit."""
    try:
        answer: Tally | tuple[int, str] | int | None = line.recv()
    except EOFError:
        raise Exit(ERROR, "a process of clients has ended") from None
    return answer


def _work(settings: Settings, work: Work, line: Connection, parent: int) -> None:
    """What each process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all, but the parent decides
    try:
        clients = [Client(settings) for _ in range(work.clients)]
    except Exit as error:
        line.send((error.code, error.message))
        return
    line.send(None)
    line.recv()
    writers = _Writers(work)
    threads = [Thread(target=writers.write, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    told = 0
    while any(thread.is_alive() for thread in threads) and os.getppid() == parent:
        if line.poll(TELL_SECONDS):
            line.recv()
            writers.stop()
        done = len(writers.tally.durations)
        line.send(done - told)
        told = done
    line.send(writers.tally)


class _Writers:
    """What the threads of one process share."""

    def __init__(self, work: Work) -> None:
        self.tally = Tally()
        self._prefix = raw(work.prefix)
        self._padding = bytes(max(0, work.key_bytes - RANDOM_BYTES))
        self._value = bytes(work.value_bytes)
        self._random = Random()
        self._lock = Lock()
        self._left = work.count
        self._step = 1 / work.per_second if work.per_second else 0.0
        self._next = time.monotonic()
        self._end = self._next + work.seconds
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def write(self, client: Client) -> None:
        """Write until there is nothing more to write."""
        tally = self.tally
        while self._turn():
            key = self._prefix + self._random.randbytes(RANDOM_BYTES) + self._padding
            request = Message("etcdserverpb.PutRequest", key=key, value=self._value)
            started = time.monotonic()
            try:
                client.call(PUT, request, "etcdserverpb.PutResponse", Deadline(), reads=False)
            except CallError as error:
                with self._lock:
                    tally.errors[str(error)] = tally.errors.get(str(error), 0) + 1
            else:
                tally.durations.append(time.monotonic() - started)

    def _turn(self) -> bool:
        """Wait for the next write's time. False when there is none."""
        with self._lock:
            if self._stopped:
                return False
            if not self._step:
                self._left -= 1
                return self._left >= 0
            now = time.monotonic()
            turn = max(self._next, now - SLACK_SECONDS)
            if turn >= self._end:
                return False
            self._next = turn + self._step
        if turn > now:
            time.sleep(turn - now)
        return not self._stopped
