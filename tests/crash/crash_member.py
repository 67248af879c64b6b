"""Members to be killed, damaged and refused: as the real executable, or as its `main` in a forked process.

Nothing here waits without a deadline, and whatever was started is gone when it is closed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired

import grpc
from crash_fork import ForkedProcess, Prepare
from servers import CHANNEL_OPTIONS, READY_SECONDS, STOP_SECONDS, Etcd, Printed, free_port

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "1"))  # how much more than usual
REFUSAL_SECONDS = 10.0  # "within seconds"; generous, since the machine may be busy

@dataclass(frozen=True, slots=True)
class Refusal:
    """How a start that came to nothing ended."""

    code: int
    lines: list[dict[str, object]]
    text: str
    seconds: float

    @property
    def fatal(self) -> str:
        """The one fatal line's error, or its message where it has none."""
        [line] = [line for line in self.lines if line["level"] == "fatal"]
        return str(line.get("error", line["msg"]))


class Crashable(Etcd):
    """pyetcd on `data`, by default `directory/data`. Not started when made."""

    def __init__(
        self, directory: Path, *, data: Path | None = None, forked: bool = True, **flags: object
    ) -> None:
        self.directory = directory
        self.data = data or directory / "data"
        self.flags = {name.replace("_", "-"): str(value) for name, value in flags.items()}
        self.port, self.peer_port = free_port(), free_port()
        self._forked = forked
        self._started = False

    def command(self) -> list[str]:
        command = super().command()
        return [f"--data-dir={self.data}" if part.startswith("--data-dir=") else part for part in command]

    def start(self, prepare: Prepare | None = None, *values: object) -> None:
        if not self._forked:
            assert prepare is None, "only a forked process can be prepared"
            super().start()
            self._started = True
            return
        self._fork(prepare, values)
        if not self.printed.wait_ready(READY_SECONDS):
            self.end()
            raise AssertionError(f"not ready:\n{self.printed.text()}")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options=CHANNEL_OPTIONS)

    def _fork(self, prepare: Prepare | None, values: Sequence[object]) -> None:
        command = [*self.command(), *(f"--{name}={value}" for name, value in self.flags.items())]
        self.process = ForkedProcess(command, prepare, *values)  # type: ignore[assignment]
        self.printed = Printed(self.process)
        self._started = True

    def refused(self, prepare: Prepare | None = None, *values: object) -> Refusal:
        """Start it where it cannot, and see how it ends."""
        began = time.monotonic()
        self._fork(prepare, values)
        return self.ending(began, REFUSAL_SECONDS)

    def ending(self, began: float, seconds: float) -> Refusal:
        """Wait for its end, which comes by itself."""
        try:
            code = self.process.wait(seconds)
        except TimeoutExpired:
            self.end()
            raise AssertionError(f"still there after {seconds} s:\n{self.printed.text()}") from None
        took = time.monotonic() - began
        self.printed.end()
        text = self.printed.text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        assert "Traceback" not in text, text
        return Refusal(code, lines, text, took)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(STOP_SECONDS)
        self.printed.end()

    def close(self) -> None:
        if self._started:
            super().close()


    def refuses(self, *words: str) -> Refusal:
        """A start is refused as it should be: at once, with exit code 1 and one clear line that has `words`,
        and the directory stays as it was."""
        before = contents(self.data)
        refusal = self.refused()
        assert refusal.code == 1, refusal.text
        assert all(word in refusal.fatal for word in words), (words, refusal.text)
        after = contents(self.data)
        assert before.keys() == after.keys()
        assert before == after
        return refusal


def contents(directory: Path) -> dict[str, bytes | int | str]:
    """Everything in a directory, to be compared: files by their bytes, directories by their mode."""
    found: dict[str, bytes | int | str] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = path.stat().st_mode
        else:
            found[name] = path.read_bytes()
    return found
