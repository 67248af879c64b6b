"""Simple tokens: how long they live, what ends them, and what can be said of one that is not known."""

from __future__ import annotations

import random

from pyetcd.auth.simple_tokens import DEFAULT_TTL_SECONDS, SimpleTokens


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_token_lives_as_long_as_it_is_used() -> None:
    clock = Clock()
    tokens = SimpleTokens(clock, random.Random(1), 10)
    tokens.enable()
    token = tokens.assign("a", 1, tokens.prefix(), 7, True)
    assert token.endswith(".6"), "the entry before, as in etcd"
    for _ in range(3):
        clock.now += 9
        caller = tokens.caller(token, 5)
        assert caller is not None
        assert (caller.name, caller.revision) == ("a", 5)
    clock.now += 10
    assert tokens.caller(token, 5) is None


def test_what_has_expired_is_forgotten_in_time() -> None:
    clock = Clock()
    tokens = SimpleTokens(clock, random.Random(1), 10)
    tokens.enable()
    old, used = (tokens.assign("a", 1, tokens.prefix(), index, True) for index in (1, 2))
    clock.now += 6
    assert tokens.caller(used, 1) is not None
    clock.now += 6
    tokens.sweep()
    assert list(tokens._names) == [used]
    assert tokens.caller(old, 1) is None


def test_no_time_to_live_is_the_usual_one() -> None:
    clock = Clock()
    tokens = SimpleTokens(clock, random.Random(1), 0)
    tokens.enable()
    token = tokens.assign("a", 1, "p", 1, True)
    clock.now += DEFAULT_TTL_SECONDS - 1
    assert tokens.caller(token, 1) is not None


def test_a_users_tokens_end_with_the_user_and_all_when_it_is_turned_off() -> None:
    tokens = SimpleTokens(Clock(), random.Random(1), 10)
    tokens.enable()
    of_a, of_b = tokens.assign("a", 1, "p", 1, True), tokens.assign("b", 1, "q", 2, True)
    tokens.invalidate("a")
    assert tokens.caller(of_a, 1) is None
    assert tokens.caller(of_b, 1) is not None
    tokens.disable()
    assert tokens.caller(of_b, 1) is None
    tokens.assign("b", 1, "r", 3, True)
    assert tokens.caller("r.2", 1) is None, "there are none while it is off"


def test_an_unknown_token_says_which_entry_to_wait_for() -> None:
    tokens = SimpleTokens(Clock(), random.Random(1), 10)
    tokens.enable()
    known = tokens.assign("a", 1, "p", 9, True)
    assert tokens.index_of(known) == 0
    assert tokens.index_of("x.12") == 13
    for text in (
        "",
        "x",
        "x.",
        "x.-1",
        "x.1.2",
        "x.٣",
        "x.99999999999999999999999",
        "x.18446744073709551616",
    ):
        assert tokens.index_of(text) == 0, text
