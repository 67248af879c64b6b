"""Remembered passwords: good for a moment, for one auth revision, and not to be read from memory."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable

import pytest

from pyetcd.auth import remembered
from pyetcd.auth.remembered import ENTRIES_MAX, Remembered


class Time:
    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.due.append((self.now + seconds, call))

    def pass_by(self, seconds: float) -> None:
        self.now += seconds
        for at, call in [entry for entry in self.due if entry[0] <= self.now]:
            self.due.remove((at, call))
            call()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def memory(time: Time) -> Remembered:
    return Remembered(5.0, lambda: time.now, time.later, random.Random(1))


def test_a_right_password_is_known_until_its_time_is_over(memory: Remembered, time: Time) -> None:
    assert not memory.has(1, "a", "secret")
    memory.note(1, "a", "secret")
    assert memory.has(1, "a", "secret")
    assert not memory.has(1, "a", "Secret")
    assert not memory.has(1, "b", "secret")
    time.pass_by(4.9)
    assert memory.has(1, "a", "secret")
    time.pass_by(0.1)
    assert not memory.has(1, "a", "secret")


def test_nothing_stays_in_memory_after_its_time(memory: Remembered, time: Time) -> None:
    memory.note(1, "a", "secret")
    time.pass_by(3.0)
    memory.note(1, "b", "secret")
    time.pass_by(2.0)
    assert len(memory) == 1
    time.pass_by(5.0)
    assert len(memory) == 0
    assert time.due == []


@pytest.mark.parametrize("other", [0, 2])
def test_another_auth_revision_forgets_everything(memory: Remembered, other: int) -> None:
    memory.note(1, "a", "secret")
    assert not memory.has(other, "b", "")
    assert len(memory) == 0
    assert not memory.has(1, "a", "secret")


def test_a_name_and_a_password_cannot_be_cut_elsewhere(memory: Remembered) -> None:
    memory.note(1, "ab", "cd")
    memory.note(1, "a", "x")
    assert not memory.has(1, "a", "bcd")


def test_there_is_a_bound_and_the_oldest_goes_first(
    memory: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ENTRIES_MAX >= 1000
    monkeypatch.setattr(remembered, "ENTRIES_MAX", 3)
    for name in "abcd":
        memory.note(1, name, "p")
    assert [memory.has(1, name, "p") for name in "abcd"] == [False, True, True, True]


def test_the_password_is_not_what_is_kept_and_equal_ones_look_different(memory: Remembered) -> None:
    memory.note(1, "a", "secret-one")
    memory.note(1, "b", "secret-one")
    kept = memory.__dict__["_known"]
    assert b"secret-one" not in pickle.dumps(kept)
    assert kept["a"][1] != kept["b"][1]
