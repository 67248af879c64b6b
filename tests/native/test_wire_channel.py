"""The blocking client, against grpcio's server and against our own."""

import signal
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import pytest
from wire_harness import listen_tcp, listen_unix, pem, serving

from pyetcd._native import Channel, Limits, RpcError, Tls

PREFIX = "/test.Echo/"


class GrpcioService(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method.removeprefix(PREFIX)
        if name == "Say":
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request)
        if name == "Fail":
            return grpc.unary_unary_rpc_method_handler(self.fail)
        if name == "Meta":
            return grpc.unary_unary_rpc_method_handler(
                lambda _, context: repr(sorted(context.invocation_metadata())).encode()
            )
        if name == "Chat":
            return grpc.stream_stream_rpc_method_handler(lambda requests, _: requests)
        if name == "Hold":
            return grpc.unary_unary_rpc_method_handler(lambda _, context: time.sleep(0.7) or b"")
        return None

    def fail(self, request, context):
        code, _, text = request.decode().partition(" ")
        codes = {code.value[0]: code for code in grpc.StatusCode}
        context.abort(codes[int(code)], text)


@pytest.fixture(scope="module")
def grpcio_port():
    server = grpc.server(
        futures.ThreadPoolExecutor(8), [GrpcioService()], options=[("grpc.max_receive_message_length", -1)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


@pytest.fixture(scope="module")
def harness():
    with serving(Limits(keepalive_min_time=0)) as running:
        yield running


@pytest.fixture(params=["grpcio", "ours"])
def channel(request, grpcio_port, harness):
    opened = Channel(f"127.0.0.1:{grpcio_port if request.param == 'grpcio' else harness.port}")
    yield opened
    opened.close()


@pytest.mark.parametrize("size", [0, 5, 70_000, 3_000_000])
def test_unary_calls_of_any_size(channel, size):
    assert channel.unary(PREFIX + "Say", bytes(size), timeout=20) == bytes(size)


def test_statuses_come_with_code_and_text(channel):
    with pytest.raises(RpcError) as caught:
        channel.unary(PREFIX + "Fail", "5 ключ not found 100%".encode(), timeout=5)
    assert (caught.value.code, caught.value.message) == (5, "ключ not found 100%")
    assert str(caught.value) == "rpc error: code = NotFound desc = ключ not found 100%"


def test_unknown_methods_are_unimplemented(channel):
    with pytest.raises(RpcError) as caught:
        channel.unary(PREFIX + "Nope", b"")
    assert caught.value.code == 12


def test_a_deadline_that_passes_is_deadline_exceeded(channel):
    with pytest.raises(RpcError) as caught:
        channel.unary(PREFIX + "Hold", b"", timeout=0.1)
    assert caught.value.code == 4
    # grpcio's server may be the first to say so.
    assert caught.value.message in ("context deadline exceeded", "Deadline Exceeded")


def test_metadata_is_sent(grpcio_port):
    channel = Channel(f"127.0.0.1:{grpcio_port}", authority="somewhere:1")
    seen = channel.unary(PREFIX + "Meta", b"", [("token", "abc"), ("x", "1"), ("x", "2")]).decode()
    assert "('token', 'abc')" in repr(seen) or "value='abc'" in seen
    assert seen.count("key='x'") == 2


def test_a_stream_echoes_and_ends(channel):
    stream = channel.stream(PREFIX + "Chat", timeout=20)
    for number in range(300):
        stream.send(b"%d" % number)
        assert stream.recv(timeout=10) == b"%d" % number
    with pytest.raises(TimeoutError):
        stream.recv(timeout=0.05)
    stream.half_close()
    assert stream.recv(timeout=10) is None
    assert stream.recv(timeout=10) is None
    with pytest.raises(ValueError, match="half_close"):
        stream.send(b"late")


def test_large_messages_pass_both_ways_on_a_stream(channel):
    stream = channel.stream(PREFIX + "Chat", timeout=20)
    big = bytes(2_000_000)
    for _ in range(5):
        stream.send(big)
        assert stream.recv(timeout=10) == big


def test_a_cancelled_stream_says_so_and_the_server_hears_of_it(harness):
    channel = Channel(f"127.0.0.1:{harness.port}")
    stream = channel.stream(PREFIX + "Drip")
    messages, before = len(harness.events("MESSAGE")), len(harness.events("CANCEL"))
    stream.send(b"x")
    harness.wait("MESSAGE", messages + 1)
    stream.cancel()
    for _ in range(2):
        with pytest.raises(RpcError) as caught:
            stream.recv(timeout=5)
        assert (caught.value.code, caught.value.message) == (1, "context canceled")
    harness.wait("CANCEL", before + 1)


def test_a_bad_end_of_a_stream_is_raised_again_and_again(channel):
    stream = channel.stream(PREFIX + "Nope")
    for _ in range(3):
        with pytest.raises(RpcError) as caught:
            stream.recv(timeout=5)
        assert caught.value.code == 12


def test_a_stream_past_its_deadline_ends(harness):
    stream = Channel(f"127.0.0.1:{harness.port}").stream(PREFIX + "Drip", timeout=0.1)
    with pytest.raises(RpcError) as caught:
        stream.recv(timeout=5)
    assert caught.value.code == 4


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("127.0.0.1:1", "dial tcp 127.0.0.1:1: connect: connection refused"),
        ("unix:/nonexistent", "dial unix /nonexistent: connect: no such file or directory"),
        ("host.invalid:1", "dial tcp: lookup host.invalid: no such host"),
    ],
)
def test_dial_errors_read_as_grpc_gos(target, text):
    with pytest.raises(RpcError) as caught:
        Channel(target).unary(PREFIX + "Say", b"", timeout=10)
    assert caught.value.code == 14
    assert caught.value.message == f'connection error: desc = "transport: Error while dialing: {text}"'


@pytest.mark.parametrize("target", ["nocolon", "host:port", "host:99999"])
def test_bad_targets_are_value_errors(target):
    with pytest.raises(ValueError, match="address"):
        Channel(target)


def test_a_lost_connection_is_dialled_again():
    with serving() as first:
        port = first.port
        channel = Channel(f"127.0.0.1:{port}")
        assert channel.unary(PREFIX + "Say", b"1") == b"1"
        stream = channel.stream(PREFIX + "Drip")
        first.wait("OPEN")
    with pytest.raises(RpcError) as caught:
        stream.recv(timeout=5)
    assert caught.value.code == 14
    with pytest.raises(RpcError):
        channel.unary(PREFIX + "Say", b"2", timeout=5)
    with serving() as second:
        assert listen_tcp(second.server, port) == port
        assert channel.unary(PREFIX + "Say", b"3", timeout=5) == b"3"


def test_calls_from_many_threads_share_the_connection():
    with serving() as alone:
        channel = Channel(f"127.0.0.1:{alone.port}")
        answers = []
        threads = [
            threading.Thread(target=lambda: answers.append(channel.unary(PREFIX + "Say", b"x", timeout=10)))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [b"x"] * 20
        assert alone.server.connections() == 1
        channel.close()


def test_tls_with_and_without_verification(harness):
    port = listen_tcp(harness.server, 0, Tls(pem("server.pem"), pem("server.key")))
    assert (
        Channel(f"localhost:{port}", tls=True, ca=pem("ca.pem")).unary(PREFIX + "Say", b"a", timeout=5)
        == b"a"
    )
    skip = Channel(f"127.0.0.1:{port}", tls=True, insecure_skip_verify=True)
    assert skip.unary(PREFIX + "Say", b"b", timeout=5) == b"b"
    for channel in (
        Channel(f"localhost:{port}", tls=True),
        Channel(f"localhost:{port}", tls=True, ca=pem("ca.pem"), server_name="other.example"),
    ):
        with pytest.raises(RpcError, match="authentication handshake failed") as caught:
            channel.unary(PREFIX + "Say", b"", timeout=5)
        assert caught.value.code == 14


def test_tls_with_a_client_certificate(harness, tmp_path):
    path = str(tmp_path / "tls.sock")
    listen_unix(harness.server, path, Tls(pem("server.pem"), pem("server.key"), pem("ca.pem")))
    known = Channel(f"unix:{path}", tls=True, ca=pem("ca.pem"), cert=pem("client.pem"), key=pem("client.key"))
    assert known.unary(PREFIX + "Say", b"me", timeout=5) == b"me"
    assert list(harness.wait("UNARY")[-1].meta.certificate_names) == ["client-name"]
    with pytest.raises(RpcError):
        Channel(f"unix:{path}", tls=True, ca=pem("ca.pem")).unary(PREFIX + "Say", b"", timeout=5)
    with pytest.raises(ValueError, match="belong together"):
        Channel(f"unix:{path}", tls=True, cert=pem("client.pem"))


BLOCKED = """
import sys
from pyetcd._native import Channel
channel = Channel(sys.argv[1])
print("waiting", flush=True)
try:
    if sys.argv[2] == "unary":
        channel.unary("/test.Echo/Hold", b"")
    else:
        channel.stream("/test.Echo/Drip").recv()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_ctrl_c_interrupts_a_blocked_call(harness, kind):
    harness.seen.clear()
    command = [sys.executable, "-c", BLOCKED, f"127.0.0.1:{harness.port}", kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    harness.wait("UNARY" if kind == "unary" else "OPEN")
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    assert output.split() == ["waiting", "interrupted"]
    assert time.monotonic() - begun < 2


def test_the_module_is_imported_in_a_few_milliseconds():
    code = "import time; t=time.perf_counter(); import pyetcd._native; print(time.perf_counter()-t)"
    times = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]
    assert min(times) < 0.010
