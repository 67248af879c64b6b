"""Members for other people's tests: a real `etcd` in a process of its own, on free ports, gone afterwards.

    with testing.Server(tmp_path / "data") as etcd:
        client = connect(etcd.endpoint)

`pyetcd.testing.pytest_plugin` has fixtures made of it; pytest finds them where pyetcd is installed. What runs
inside the test's own process instead is `pyetcd.embed`.

Rules that hold here: nothing waits without a deadline; what the server prints is read all the time, the last
lines are kept for the message of a failure; only the standard library is imported, since every run of pytest
imports this.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from pyetcd.launching import PORT_TAKEN, PORTS_TRIED_MAX, Addressed, Setting, command_line, free_port

READY: Final = b"ready to serve client requests"
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
LINES_KEPT: Final = 500

_PROGRAM: Final = "import sys; from pyetcd.cli.etcd import main; sys.exit(main(['etcd', *sys.argv[1:]]))"


class NotReady(Exception):
    """The server ended, or took too long, before it served. The message has what it printed last."""


class Server(Addressed):
    """One member as a process. Flags are etcd's, with underscores for dashes, and may replace any that are
    set here; `unsafe_no_fsync` is set, since a test's data need not survive a power cut."""

    def __init__(self, data_dir: str | os.PathLike[str], **flags: Setting) -> None:
        super().__init__(flags)
        self.data_dir: Final = Path(data_dir)
        self._process: subprocess.Popen[bytes] | None = None
        self._printed = _Printed()
        self._has_served = False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it has not been started"
        return self._process.pid

    def log(self) -> str:
        """The last lines that it printed."""
        return self._printed.text()

    def start(self, timeout_seconds: float = START_SECONDS) -> Self:
        """Serve, again if need be: on the same data, at the same URLs. NotReady."""
        for tries_left in reversed(range(PORTS_TRIED_MAX)):
            self.launch()
            try:
                self.wait_ready(timeout_seconds)
                return self
            except NotReady:
                taken = PORT_TAKEN in self.log()
                if not taken or self._has_served or "initial_cluster" in self._flags or not tries_left:
                    raise
                self._choose_ports()  # somebody else was faster
        raise AssertionError("the last try returns or raises")

    def launch(self) -> None:
        """Start the process and do not wait: members of a new cluster wait for each other."""
        assert not self.running, "it has been started"
        command = [sys.executable, "-c", _PROGRAM, *self._arguments()]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        assert self._process.stdout is not None
        self._printed = _Printed(self._process.stdout)

    def wait_ready(self, timeout_seconds: float = START_SECONDS) -> None:
        """NotReady."""
        self._printed.decided.wait(timeout_seconds)
        if not self._printed.is_ready:
            self.kill()
            raise NotReady(f"etcd did not get ready in {timeout_seconds:g} s; it printed:\n{self.log()}")
        self._has_served = True

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """End in good order (SIGTERM)."""
        self._end(signal.SIGTERM, timeout_seconds)

    def kill(self) -> None:
        """End at once (SIGKILL), as in a crash of the process."""
        self._end(signal.SIGKILL, STOP_SECONDS)

    def restart(self) -> None:
        """Stop and start on the same data, at the same URLs."""
        self.stop()
        self.start()

    def _end(self, how: signal.Signals, timeout_seconds: float) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            self._printed.end()
            self._process = None

    def _arguments(self) -> list[str]:
        name = self._flags.get("name", "default")
        settings: dict[str, Setting] = {
            "data_dir": str(self.data_dir),
            "listen_client_urls": self.client_url,
            "advertise_client_urls": self.client_url,
            "listen_peer_urls": self.peer_url,
            "initial_advertise_peer_urls": self.peer_url,
            "initial_cluster": f"{name}={self.peer_url}",
            "unsafe_no_fsync": True,
            **self._flags,
        }
        return command_line(settings)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Printed:
    """What one run of a process prints, read by a thread: `decided` once it is ready or has ended."""

    def __init__(self, stream: IO[bytes] | None = None) -> None:
        self.decided: Final = threading.Event()
        self.is_ready = False
        self._lines: Final[deque[bytes]] = deque(maxlen=LINES_KEPT)
        self._thread: threading.Thread | None = None
        if stream is not None:
            self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
            self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                self._lines.append(line)
                if READY in line:
                    self.is_ready = True
                    self.decided.set()
        self.decided.set()

    def end(self) -> None:
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def text(self) -> str:
        return b"".join(list(self._lines)).decode("utf-8", "replace")


@contextmanager
def cluster(directory: str | os.PathLike[str], size: int = 3, **flags: Setting) -> Iterator[list[Server]]:
    """That many members of one cluster, all serving; each has its data in a directory of its own."""
    urls = {f"m{number}": f"http://127.0.0.1:{free_port()}" for number in range(size)}
    initial = ",".join(f"{name}={url}" for name, url in urls.items())
    with ExitStack() as running:
        servers = []
        for name, url in urls.items():
            own: dict[str, Setting] = {"name": name, "listen_peer_urls": url, "initial_cluster": initial}
            server = Server(Path(directory) / name, **(own | flags))
            server.launch()
            running.callback(server.kill)
            servers.append(server)
        for server in servers:
            server.wait_ready()
        yield servers

