"""Members to be killed, damaged and refused: as the real executable, or as its `main` in a forked process.

Nothing here waits without a deadline, and whatever was started is gone when it is closed.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
from crash_fork import ForkedProcess, Prepare
from google.protobuf.message import Message
from servers import CHANNEL_OPTIONS, READY_SECONDS, STOP_SECONDS, Etcd, Printed, free_port

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "1"))  # how much more than usual
SEED = int(os.environ.get("CRASH_SEED", "20"))
CALL_SECONDS = 60.0
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
        self.begin(prepare, *values)
        if not self.printed.wait_ready(READY_SECONDS):
            self.end()
            raise AssertionError(f"not ready:\n{self.printed.text()}")
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options=CHANNEL_OPTIONS)

    def begin(self, prepare: Prepare | None = None, *values: object) -> None:
        """Start it, and wait for nothing."""
        command = [*self.command(), *(f"--{name}={value}" for name, value in self.flags.items())]
        self.process: subprocess.Popen[str] | ForkedProcess  # type: ignore[assignment]
        if self._forked:
            self.process = ForkedProcess(command, prepare, *values)
        else:
            assert prepare is None, "only a forked process can be prepared"
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            )
        self.printed = Printed(self.process)  # type: ignore[arg-type]
        self._started = True

    def refused(self, prepare: Prepare | None = None, *values: object) -> Refusal:
        """Start it where it cannot, and see how it ends."""
        began = time.monotonic()
        self.begin(prepare, *values)
        return self.ending(began, REFUSAL_SECONDS)

    def ending(self, began: float, seconds: float) -> Refusal:
        """Wait for its end, which comes by itself."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"still there after {seconds} s:\n{self.printed.text()}") from None
        took = time.monotonic() - began
        self.printed.end()
        text = self.printed.text()
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        assert "Traceback" not in text, text
        return Refusal(code, lines, text, took)

    def call(self, path: str, request: Message, response: type[Message]) -> Message:
        """`path` without its package, as "KV/Range". Generous: a busy machine makes no test fail."""
        method = self.channel.unary_unary(
            f"/etcdserverpb.{path}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        answer: Message = method(request, timeout=CALL_SECONDS)
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait(STOP_SECONDS)
        self.printed.end()

    def close(self) -> None:
        if self._started and self.process.poll() is None:
            self.end()

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
