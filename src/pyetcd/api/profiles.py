"""What a Python process can tell of itself while it runs: where it spends its time, what it allocates, what
it waits for. All of it is text.

Time is sampled as Go does it: SIGPROF comes for every 10 ms of CPU that the process has used, and its handler
looks at the stack of the loop. (A thread that samples would get its turn just when the loop waits.) It costs
nothing while nobody asks. What is compiled has no frames: its time counts to the Python that called it, and
that of other threads to what the loop was doing.
"""

from __future__ import annotations

import asyncio
import io
import signal
import sys
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from types import FrameType
from typing import Final

SAMPLES_A_SECOND: Final = 100
DEPTH_MAX: Final = 100
SITES_MAX: Final = 100
ALLOCATION_FRAMES: Final = 12


class Sampler:
    """Stacks of the main thread, and how often each was seen. To be begun and ended there."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, ...]] = Counter()

    def begin(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, 1 / SAMPLES_A_SECOND, 1 / SAMPLES_A_SECOND)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        self._seen[tuple(_names(frame))] += 1

    def end(self) -> bytes:
        """One line for each stack: outermost frame first, parted by `;`, and the number."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)  # a late one would end the process
        lines = (f"{';'.join(stack)} {times}\n" for stack, times in self._seen.most_common())
        return "".join(lines).encode()


def _names(frame: FrameType | None) -> list[str]:
    names: list[str] = []
    while frame is not None and len(names) < DEPTH_MAX:
        code = frame.f_code
        names.append(f"{frame.f_globals.get('__name__', '?')}.{code.co_name}:{frame.f_lineno}")
        frame = frame.f_back
    names.reverse()
    return names


def stacks(tasks: Iterable[asyncio.Task[object]]) -> bytes:
    """Where every task and every thread is."""
    text = io.StringIO()
    named = sorted(tasks, key=lambda task: task.get_name())
    text.write(f"tasks: {len(named)}\n\n")
    for task in named:
        task.print_stack(file=text)
        text.write("\n")
    frames = sys._current_frames()
    text.write(f"threads: {len(frames)}\n\n")
    for number, frame in frames.items():
        text.write(f"thread {number}\n")
        text.writelines(traceback.format_stack(frame))
        text.write("\n")
    return text.getvalue().encode()


def begin_allocations() -> bool:
    """Trace allocations from now on. False when that is under way already."""
    if tracemalloc.is_tracing():
        return False
    tracemalloc.start(ALLOCATION_FRAMES)
    return True


def end_allocations() -> tracemalloc.Snapshot:
    """What was allocated since then and is still held; nothing is traced any more."""
    snapshot = tracemalloc.take_snapshot()
    tracemalloc.stop()
    return snapshot


def allocations(snapshot: tracemalloc.Snapshot) -> bytes:
    """By the place that asked for it, most bytes first."""
    found = snapshot.statistics("traceback")
    total = sum(each.size for each in found)
    lines = [f"{total} bytes in {sum(each.count for each in found)} blocks are held\n\n"]
    for each in found[:SITES_MAX]:
        lines.append(f"{each.size} bytes in {each.count} blocks\n")
        lines += [f"  {line.strip()}\n" for line in each.traceback.format()]
    return "".join(lines).encode()
