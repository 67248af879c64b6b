"""The checker catches what it is for: a true history passes, and every kind of forgery of it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from history import Changes, KeyState, Kind, Log, Operation, Outcome, Violation, check, merge

A, B = b"k/a", b"k/b"
FIRST = 10
REVISIONS: list[Changes] = [{A: b"1"}, {B: b"2"}, {A: b"3"}, {A: None}, {A: b"5"}]


def told(kind: Kind, key: bytes, at: float, revision: int, value: bytes = b"", **more: object) -> Operation:
    """An answered operation, which took from `at` to `at` + 0.5."""
    operation = Operation(kind, key, at, value, outcome=Outcome.OK, returned=at + 0.5, revision=revision)
    operation.changed = kind in (Kind.PUT, Kind.DELETE, Kind.SWAP)
    return replace(operation, **more)  # type: ignore[arg-type]


def a_history() -> dict[str, Operation]:
    a11, a13 = KeyState(A, b"1", 11, 11, 1), KeyState(A, b"3", 11, 13, 2)
    a15, b12 = KeyState(A, b"5", 15, 15, 1), KeyState(B, b"2", 12, 12, 1)
    return {
        "first put": told(Kind.PUT, A, 1, 11, b"1"),
        "read": told(Kind.READ, A, 2, 11, found=(a11,)),
        "put b": told(Kind.PUT, B, 3, 12, b"2"),
        "swap": told(Kind.SWAP, A, 4, 13, b"3", expected=11),
        "swap in vain": told(Kind.SWAP, A, 5, 13, b"4", expected=11, changed=False, found=(a13,)),
        "all": told(Kind.READ_ALL, b"k/", 6, 13, found=(a13, b12)),
        "delete": told(Kind.DELETE, A, 7, 14),
        "read of nothing": told(Kind.READ, A, 8, 14),
        "delete of nothing": told(Kind.DELETE, A, 8.1, 14, changed=False),
        "unknown": Operation(Kind.PUT, A, 9, b"5"),
        "failed": Operation(Kind.PUT, A, 9, b"6", outcome=Outcome.FAILED, returned=9.1),
        "late read": told(Kind.READ, A, 11, 15, found=(a15,)),
        "stale": told(Kind.STALE_READ, A, 11, 11, found=(a11,)),
    }


def run(history: dict[str, Operation], revisions: list[Changes] = REVISIONS) -> None:
    check(Log(FIRST, revisions), list(history.values()), b"k/")


def test_a_true_history_passes() -> None:
    run(a_history())


def test_an_unknown_write_may_not_have_been_done_and_keys_of_others_do_not_matter() -> None:
    history = a_history()
    del history["late read"]
    run(history, REVISIONS[:4])
    run(history, [*REVISIONS[:4], {b"other": b"x"}])


Forgery = Callable[[dict[str, Operation]], None]


def altered(name: str, **changes: object) -> Forgery:
    def forge(history: dict[str, Operation]) -> None:
        history[name] = replace(history[name], **changes)  # type: ignore[arg-type]

    return forge


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(altered("first put", revision=12), id="a write stands elsewhere than told"),
        pytest.param(altered("first put", value=b"0"), id="another value stands there"),
        pytest.param(altered("first put", revision=16), id="an acknowledged write is lost at the end"),
        pytest.param(altered("first put", changed=False), id="a put that changed nothing"),
        pytest.param(altered("read", found=()), id="a read that does not see a write before it"),
        pytest.param(
            altered("read", found=(KeyState(A, b"1", 11, 11, 2),)), id="a read with a wrong version"
        ),
        pytest.param(altered("put b", invoked=0.1, returned=0.2), id="a write that was told too early"),
        pytest.param(
            altered("late read", revision=13, found=(KeyState(A, b"3", 11, 13, 2),)), id="a stale read"
        ),
        pytest.param(
            altered("all", revision=12, found=(KeyState(A, b"1", 11, 11, 1), KeyState(B, b"2", 12, 12, 1))),
            id="a stale read of all keys",
        ),
        pytest.param(altered("all", found=(KeyState(A, b"3", 11, 13, 2),)), id="a range without a key"),
        pytest.param(altered("swap", expected=12), id="a compare that cannot have held"),
        pytest.param(altered("swap in vain", expected=13), id="a compare that must have held"),
        pytest.param(altered("swap in vain", found=()), id="a failed compare that shows the wrong state"),
        pytest.param(altered("delete", revision=13), id="a deletion at a revision of something else"),
        pytest.param(altered("delete of nothing", revision=13), id="a deletion that found nothing too early"),
        pytest.param(altered("stale", found=()), id="a serializable read of what never was"),
        pytest.param(altered("unknown", outcome=Outcome.FAILED), id="a failed write was done"),
        pytest.param(altered("unknown", invoked=12), id="a write was done before it was asked"),
        pytest.param(altered("unknown", key=B), id="a write was done to another key"),
        pytest.param(
            altered("unknown", kind=Kind.SWAP, expected=13), id="an unknown swap whose compare did not hold"
        ),
        pytest.param(lambda history: history.pop("unknown"), id="a value from nowhere"),
        pytest.param(lambda history: history.pop("delete"), id="a deletion from nowhere"),
        pytest.param(
            altered("delete", outcome=Outcome.UNKNOWN, invoked=12), id="a deletion before it was asked"
        ),
        pytest.param(
            lambda history: history.update(other=told(Kind.PUT, A, 1, 11, b"1")),
            id="one revision for two writes",
        ),
    ],
)
def test_a_forged_history_is_caught(forge: Forgery) -> None:
    history = a_history()
    forge(history)
    with pytest.raises(Violation):
        run(history)


def test_a_write_that_was_done_twice_is_caught() -> None:
    with pytest.raises(Violation, match="done at 15 and at 16"):
        run(a_history(), [*REVISIONS, {A: b"5"}])


def test_a_deletion_that_was_done_twice_is_caught() -> None:
    history = a_history()
    history["delete"].outcome = Outcome.UNKNOWN
    with pytest.raises(Violation, match="nobody has asked"):
        run(history, [*REVISIONS, {A: None}])


def test_a_deletion_of_nothing_is_caught() -> None:
    with pytest.raises(Violation, match="does not exist"):
        Log(FIRST, [{A: None}])


WATCHED = [(FIRST + 1 + at, changes) for at, changes in enumerate(REVISIONS)]


def test_watchers_that_saw_the_same_make_a_log() -> None:
    log = merge(FIRST, 15, {"m1": WATCHED, "m2": list(WATCHED)}, {"m3": WATCHED[:2], "m4": []})
    assert (log.first, log.last, log.changes(12)) == (10, 15, {B: b"2"})


@pytest.mark.parametrize(
    "watched",
    [
        pytest.param(WATCHED[1:], id="the first is missing"),
        pytest.param(WATCHED[:2] + WATCHED[3:], id="one is missing"),
        pytest.param(WATCHED[:-1], id="the last is missing"),
        pytest.param(WATCHED[:2] + WATCHED[1:], id="one came twice"),
        pytest.param([WATCHED[1], WATCHED[0], *WATCHED[2:]], id="two came in the wrong order"),
        pytest.param([*WATCHED[:4], (15, {A: b"other"})], id="another value"),
        pytest.param([*WATCHED[:4], (15, {A: b"5", B: b"too much"})], id="one event too many"),
        pytest.param([*WATCHED[:4], (15, {})], id="one event too few"),
    ],
)
def test_a_watcher_that_saw_something_else_is_caught(watched: list[tuple[int, Changes]]) -> None:
    for both in ({"m1": WATCHED, "m2": watched}, {"m2": watched, "m1": WATCHED}):
        with pytest.raises(Violation):
            merge(FIRST, 15, both, {})
