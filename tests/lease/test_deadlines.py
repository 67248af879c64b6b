"""The queue of deadlines, against a plain list; and the one timer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from lease_fakes import VirtualLoop

from pyetcd.lease.deadlines import SWEEP_MIN, TICK_SECONDS, Deadlines, WakeUp, tick_of

TIMES = st.floats(min_value=0, max_value=10**10, allow_nan=False)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.floats(0, 5), st.integers(1, 30)),
        st.tuples(st.just("discard"), st.just(0.0), st.integers(1, 30)),
        st.tuples(st.just("take"), st.floats(0, 5), st.just(0)),
    ),
    max_size=60,
)


@given(TIMES)
def test_a_tick_is_never_before_its_time_and_less_than_one_tick_after_it(when: float) -> None:
    tick = tick_of(when)
    assert when <= tick * TICK_SECONDS < when + TICK_SECONDS * 1.01
    assert tick_of(tick * TICK_SECONDS) == tick


@given(STEPS)
def test_what_is_due_is_taken_whatever_was_added_and_discarded_before(
    steps: list[tuple[str, float, int]],
) -> None:
    deadlines = Deadlines()
    plain: dict[int, int] = {}
    for step, when, lease in steps:
        if step == "add":
            if lease in plain:
                deadlines.discard(plain[lease], lease)
            plain[lease] = deadlines.add(when, lease)
            assert plain[lease] == tick_of(when)
        elif step == "discard":
            deadlines.discard(plain.pop(lease, 7), lease)
        else:
            taken = deadlines.take_due(when)
            due = {number for number, tick in plain.items() if tick * TICK_SECONDS <= when}
            if taken is None:
                assert not due
            else:
                assert taken in due
                assert plain[taken] == min(plain.values())
                del plain[taken]
        first = min(plain.values()) * TICK_SECONDS if plain else None
        assert deadlines.first == first
        assert len(deadlines) == len(plain)


def test_ticks_that_are_empty_again_do_not_pile_up() -> None:
    deadlines = Deadlines()
    deadlines.add(1.0, 1)
    for number in range(10 * SWEEP_MIN):
        deadlines.discard(deadlines.add(float(number + 100), 2), 2)
    assert len(deadlines._ticks) <= SWEEP_MIN + 3
    assert deadlines.first == 1.0


def test_the_timer_goes_off_at_the_earliest_time_asked_for() -> None:
    loop = VirtualLoop(0.0)
    fired: list[float] = []
    wake_up = WakeUp(loop, lambda: fired.append(loop.now))
    for when in (5.0, 3.0, None, 4.0):
        wake_up.at(when)
    assert loop.live_timers == 1
    loop.advance(10)
    assert fired == [3.0]
    wake_up.at(2.0)  # past: as soon as can be
    loop.advance(0)
    assert fired == [3.0, 10.0]
    wake_up.at(20.0)
    loop.advance(50)
    assert fired == [3.0, 10.0, 20.0]
    wake_up.at(70.0)
    wake_up.stop()
    wake_up.at(80.0)
    loop.advance(50)
    assert fired == [3.0, 10.0, 20.0]
