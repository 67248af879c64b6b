"""Linearizable reads that wait: who asks raft what and when, and that each reader is answered once."""

from __future__ import annotations

from pyetcd.member.phases import Phases
from pyetcd.member.reads import RETRY_SECONDS, Reads
from pyetcd.member.slow_requests import SlowRequests
from pyetcd.proto import errors
from pyetcd.raft import ReadState

TIMEOUT_SECONDS = 7.0


class Asked:
    """Reads with time, raft and state machine in the test's hand. `told` gathers how each reader ended: its
    name, and the error's text if there was one."""

    def __init__(self) -> None:
        self.now = 0.0
        self.applied = 0
        self.questions: list[bytes] = []
        self.told: list[str] = []
        self._ids = 0
        self.reads = Reads(
            lambda: self.now,
            self.questions.append,
            self._next,
            lambda: self.applied,
            TIMEOUT_SECONDS,
            SlowRequests(lambda: self.now, Phases(lambda: self.now)),
        )

    def _next(self) -> int:
        self._ids += 1
        return self._ids

    def add(self, *names: str) -> None:
        for name in names:
            self.reads.add(
                lambda name=name: self.told.append(name),  # type: ignore[misc]
                lambda error, name=name: self.told.append(f"{name}: {error.message}"),  # type: ignore[misc]
            )

    def begin(self, *names: str) -> bytes:
        """A round for these; its question."""
        self.add(*names)
        self.reads.flush()
        return self.questions[-1]

    def answer(self, question: bytes, index: int = 0) -> None:
        self.reads.answered(ReadState(index, question))

    def apply(self, index: int) -> None:
        self.applied = index
        self.reads.applied()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.reads.tick(self.now)


def test_all_that_gathered_in_a_turn_share_one_question() -> None:
    asked = Asked()
    question = asked.begin("a", "b", "c")
    assert (len(asked.questions), asked.told) == (1, [])
    asked.answer(question)
    assert asked.told == ["a", "b", "c"]
    assert len(asked.reads) == 0


def test_a_read_waits_until_the_index_of_its_round_is_applied() -> None:
    asked = Asked()
    asked.apply(4)
    asked.answer(asked.begin("a"), 5)
    assert asked.told == []
    asked.apply(5)
    assert asked.told == ["a"]


def test_a_read_that_comes_during_a_round_waits_for_the_next() -> None:
    asked = Asked()
    first = asked.begin("early")
    asked.add("late")
    asked.reads.flush()
    assert len(asked.questions) == 1
    asked.answer(first)
    assert asked.told == ["early"]
    asked.reads.flush()
    asked.answer(first)  # again
    assert asked.told == ["early"]
    asked.answer(asked.questions[1])
    assert asked.told == ["early", "late"]


def test_a_read_that_comes_while_a_round_waits_for_the_log_has_a_question_of_its_own() -> None:
    asked = Asked()
    asked.answer(asked.begin("early"), 5)
    asked.add("late")
    asked.reads.flush()
    asked.apply(5)
    assert asked.told == ["early"]
    asked.reads.flush()
    asked.answer(asked.questions[1], 5)
    assert asked.told == ["early", "late"]


def test_an_answer_to_a_question_of_an_earlier_round_is_no_answer() -> None:
    asked = Asked()
    old = asked.begin("lost")
    asked.pass_time(TIMEOUT_SECONDS)
    new = asked.begin("a")
    slow = asked.reads.slow
    asked.answer(old)
    asked.answer(b"nobody's")
    assert asked.told == ["lost: etcdserver: request timed out"]
    assert asked.reads.slow == slow + 2
    asked.answer(new)
    assert asked.told[1:] == ["a"]


def test_a_lost_question_is_asked_again_and_any_answer_to_the_round_will_do() -> None:
    asked = Asked()
    first = asked.begin("a")
    asked.pass_time(RETRY_SECONDS - 0.1)
    assert len(asked.questions) == 1
    asked.pass_time(0.1)
    assert len(asked.questions) == 2
    asked.answer(first)
    asked.answer(asked.questions[1])
    assert asked.told == ["a"]


def test_what_has_its_index_is_not_asked_for_again() -> None:
    asked = Asked()
    asked.answer(asked.begin("a"), 5)
    asked.pass_time(RETRY_SECONDS)
    asked.reads.first_commit_in_term()
    assert len(asked.questions) == 1


def test_the_first_commit_of_a_term_asks_again_at_once() -> None:
    asked = Asked()
    asked.reads.first_commit_in_term()
    assert asked.questions == []
    asked.begin("a")
    asked.reads.first_commit_in_term()
    assert len(asked.questions) == 2
    asked.answer(asked.questions[1])
    assert asked.told == ["a"]


def test_a_change_of_leader_fails_the_round_and_not_those_that_gather() -> None:
    asked = Asked()
    question = asked.begin("early")
    asked.add("late")
    asked.reads.leader_changed()
    assert asked.told == ["early: etcdserver: leader changed"]
    assert asked.reads.failed == 1
    asked.answer(question)
    asked.reads.flush()
    asked.answer(asked.questions[1])
    assert asked.told[1:] == ["late"]


def test_a_change_of_leader_does_not_matter_once_the_index_is_known() -> None:
    asked = Asked()
    asked.answer(asked.begin("a"), 5)
    asked.reads.leader_changed()
    asked.apply(5)
    assert asked.told == ["a"]
    assert asked.reads.failed == 0


def test_without_an_answer_a_read_ends_when_its_own_time_is_over() -> None:
    """And not when that of the first of its round is."""
    asked = Asked()
    asked.begin("a")
    asked.now = 1.0
    asked.add("b")
    asked.now = 6.0
    asked.add("c")
    asked.pass_time(0.9)
    assert asked.told == []
    asked.pass_time(0.1)
    timed_out = "etcdserver: request timed out"
    assert asked.told == [f"a: {timed_out}"]
    asked.pass_time(1.0)
    assert asked.told == [f"a: {timed_out}", f"b: {timed_out}"]
    asked.answer(asked.questions[-1])
    assert asked.told[2:] == ["c"]
    assert asked.reads.slow == 2


def test_a_read_that_gathers_behind_an_endless_round_ends_in_time() -> None:
    asked = Asked()
    asked.answer(asked.begin("a"), 5)  # which is never applied
    asked.now = 1.0
    asked.add("b")
    asked.pass_time(TIMEOUT_SECONDS)
    assert [name[0] for name in asked.told] == ["a", "b"]
    assert len(asked.reads) == 0
    asked.apply(5)
    assert len(asked.told) == 2


def test_a_round_whose_readers_are_all_gone_makes_room_for_the_next() -> None:
    asked = Asked()
    old = asked.begin("a")
    asked.now = 6.5
    asked.add("b")
    asked.pass_time(0.5)
    assert len(asked.questions) == 2
    asked.answer(old)
    assert asked.told == ["a: etcdserver: request timed out"]
    asked.answer(asked.questions[1])
    assert asked.told[1:] == ["b"]


def test_on_a_member_that_is_current_reads_run_at_once_and_free_those_that_wait() -> None:
    asked = Asked()
    question = asked.begin("a")
    asked.add("b")
    asked.reads.set_current(True)
    assert asked.told == ["a", "b"]
    asked.add("c")
    assert asked.told == ["a", "b", "c"]
    asked.answer(question)
    asked.reads.set_current(False)
    asked.add("d")
    assert asked.told == ["a", "b", "c"]
    asked.reads.flush()
    asked.answer(asked.questions[-1])
    assert asked.told == ["a", "b", "c", "d"]


def test_who_reads_again_when_told_waits_for_a_round_that_begins_later() -> None:
    asked = Asked()
    asked.reads.add(lambda: asked.add("again"), lambda error: None)
    asked.reads.flush()
    asked.answer(asked.questions[0])
    asked.answer(asked.questions[0])
    assert asked.told == []
    asked.reads.flush()
    asked.answer(asked.questions[1])
    assert asked.told == ["again"]


def test_a_stop_fails_all_and_lets_nobody_wait_any_more() -> None:
    asked = Asked()
    question = asked.begin("a")
    asked.add("b")
    asked.reads.stop()
    asked.add("c")
    stopped = errors.STOPPED().message
    assert asked.told == [f"{name}: {stopped}" for name in "abc"]
    asked.answer(question)
    asked.pass_time(TIMEOUT_SECONDS)
    assert len(asked.told) == 3
