"""What the store hands back: answers as bytes, and work that is not finished yet.

A request ends in one of three ways:

* an `Answer`: done;
* a `Job[Answer]`: the state is as it will be (a write is visible, a read has its revision), only the answer
  takes more slices. Later entries may be applied meanwhile;
* an `Unfinished`: the state itself needs more slices. No later entry may be applied until its `steps` have
  ended.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

Result = TypeVar("Result")

Job: TypeAlias = Generator[None, None, Result]


class Answer:
    """`revision` for the header; `body` is the encoding of every other field of the response, in parts."""

    __slots__ = ("body", "revision")

    def __init__(self, revision: int, body: Sequence[bytes]) -> None:
        self.revision = revision
        self.body = body


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A write whose conditions need more slices before it can be applied."""

    steps: Generator[None, None, Answer | Job[Answer]]


Work: TypeAlias = Answer | Job[Answer]
Applied: TypeAlias = Answer | Job[Answer] | Unfinished


def finish(job: Generator[None, None, Result]) -> Result:
    """Run a job to its end without a loop: for tests, tools and recovery."""
    while True:
        try:
            next(job)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def started(job: Generator[None, None, Result]) -> Generator[None, None, Result]:
    """Run a job to its first yield: what it holds (a pin) is held from now on, until `close()` at the
    latest.
    """
    try:
        next(job)
    except StopIteration as stop:
        return ended(stop.value)
    return job


def ended(result: Result) -> Generator[None, None, Result]:
    """A job that has its result already."""
    return result
    yield
