"""Keeping a lease alive: renewals at a third of its TTL, through losses of the connection.

The lease is given up when no answer has come for a whole TTL, or when the server does not know it any more.
"""

from __future__ import annotations

from threading import Event, Thread

from pyetcd._native import RpcError
from pyetcd.cli.etcdctl.client import CallError, Deadline
from pyetcd.proto import lite
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyetcd._native import ClientStream
    from pyetcd.cli.etcdctl.session import Session

KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
GRANT = "/etcdserverpb.Lease/LeaseGrant"
FIRST_ANSWER_SECONDS = 5.0  # how long a lease is believed in before its TTL is known, without a dial timeout
RETRY_SECONDS = 0.5
SLICE_SECONDS = 0.1


def renewal(stream: ClientStream, lease: int, timeout: float | None) -> Message:
    """Ask once on an open stream. RpcError or TimeoutError."""
    stream.send(Message("etcdserverpb.LeaseKeepAliveRequest", ID=lease).encode())
    message = stream.recv(timeout)
    if message is None:
        raise TimeoutError
    return lite.decode("etcdserverpb.LeaseKeepAliveResponse", message)


class Keeper:
    """Renews `lease` until it is gone; `told` gets every answer."""

    def __init__(self, session: Session, lease: int, told: Callable[[Message], None]) -> None:
        self._session = session
        self._lease = lease
        self._told = told
        dial = session.settings.dial_timeout
        self._alive = Deadline(dial + 1.0 if dial > 0 else FIRST_ANSWER_SECONDS)
        self._stopped = Event()
        self._stream: ClientStream | None = None

    def run(self) -> None:
        """Returns when the lease has expired, was revoked or cannot be renewed any more, or after `stop`."""
        while not (self._alive.passed() or self._stopped.is_set()):
            try:
                stream = self._stream = self._session.client.stream(KEEP_ALIVE, Deadline())
                try:
                    if not self._renew_on(stream):
                        return
                finally:
                    stream.cancel()
            except (RpcError, CallError, TimeoutError):
                if not self._stopped.is_set():
                    self._session.client.next_endpoint()
            self._pause(RETRY_SECONDS)

    def stop(self) -> None:
        """End `run` in another thread. The lease lives on until its time is over."""
        self._stopped.set()
        if self._stream is not None:
            self._stream.cancel()

    def _renew_on(self, stream: ClientStream) -> bool:
        """Renew for as long as the stream lives. False once the lease is gone, or after `stop`."""
        while not self._stopped.is_set():
            answer = renewal(stream, self._lease, self._patience())
            ttl = answer.number("TTL")
            if ttl <= 0:
                return False
            self._told(answer)
            self._alive = Deadline(ttl)
            self._pause(ttl / 3)
        return False

    def _patience(self) -> float | None:
        """How long one answer is waited for. With other endpoints there must be time left to ask those."""
        left = self._alive.left()
        return left / 2 if left is not None and self._session.client.has_others else left

    def _pause(self, seconds: float) -> None:
        left = self._alive.left()
        self._stopped.wait(seconds if left is None else min(seconds, left))


class HeldLease:
    """A lease of its own that is kept alive in the background."""

    def __init__(self, session: Session, ttl: int) -> None:
        """Grant it; however long that takes, as with etcd's sessions. CallError."""
        request = Message("etcdserverpb.LeaseGrantRequest", TTL=ttl)
        answer_type = "etcdserverpb.LeaseGrantResponse"
        answer = session.client.call(GRANT, request, answer_type, Deadline(), reads=False)
        self.id = answer.number("ID")
        self._lost = Event()
        self._keeper = Keeper(session, self.id, lambda _: None)
        self._thread = Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        try:
            self._keeper.run()
        finally:
            self._lost.set()

    def wait_until_lost(self) -> None:
        """Wait until the lease cannot be kept alive any more.

        In slices: the kernel may hand a signal to another thread when several come at once, and Python's
        handler runs only when the main thread wakes.
        """
        while not self._lost.wait(SLICE_SECONDS):
            pass

    def let_go(self) -> None:
        """Keep it alive no longer. It is not revoked, as etcdctl's are not: it runs out by itself."""
        self._keeper.stop()
        self._thread.join()
