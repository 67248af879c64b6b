"""What the wire counts of calls, and which of them it names as slow."""

import time

import grpc
import pytest
from wire_harness import DATA, END_STREAM, METHODS, Raw, eventually, frame, message, serving

from pyetcd._native import Limits

SAY, HOLD, FAIL, PARTS, CHAT, DRIP = range(len(METHODS))
OK, CANCELED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 0, 1, 4, 8


class Counted:
    """One method's numbers."""

    def __init__(self, row) -> None:
        self.started, self.received, self.sent, self.read_to_end, ended, self.durations, self.seconds = row
        self.ended = {code: count for code, count in enumerate(ended) if count}

    def messages(self) -> tuple[int, int, int]:
        return self.started, self.received, self.sent


def counted(harness, method: int) -> Counted:
    return Counted(harness.server.call_counts()[method])


def channel_to(harness) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{harness.port}")


def refused(call) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code()


def test_unary_calls_are_counted_by_how_they_end():
    with serving() as harness, channel_to(harness) as channel:
        for size in (1, 10):
            channel.unary_unary("/test.Echo/Say")(bytes(size), timeout=5)
        for text in (b"5 a", b"5 b", b"99 c"):
            refused(lambda text=text: channel.unary_unary("/test.Echo/Fail")(text, timeout=5))
        assert counted(harness, SAY).messages() == (2, 2, 2)
        assert counted(harness, SAY).ended == {OK: 2}
        assert counted(harness, FAIL).messages() == (3, 3, 0)
        assert counted(harness, FAIL).ended == {5: 2, 2: 1}, "a code that is none is Unknown"
        assert harness.server.message_bytes() == (1 + 10 + 3 + 3 + 4, 11)


def test_what_is_refused_before_a_call_begins_is_not_counted():
    with serving(Limits(recv_message_bytes=10)) as harness, channel_to(harness) as channel:
        refused(lambda: channel.unary_unary("/test.Echo/Say")(bytes(11), timeout=5))
        refused(lambda: channel.unary_unary("/test.Echo/Nope")(b"", timeout=5))
        assert counted(harness, SAY).messages() == (0, 0, 0)
        assert counted(harness, SAY).ended == {}


def test_a_stream_is_counted_from_its_opening_with_every_message():
    with serving() as harness, channel_to(harness) as channel:
        chat = channel.stream_stream("/test.Echo/Chat")
        assert list(chat(iter([b"a", b"bb", b"ccc"]), timeout=5)) == [b"a", b"bb", b"ccc"]
        assert counted(harness, CHAT).messages() == (1, 3, 3)
        assert (counted(harness, CHAT).read_to_end, counted(harness, CHAT).ended) == (1, {OK: 1})
        assert harness.server.message_bytes() == (6, 6)


def test_a_call_its_client_gives_up_is_canceled_or_late():
    with serving() as harness, channel_to(harness) as channel:
        drip = channel.stream_stream("/test.Echo/Drip")(iter([b"a"]))
        harness.wait("HALF_CLOSE")
        drip.cancel()
        harness.wait("CANCEL")
        assert counted(harness, DRIP).ended == {CANCELED: 1}
        assert counted(harness, DRIP).read_to_end == 1, "its end was read once, with the half-close"
        client = Raw(harness.port)
        client.request(1, "/test.Echo/Hold", grpc_timeout="10m")
        harness.wait("UNARY")
        time.sleep(0.02)  # the timeout is over; a client that is alive says so
        client.close()
        harness.wait("CANCEL", 2)
        assert counted(harness, HOLD).ended == {DEADLINE_EXCEEDED: 1}


def test_a_stream_the_wire_refuses_ends_with_its_code():
    with serving(Limits(recv_message_bytes=10)) as harness:
        client = Raw(harness.port)
        client.request(1, "/test.Echo/Drip", payload=None)
        client.send(frame(DATA, END_STREAM, 1, message(bytes(11))))
        assert client.status(1)[0] == str(RESOURCE_EXHAUSTED)
        assert counted(harness, DRIP).ended == {RESOURCE_EXHAUSTED: 1}
        assert (counted(harness, DRIP).received, counted(harness, DRIP).read_to_end) == (0, 1)
        client.close()


def test_durations_fall_into_their_buckets_when_asked_for():
    with serving(duration_bounds=(0.05, 30.0)) as harness, channel_to(harness) as channel:
        channel.unary_unary("/test.Echo/Say")(b"", timeout=5)
        held = channel.unary_unary("/test.Echo/Hold").future(b"", timeout=20)
        call = harness.wait("UNARY", 2)[1].call
        time.sleep(0.06)
        harness.server.reply_many([(call, b"")])
        held.result()
        assert counted(harness, HOLD).durations == [0, 1, 0]
        assert 0.05 < counted(harness, HOLD).seconds < 20
        assert sum(counted(harness, SAY).durations) == 1
    with serving() as harness:
        assert counted(harness, SAY).durations == [], "not asked for"


def test_callers_are_counted_by_a_header():
    with serving(caller_header="client-version") as harness, channel_to(harness) as channel:
        say, chat = channel.unary_unary("/test.Echo/Say"), channel.stream_stream("/test.Echo/Chat")
        for version in ("1", "2", "1"):
            say(b"", timeout=5, metadata=[("client-version", version)])
        say(b"", timeout=5)
        list(chat(iter([b"x"]), timeout=5, metadata=[("client-version", "2")]))
        assert sorted(harness.server.caller_counts()) == [("1", 2, 0), ("2", 1, 1), ("unknown", 1, 0)]
    with serving() as harness:
        assert harness.server.caller_counts() == []


def test_slow_unary_calls_are_named_with_what_they_were():
    with serving(slow_seconds=0.05) as harness, channel_to(harness) as channel:
        channel.unary_unary("/test.Echo/Say")(b"quick", timeout=20)
        held = channel.unary_unary("/test.Echo/Hold").future(b"held", timeout=20)
        gone = channel.unary_unary("/test.Echo/Hold").future(b"gone", timeout=20)
        first, second = harness.wait("UNARY", 3)[1:]
        time.sleep(0.06)
        named = harness.server.reply_many([(first.call, b""), (99, b""), (second.call, b"")])
        assert [(event[1], event[3], at) for event, at, _ in named] == [
            (first.call, first.payload, 0),
            (second.call, second.payload, 2),
        ]
        assert all(0.05 < seconds < 20 for _, _, seconds in named)
        held.result(), gone.result()
        eventually(lambda: counted(harness, HOLD).ended == {OK: 2})


def test_every_call_is_named_where_the_limit_is_tiny_and_none_where_there_is_none():
    for slow_seconds, count in ((1e-9, 2), (0.0, 0)):
        with serving(slow_seconds=slow_seconds) as harness, channel_to(harness) as channel:
            channel.unary_unary("/test.Echo/Say")(b"", timeout=5)
            refused(lambda channel=channel: channel.unary_unary("/test.Echo/Fail")(b"5 x", timeout=5))
            eventually(lambda harness=harness, count=count: len(harness.slow) == count)
