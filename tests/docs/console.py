"""Runs what a page shows: the ```console blocks of one page, in one shell, in an empty directory.

`$ ` begins a command, `> ` continues it, every other line is output. In output `…` stands for anything within
a line, a line that is nothing but `…` for any lines; what differs from run to run (IDs, times, sizes) is
compared as such. A command whose output ends with `^C` is stopped as soon as it has printed the rest.

The ports of a page are moved to free ones: 2379, 2380 and 2381 stand for one free port each, and with a digit
before them (12379, 22380) for others. `etcd`, `etcdctl` and `etcdutl` are ours; `go-etcd` and `go-etcdctl`
those of Go etcd. Servers print to files, and a command that leaves one running is over when it is ready.
"""

from __future__ import annotations

import os
import re
import selectors
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

SECONDS = 60.0
PATIENCE = {"ETCDCTL_COMMAND_TIMEOUT": "30s", "ETCDCTL_DIAL_TIMEOUT": "20s"}  # for machines that are busy
READY = b"ready to serve client requests"
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)")
PORTS = ("2379", "2380", "2381")
PORT_DIGITS = ("", "1", "2", "3", "4", "5")
VARYING = (
    (re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z?"), "<time>"),
    (re.compile(r"\b[0-9a-f]{13,16}\b"), "<id>"),
    (re.compile(r"\b[0-9]{15,20}\b"), "<number>"),
    (re.compile(r"\b[0-9.]+ (kB|MB|B)\b"), "<size>"),
    (re.compile(r"\b[0-9.]+(ms|µs|s)\b"), "<span>"),
    (re.compile(r"\b[0-9a-f]{7,8}\b(?=,|\s*$|\s*\|)"), "<hash>"),
)
MAKE = '#!/bin/bash\n[[ $1 == run ]] && exec etcd\n'  # as the Makefile does once all is built
SHIM = Path(__file__).with_name("shim.sh").read_text()


@dataclass(slots=True)
class Step:
    """A command and what it is to print. `line`: where it stands in the page."""

    line: int
    command: str
    expected: list[str] = field(default_factory=list)

    @property
    def stopped(self) -> bool:
        return bool(self.expected) and self.expected[-1].strip() == "^C"


def blocks(text: str, language: str) -> list[tuple[int, list[str]]]:
    """Line number and lines of each fenced block of a language, without its indent."""
    found: list[tuple[int, list[str]]] = []
    inside: str | None = None
    indent = 0
    for number, line in enumerate(text.splitlines(), 1):
        fence = FENCE.match(line)
        if fence and inside is None:
            inside, indent = fence["language"], len(fence["indent"])
            if inside == language:
                found.append((number, []))
        elif fence:
            inside = None
        elif inside == language:
            found[-1][1].append(line[indent:] if line[:indent].isspace() or not indent else line)
    return found


def steps(text: str) -> list[Step]:
    found: list[Step] = []
    for number, lines in blocks(text, "console"):
        for offset, line in enumerate(lines, 1):
            if line.startswith("$ "):
                found.append(Step(number + offset, line[2:]))
            elif line.startswith("> ") and found and not found[-1].expected:
                found[-1].command += "\n" + line[2:]
            else:
                assert found, f"line {number + offset}: output before any command"
                found[-1].expected.append(line)
    return found


def pattern_of(expected: list[str]) -> re.Pattern[str]:
    """Whole output, line for line."""
    parts = []
    for line in expected:
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(r".*?".join(re.escape(part) for part in settled(line).split("…")) + "\n")
    return re.compile("".join(parts))


def settled(text: str) -> str:
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return "\n".join(line.rstrip() for line in text.split("\n"))


class Console:
    """One shell. Close it: everything it has started ends with it."""

    def __init__(self, directory: Path, programs: Mapping[str, Path]) -> None:
        self.directory = directory / "here"
        self.directory.mkdir()
        self._logs = directory / "logs"
        self._logs.mkdir()
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        path = self._shims(directory / "bin", programs)
        found = f"{path}:{os.environ['PATH']}"
        environment = {"PATH": found, "HOME": str(directory), "LC_ALL": "C.UTF-8", **PATIENCE}
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            env=environment,
            start_new_session=True,
        )
        self._count = 0

    def _shims(self, directory: Path, programs: Mapping[str, Path]) -> Path:
        directory.mkdir()
        for name, program in programs.items():
            values = {
                "program": shlex.quote(str(program)),
                "client": self._ports["2379"],
                "peer": self._ports["2380"],
                "logs": shlex.quote(str(self._logs)),
                "kind": name.removeprefix("go-"),
            }
            text = SHIM
            for key, value in values.items():
                text = text.replace(f"{{{key}}}", value)
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        (directory / "make").write_text(MAKE)
        (directory / "make").chmod(0o755)
        return directory

    def run(self, step: Step) -> None:
        """AssertionError where the output is not what the page shows."""
        expected = step.expected[:-1] if step.stopped else step.expected
        whole = pattern_of(expected)
        command = self._moved(step.command)
        if step.stopped:
            text = self._until(command, whole)
        else:
            text = self._finish(command)
        shown = settled(self._back(text))
        shown += "\n" if shown and not shown.endswith("\n") else ""
        told = [f"line {step.line}: {step.command}", "--- the page", *expected, "--- now", shown, self.logs()]
        assert whole.fullmatch(shown), "\n".join(told)

    def logs(self) -> str:
        """What servers printed last."""
        texts = (path.read_text(errors="replace").splitlines()[-6:] for path in sorted(self._logs.iterdir()))
        return "\n".join("\n".join(lines) for lines in texts)

    def _finish(self, command: str) -> str:
        text = self._ask(command)
        for pid in self._ask("jobs -p").split():
            self._wait_ready(int(pid))
        return text

    def _ask(self, command: str) -> str:
        """Its output, once it is over."""
        self._count += 1
        mark = f"--- over {self._count} ---"
        self._send(f"{{ {command}\n}} </dev/null\necho '{mark}'\n")
        text = self._read(lambda text: text.endswith(mark + "\n"))
        return text.removesuffix(mark + "\n")

    def _until(self, command: str, whole: re.Pattern[str]) -> str:
        """Its output up to where it matches; then it is stopped."""
        self._send(f"{{ {command}\n}} </dev/null &\necho \"--- pid $! ---\"\n")
        pids: list[int] = []

        def enough(text: str) -> bool:
            told = re.search(r"--- pid ([0-9]+) ---\n", text)
            if told and not pids:
                pids.append(int(told[1]))
            rest = re.sub(r"--- pid [0-9]+ ---\n", "", text)
            return bool(pids) and whole.fullmatch(settled(self._back(rest))) is not None

        text = self._read(enough)
        for child in _children(pids[0]):
            os.kill(child, signal.SIGTERM)
        self._ask(f"wait {pids[0]} 2>/dev/null; true")
        return re.sub(r"--- pid [0-9]+ ---\n", "", text)

    def _send(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(text.encode())
        self._bash.stdin.flush()

    def _read(self, enough: object) -> str:
        assert self._bash.stdout is not None
        assert callable(enough)
        deadline = time.monotonic() + SECONDS
        data = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._bash.stdout, selectors.EVENT_READ)
            while not enough(data.decode(errors="replace")):
                left = deadline - time.monotonic()
                ready = left > 0 and selector.select(left)
                chunk = os.read(self._bash.stdout.fileno(), 65536) if ready else b""
                assert chunk, f"not over after {SECONDS:g} s; printed:\n{data.decode()}\n{self.logs()}"
                data += chunk
        return data.decode(errors="replace")

    def _wait_ready(self, pid: int) -> None:
        """Until the server is ready, or has ended, or it is no server."""
        log = self._logs / str(pid)
        deadline = time.monotonic() + SECONDS
        while not (log.exists() and READY in log.read_bytes()):
            if not _is_running(pid) or not _may_serve(pid):
                return
            assert time.monotonic() < deadline, f"a server is not ready after {SECONDS:g} s:\n{self.logs()}"
            time.sleep(0.02)  # files have no event to wait for

    def _moved(self, text: str) -> str:
        for port, own in self._ports.items():
            text = text.replace(port, own)
        return text

    def _back(self, text: str) -> str:
        for port, own in self._ports.items():
            text = re.sub(rf"(?<=:)([1-5]?){own}\b", rf"\g<1>{port}", text)
        return text

    def close(self) -> None:
        for pid in [int(pid.name) for pid in self._logs.iterdir()]:
            if _is_running(pid):
                os.kill(pid, signal.SIGKILL)
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        try:
            self._bash.wait(10)
        except subprocess.TimeoutExpired:
            self._bash.kill()
            self._bash.wait()


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat, from the state on; nothing once it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _children(pid: int) -> list[int]:
    others = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return [other for other in others if _fields(other)[1:2] == [str(pid)]]


def _is_running(pid: int) -> bool:
    return _fields(pid)[:1] not in ([], ["Z"])


def _may_serve(pid: int) -> bool:
    """It is etcd, or still the shell that is about to become it, or between the two."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return not command or b"etcd" in command or command.startswith(b"bash")


def free_ports(count: int) -> list[str]:
    """Of four digits, free alone and with each of the digits before them that pages use."""
    chance = Random()
    found: list[str] = []
    while len(found) < count:
        port = str(chance.randrange(1100, 5500))
        if port not in found and all(_is_free(int(digit + port)) for digit in PORT_DIGITS):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
