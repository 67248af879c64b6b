"""Patroni nodes as processes: each a real Patroni with a PostgreSQL of its own, meeting at one etcd.

Patroni is looked for on the PATH and beside the interpreter, PostgreSQL where Debian puts it. PostgreSQL does
not run as root: there its processes bear the name of the user `postgres`.
"""

from __future__ import annotations

import http.client
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from servers import free_port

DEBIAN = Path("/usr/lib/postgresql")
OWNER = "postgres"
SCOPE = "demo"
TTL_SECONDS = 20  # Patroni takes no less
WAIT_SECONDS = 90.0
TAIL_BYTES = 3_000


def find_patroni() -> str | None:
    beside = Path(sys.executable).parent / "patroni"
    return str(beside) if beside.exists() else shutil.which("patroni")


def find_postgresql() -> Path | None:
    """The directory of its executables."""
    found = sorted(DEBIAN.glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return None if initdb is None else Path(initdb).parent


def what_is_missing() -> str:
    """Why no node can be run; empty when nothing is in the way."""
    program = find_patroni()
    if program is None:
        return "Patroni is not installed"
    if find_postgresql() is None:
        return "PostgreSQL is not installed"
    try:
        ran = subprocess.run([*_as_somebody(), program, "--version"], capture_output=True, text=True)
    except (OSError, LookupError) as error:
        return f"Patroni cannot be run: {error}"
    return "" if ran.returncode == 0 else f"Patroni does not run: {ran.stderr}"


def _as_somebody() -> list[str]:
    """What to begin a command with, so that it does not run as root, which PostgreSQL refuses.

    In a namespace of its own root bears the name of PostgreSQL's user, and may read what root may.
    """
    if os.geteuid():
        return []
    owner = pwd.getpwnam(OWNER)
    return ["unshare", "--user", f"--map-user={owner.pw_uid}", f"--map-group={owner.pw_gid}"]


def eventually(
    what: str, is_so: Callable[[], bool], details: Callable[[], str] = str, seconds: float = WAIT_SECONDS
) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, f"{what}\n{details()}"
        time.sleep(0.2)  # neither Patroni nor PostgreSQL tells of itself


class Node:
    """One Patroni; made by `Nodes`."""

    def __init__(self, name: str, etcd: str, places: Path) -> None:
        binaries, program = find_postgresql(), find_patroni()
        assert binaries is not None
        assert program is not None
        self.name = name
        self.rest_port, self.port = free_port(), free_port()
        self._program = program
        self._psql = binaries / "psql"
        self._directory = places / name
        self._directory.mkdir(mode=0o700)
        self._settings = self._directory / "patroni.yml"
        self._settings.write_text(yaml.safe_dump(self._configuration(etcd, binaries)))
        self._output = self._directory / "output"
        self.start()

    def _configuration(self, etcd: str, binaries: Path) -> dict[str, Any]:
        return {
            "scope": SCOPE,
            "name": self.name,
            "log": {"level": "INFO"},
            "restapi": {"listen": f"127.0.0.1:{self.rest_port}"},
            "etcd3": {"hosts": [etcd]},
            "bootstrap": {
                "dcs": {"ttl": TTL_SECONDS, "loop_wait": 2, "retry_timeout": 5},
                "initdb": [
                    {"encoding": "UTF8"},
                    {"locale": "C"},
                    {"auth-local": "trust"},
                    {"auth-host": "trust"},
                ],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self._directory / "data"),
                "bin_dir": str(binaries),
                "pgpass": str(self._directory / "pgpass"),
                "pg_hba": ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
                "parameters": {"unix_socket_directories": str(self._directory), "fsync": "off"},
                "authentication": {
                    "superuser": {"username": "postgres"},
                    "replication": {"username": "replicator"},
                },
            },
        }

    def start(self) -> None:
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [*_as_somebody(), self._program, str(self._settings)],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self._directory,
                env={"PATH": os.environ["PATH"], "HOME": str(self._directory), "LC_ALL": "C"},
            )

    def kill(self) -> None:
        """Patroni and its PostgreSQL at once, as when a machine loses power."""
        server = self._server()
        self._process.kill()
        self._process.wait()
        if server:
            _kill(server)

    def stop(self) -> None:
        """As an operator does; the leader gives its place up."""
        self._process.terminate()
        try:
            self._process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _server(self) -> int:
        """The process ID of its PostgreSQL, 0 for none."""
        try:
            return int((self._directory / "data" / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return 0

    def is_(self, role: str) -> bool:
        """Whether Patroni itself says that it is `primary` or `replica`, and running."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=5)
        try:
            connection.request("GET", f"/{role}")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def leads(self) -> bool:
        """Whether Patroni says so and its PostgreSQL takes writes, which may be a moment later."""
        return self.is_("primary") and self._query("select pg_is_in_recovery()").stdout == "f\n"

    def sql(self, statement: str) -> str:
        done = self._query(statement)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _query(self, statement: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self._psql), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-qtAc", statement],
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
        )

    def output(self) -> str:
        return self._output.read_text(errors="replace")[-TAIL_BYTES:]


class Nodes:
    """Two of them, in a directory that goes with them."""

    def __init__(self, etcd: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="patroni-", ignore_cleanup_errors=True)
        places = Path(self._directory.name)
        self.nodes = [Node(name, etcd, places) for name in ("one", "two")]

    def leading(self) -> Node:
        """The one that leads, once it does and the other follows."""

        def settled() -> bool:
            return sorted(self._roles()) == ["primary", "replica"] and any(
                each.leads() for each in self.nodes
            )

        eventually("no leader with a replica", settled, self.output)
        return next(node for node in self.nodes if node.is_("primary"))

    def other(self, node: Node) -> Node:
        return next(each for each in self.nodes if each is not node)

    def output(self) -> str:
        return "\n".join(f"{node.name}:\n{node.output()}" for node in self.nodes)

    def _roles(self) -> list[str]:
        return [role for node in self.nodes for role in ("primary", "replica") if node.is_(role)]

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        self._directory.cleanup()


def _kill(process: int) -> None:
    """A PostgreSQL server with its children: a server that is killed leaves them for a moment."""
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass
