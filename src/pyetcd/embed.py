"""A member inside a Python process: the whole of `etcd`, in a thread with an event loop of its own.

    with embed.Member("/var/lib/app/etcd") as member:
        connect(member.endpoint)

What holds here:

* The settings are the executable's flags, with underscores for dashes, read by the same parser:
  `quota_backend_bytes=1 << 30`, `auto_compaction_retention="1h"`. Environment variables are left aside.
* Ports that are not chosen are free ones on 127.0.0.1.
* The member has its own loop since it must beat while the program computes, and the program's loop must not
  wait for it. Both share the interpreter: whoever holds the GIL for longer than the election timeout delays
  elections.
* Log lines go to the logger `pyetcd` of the standard library, one JSON object each, unless `log_outputs` says
  otherwise. Level and outputs belong to the process: of several members the one that starts last decides.
* A process that ends without `stop` has crashed its member, which loses nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from pyetcd import logs
from pyetcd.cli.etcd.assemble import from_settings, with_defaults
from pyetcd.cli.etcd.data_dir import DataDirError, look_at_data_dir
from pyetcd.cli.etcd.flags import FlagError, HelpWanted, parse_arguments
from pyetcd.cli.etcd.log_setup import set_up_logs
from pyetcd.cli.etcd.no_effect import warn_of_no_effect
from pyetcd.cli.etcd.run import run
from pyetcd.launching import PORT_TAKEN, PORTS_TRIED_MAX, Addressed, Setting, command_line
from pyetcd.logs.sinks import WriterLoop
from pyetcd.loop import run as run_loop
from pyetcd.member.config import ServerConfig
from pyetcd.member.config_check import ConfigError, check_start, validate
from pyetcd.storage.files import OsFiles

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 60.0
_BEGINNINGS: Final = ("initial_cluster", "discovery_token", "discovery_srv")
_PYTHON_LEVELS: Final = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


class StartFailed(Exception):
    """The member refused its settings, its data or its surroundings. The text is etcd's."""


class Member(Addressed):
    """One member. Made, it has its URLs; `start` returns once it serves. Stopped, it may be started again."""

    def __init__(self, data_dir: str | os.PathLike[str], **flags: Setting) -> None:
        super().__init__(flags)
        self.data_dir: Final = os.fspath(data_dir)
        self._thread: threading.Thread | None = None
        self._host = _Thread()

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, timeout_seconds: float = START_SECONDS) -> Self:
        """Serve. StartFailed when it cannot; TimeoutError when it does not in time, as others are missing."""
        assert not self.running, "it has been started"
        for tries_left in reversed(range(PORTS_TRIED_MAX)):
            try:
                self._start(timeout_seconds)
                return self
            except StartFailed as error:
                if PORT_TAKEN not in str(error) or not self._chose_ports or not tries_left:
                    raise
                self._choose_ports()  # somebody else was faster
        raise AssertionError("the last try returns or raises")

    @property
    def _chose_ports(self) -> bool:
        return not ("listen_client_urls" in self._flags and "listen_peer_urls" in self._flags)

    def _start(self, timeout_seconds: float) -> None:
        config = configured(self._arguments())
        self._host = host = _Thread()
        self._thread = threading.Thread(target=host.run, args=(config,), name="pyetcd", daemon=True)
        self._thread.start()
        if not host.decided.wait(timeout_seconds):
            self.stop()
            raise TimeoutError(f"the member does not serve after {timeout_seconds:g} s")
        if not host.serves:
            self._thread.join()
            raise StartFailed(str(host.failure)) from host.failure

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """End in good order: leadership is handed on, what is under way ends. TimeoutError if it does not."""
        if self._thread is None:
            return
        self._host.end()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"the member has not ended after {timeout_seconds:g} s")
        self._thread = None

    @property
    def failure(self) -> BaseException | None:
        """What ended it unasked, as a full disk does."""
        return self._host.failure

    def _arguments(self) -> list[str]:
        given: dict[str, Setting] = {"data_dir": self.data_dir, **self._flags}
        given["listen_client_urls"], given["listen_peer_urls"] = self.client_url, self.peer_url
        given.setdefault("advertise_client_urls", self.client_url)
        given.setdefault("initial_advertise_peer_urls", self.peer_url)
        if not any(name in given for name in _BEGINNINGS):
            advertised = str(given["initial_advertise_peer_urls"]).split(",")
            name = given.get("name", "default")
            given["initial_cluster"] = ",".join(f"{name}={url}" for url in advertised)
        return command_line(given)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)


def configured(arguments: list[str]) -> ServerConfig:
    """The checked settings of a command line, logs set up. StartFailed with etcd's text."""
    try:
        settings = parse_arguments(arguments)
        config = from_settings(settings)
        if "log-outputs" in settings.given:
            set_up_logs(config.logging)
        else:
            logs.setup(logs.level_named(config.logging.level or "info") or "info", "json", [Lines()])
        validate(config)
        warn_of_no_effect(config)
        config = with_defaults(config, "")
        look_at_data_dir(OsFiles(), config.data_dir)
        check_start(config)
    except (FlagError, HelpWanted, ConfigError, DataDirError) as error:
        raise StartFailed(str(error)) from error
    return config


class _Thread:
    """The member's thread (a `Host`) as the caller sees it. `decided`: it serves, or never will."""

    def __init__(self) -> None:
        self.decided: Final = threading.Event()
        self.serves = False
        self.failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Callable[[], object] | None = None
        self._lock: Final = threading.Lock()
        self._ending = False

    def run(self, config: ServerConfig) -> None:
        try:
            run_loop(self._run(config))
        except BaseException as error:  # whatever it is, the caller is to hear of it
            self.failed(error)
        finally:
            with self._lock:
                self._loop = None
            self.decided.set()

    async def _run(self, config: ServerConfig) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(run(config, self))
        with self._lock:
            self._loop = loop
            self._end = task.cancel  # a member that waits for others has nothing to put in order
            if self._ending:
                task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            if not self._ending:
                raise

    def end(self) -> None:
        """From any thread, at any time."""
        with self._lock:
            self._ending = True
            if self._loop is not None and self._end is not None:
                self._loop.call_soon_threadsafe(self._end)

    def begins(self, loop: asyncio.AbstractEventLoop) -> None:
        pass

    def descriptors(self) -> int:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # the program's, which is not ours to raise

    def passed_sockets(self) -> list[socket.socket]:
        return []

    def started(self, loop: asyncio.AbstractEventLoop, end: Callable[[int], None]) -> None:
        with self._lock:
            self._end = lambda: end(0)
            if self._ending:
                end(0)

    def loaded(self) -> None:
        pass

    def ready(self) -> None:
        self.serves = True
        self.decided.set()

    def failed(self, error: BaseException) -> None:
        if self.failure is None:
            self.failure = error


class Lines:
    """Log lines as records of the standard library's `logging` (a `logs` sink)."""

    def __init__(self) -> None:
        self._logger: Final = logging.getLogger("pyetcd")

    def write(self, level: int, line: bytes) -> None:
        if self._logger.isEnabledFor(_PYTHON_LEVELS[level]):
            self._logger.log(_PYTHON_LEVELS[level], "%s", line.decode("utf-8", "replace").rstrip("\n"))

    def attach(self, loop: WriterLoop | None) -> None:
        pass

    def flush(self, timeout_seconds: float) -> None:
        pass

    def close(self) -> None:
        pass

