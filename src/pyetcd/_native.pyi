"""The native crate, as Python sees it: the wire (gRPC and HTTP, served and dialled), the log thread, CRC-32C
and lookups.

It moves bytes and knows nothing of etcd. Nothing here ever calls back into Python: the loop watches
`Wake.fileno()` and drains. All methods are called from one thread, the loop's; all of them return at once
(except those of `Channel`, which is for command-line programs and blocks with the GIL released).
"""

from array import array
from collections.abc import Sequence
from mmap import mmap
from typing import final

UNARY: int  # a whole unary request; answer with reply_many or finish_many
OPEN: int  # a stream was opened (no payload)
MESSAGE: int  # one message of an open stream
HALF_CLOSE: int  # no more will come: a served call is still to be finished by us, a dialled one is over
CANCEL: int  # the client or the connection is gone; the call id is dead, whatever is still sent is dropped
WRITABLE: int  # the backlog of a stream fell below Limits.stream_backlog_bytes again
HTTP: int  # a plain HTTP request with its whole body (but see streamed_paths); answer with http_reply
RESPONSE: int  # the answer to a request we dialled; ends the call unless it was dialled with stream=True
FAILED: int  # a dialled call has ended badly; payload: the reason in Go's words. The call is dead
# A connection was turned away at its handshake; there is no call. Payload, joined by zero bytes: its address,
# the server name it asked for, its certificate's addresses and DNS names (both joined by commas), and why.
REJECTED: int

Body = bytes | Sequence[bytes]  # parts are written one after the other, never joined in Python
# kind, call, method, payload, meta
Event = tuple[int, int, int, bytes | HttpRequest | HttpResponse | None, Meta | None]

@final
class Wake:
    """One eventfd, shared by the wire and the log thread: readable when anything below has news."""

    def __init__(self) -> None: ...
    def fileno(self) -> int: ...
    def clear(self) -> None:
        """Make it unreadable again; call before draining."""

@final
class Meta:
    """What is known of a call beside its payload. Shared by the calls of a connection where nothing
    differs. Made by hand for a call that came another way than over gRPC."""

    def __init__(
        self,
        *,
        peer: str,
        authority: str,
        headers: Sequence[tuple[str, str]],
        timeout_seconds: float | None = ...,
        certificate_names: Sequence[str] = ...,
    ) -> None:
        """`headers`: lower-case names, values in latin-1. ValueError for what no header can be."""
    @property
    def token(self) -> str | None:
        """The `token` metadata value, else `authorization`, or None."""
    @property
    def timeout_seconds(self) -> float | None:
        """The caller's grpc-timeout, or None."""
    @property
    def peer(self) -> str:
        """Address of the client, `127.0.0.1:40000`, or `@` for a Unix socket."""
    @property
    def authority(self) -> str: ...
    @property
    def certificate_names(self) -> Sequence[str]:
        """Common names of the verified client certificate chain's leaf; empty without TLS client auth."""
    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """All request headers (metadata), lower-case names, in order; binary values decoded as latin-1."""

@final
class HttpRequest:
    """Payload of an HTTP event."""

    method: str
    target: str  # path with query, as sent
    headers: Sequence[tuple[str, str]]  # lower-case names
    body: bytes

@final
class HttpResponse:
    """Payload of a RESPONSE event."""

    status: int
    headers: Sequence[tuple[str, str]]  # lower-case names
    body: bytes  # whole; empty when the call was dialled with stream=True

@final
class Limits:
    """Every bound of the wire. Sizes in bytes, times in seconds; 0 means no limit where a limit is
    optional."""

    def __init__(
        self,
        *,
        recv_message_bytes: int = ...,  # a larger gRPC message: ResourceExhausted with grpc-go's text
        http_body_bytes: int = ...,  # of a request that is handed over whole
        answer_bytes: int = ...,  # of the whole answer to one we dialled
        concurrent_streams: int = ...,  # HTTP/2 SETTINGS_MAX_CONCURRENT_STREAMS; 0 = 2**32-1 as Go
        header_timeout: float = ...,
        handshake_timeout: float = ...,
        keepalive_interval: float = ...,  # we ping an idle connection; 0 = never
        keepalive_timeout: float = ...,
        keepalive_min_time: float = ...,  # a client that pings more often gets GOAWAY ENHANCE_YOUR_CALM
        stream_backlog_bytes: int = ...,  # a stream whose unsent bytes pass this is "full" until WRITABLE
        max_pending_events: int = ...,  # undrained events; beyond it reading from sockets stops
        header_bytes: int = ...,
        connections: int = ...,  # at once; beyond it they wait in the kernel; 0 = no limit
    ) -> None: ...

@final
class Tls:
    """Certificates for a listener, PEM bytes; which clients it takes. ValueError when they cannot be used.

    Clients must have a certificate with `client_auth`, by default where there is a `client_ca`; without one
    the system's authorities are asked. `crl`: a revocation list, DER; `crl_error`: why there is none, then
    nobody with a certificate gets in. `allowed_cns`, `allowed_hostnames`: one of these the client's
    certificate must bear. `check_address`: the hosts it names must be where the client comes from.
    `cipher_suites`: numbers of the suites of TLS 1.2; `min_version`, `max_version`: 12 or 13.
    """

    def __init__(
        self,
        cert_chain: bytes,
        key: bytes,
        client_ca: bytes | None = ...,
        *,
        client_auth: bool | None = ...,
        crl: bytes | None = ...,
        crl_error: str | None = ...,
        allowed_cns: Sequence[str] = ...,
        allowed_hostnames: Sequence[str] = ...,
        check_address: bool = ...,
        cipher_suites: Sequence[int] = ...,
        min_version: int = ...,
        max_version: int = ...,
    ) -> None: ...
    def replace(self, other: Tls) -> None:
        """What new connections meet from now on; those that stand go on."""

@final
class ClientTls:
    """Certificates for dialling, PEM bytes. Without `ca` the system's authorities are trusted; the server's
    certificate must name `server_name`, else the target's host. ValueError when they cannot be used.

    Connections are kept and shared by object, not by content: make one for each identity, and a new one when
    its files change.
    """

    def __init__(
        self,
        *,
        ca: bytes | None = ...,
        cert: bytes | None = ...,
        key: bytes | None = ...,
        server_name: str | None = ...,
        insecure_skip_verify: bool = ...,
        allowed_cns: Sequence[str] = ...,  # of the server's certificate, as of Tls
        allowed_hostnames: Sequence[str] = ...,
        cipher_suites: Sequence[int] = ...,
        min_version: int = ...,
        max_version: int = ...,
    ) -> None: ...

@final
class Server:
    """Serves gRPC, HTTP/1.1 and HTTP/2 (ALPN or prior knowledge) on every listener given.

    `methods`: full gRPC paths, `/etcdserverpb.KV/Range`, each with True where either side streams. The
    index in
    this list is the `method` of events. Unknown paths with a gRPC content type are answered Unimplemented
    (`unknown service x` / `unknown method y for service x`) without troubling Python.

    `slow_seconds`: unary calls that take longer are named by `reply_many` and `finish_many`; 0 for none.
    `duration_bounds`: count the durations of calls in buckets up to these seconds. `caller_header`: count
    calls by the value of this request header. `streamed_paths`: plain requests to these paths (the query does
    not count) are announced with HTTP as soon as their head is there, with an empty body; the body follows as
    MESSAGE events and a HALF_CLOSE, or a CANCEL when it breaks off. Tell `consumed` of every MESSAGE.
    `local_address`: what it dials, it dials from this IP address.
    """

    def __init__(
        self,
        wake: Wake,
        methods: Sequence[tuple[str, bool]],
        limits: Limits,
        *,
        slow_seconds: float = ...,
        duration_bounds: Sequence[float] = ...,
        caller_header: str = ...,
        streamed_paths: Sequence[str] = ...,
        local_address: str | None = ...,
    ) -> None: ...
    def message_bytes(self) -> tuple[int, int]:
        """Bytes of gRPC messages received and sent so far, without their framing."""
    def call_counts(self) -> list[tuple[int, int, int, int, list[int], list[int], float]]:
        """For each method, in the order they were given: calls started, messages received, messages sent,
        streams whose client sends no more, calls ended by gRPC code (0 to 16), calls ended by duration (one
        more than there are bounds) and the sum of their seconds. What the wire refuses before a call begins
        (unknown methods, a unary message too large) is not counted."""
    def caller_counts(self) -> list[tuple[str, int, int]]:
        """Unary calls and streams begun, by the value of the caller header (`unknown`: it had none)."""
    def listen(
        self,
        descriptor: int,
        tls: Tls | None = ...,
        also_plain: bool = ...,
        grpc: bool = ...,
        http: bool = ...,
    ) -> None:
        """Take over a socket that listens, TCP or Unix, and start to accept. `also_plain`: TLS and plaintext
        on one port."""
    def drain(self, max_events: int) -> list[Event]:
        """Up to `max_events` of `(kind, call, method, payload, meta)`; meta with UNARY, OPEN and HTTP.
        Empty: none left."""
    def reply_many(self, replies: Sequence[tuple[int, Body]]) -> list[tuple[Event, int, float]]:
        """Finish unary calls with OK and this message. Dead calls are skipped. Returns which were slow: what
        `drain` gave of the call, its place in the list, seconds since it came."""
    def finish_many(self, ends: Sequence[tuple[int, int, str]]) -> list[tuple[Event, int, float]]:
        """Finish calls or streams with `(call, gRPC code, message)`; code 0 ends a stream well. Returns which
        were slow unary calls. Of a call we dialled it ends the request's body: with code 0 the answer is
        still to come, with another the connection is broken off, and nothing more is said of the call."""
    def send_many(self, messages: Sequence[tuple[int, Body]]) -> list[int]:
        """Queue one message on each stream; returns each stream's unsent bytes (-1: the call is dead)."""
    def send_fanout(self, calls: Sequence[int], body: Body) -> list[int]:
        """Queue the same message on many streams, sharing its memory; returns their unsent bytes (-1:
        dead)."""
    def http_reply(
        self, call: int, status: int, headers: Sequence[tuple[str, str]], body: Body, end: bool = ...
    ) -> None:
        """Answer a plain HTTP request. With end=False the body goes on: send_many writes raw parts,
        finish_many ends it (with a code other than 0: the client is made to see that it is not whole).

        Over HTTP/1.1, status 101 with end=False takes the connection over: what the client sends from then on
        comes as MESSAGE events (tell `consumed` of them), then HALF_CLOSE or CANCEL; send_many writes raw
        bytes, finish_many closes the connection once they have left."""
    def consumed(self, call: int, count: int) -> None:
        """`count` bytes of a streamed request body have been dealt with. About 1 MiB is read ahead of what
        was consumed, so that a slow disk is felt by the sender."""
    def dial(
        self,
        target: str,  # "host:port" or "unix:path"
        method: str,
        path: str,  # with its query
        headers: Sequence[tuple[str, str]],
        body: Body = ...,
        *,
        tls: ClientTls | None = ...,
        stream: bool = ...,
        upload: bool = ...,
        connect_timeout: float = ...,
        idle_timeout: float = ...,
        timeout: float = ...,
    ) -> int:
        """Begin an HTTP/1.1 request; returns its call. It ends with RESPONSE or FAILED. ValueError for what
        no request can be made of; what is wrong with the target is told by FAILED.

        `stream`: RESPONSE comes with the head, then the body as MESSAGE events (all that came at once is
        one), then HALF_CLOSE at its good end or FAILED. Reading stops while Python does not drain.

        `upload`: the body is chunked, goes on with `send_many` (raw parts; backlog and WRITABLE as for
        answers) and is ended by `finish_many`. An answer that comes before is delivered and ends the call.

        Connections are kept and used again, but for those of streams and uploads. A request on a kept one
        that turns out closed is sent once more on a new one: it may reach the other side twice.

        Seconds, 0 for no limit: `connect_timeout` for TCP and TLS handshake; `idle_timeout` for a time in
        which no byte moved (an upload that waits for `send_many` is not idle); `timeout` for all of it. The
        Host header is the target's, unless given.
        """
    def hang_up(self, call: int) -> None:
        """Give up a dialled call, or one that is being served: its connection is closed (over HTTP/2: its
        stream is reset), and nothing more is said of it."""
    def connections(self) -> int: ...
    def stop_accepting(self) -> None: ...
    def shutdown(self, grace_seconds: float) -> None:
        """GOAWAY to all, let calls in flight finish for so long, then close. Blocks with the GIL released;
        finish or
        drain what Python still owes before calling."""

@final
class Appender:
    """A thread that writes and fsyncs, so that the loop never waits for a disk and the fsync never waits
    for the GIL."""

    def __init__(self, wake: Wake) -> None: ...
    def append(self, fd: int, offset: int, data: Body, sync: bool = ...) -> int:
        """Queue pwrite(fd, data, offset), then fdatasync when `sync`. Returns a sequence number, 1, 2, 3 …
        Appends queued while an fsync runs share the next one."""
    def completed(self) -> int:
        """The highest sequence number up to which everything is written (and synced where asked). OSError,
        for good,
        once a write or sync has failed: what came after it never happens."""
    def sync_seconds(self) -> list[float]:
        """Durations of the fdatasync calls since the last time asked (at most the latest 4096)."""
    def write_seconds(self) -> list[float]:
        """Durations of the pwrite calls since the last time asked (at most the latest 4096)."""
    def close(self) -> None:
        """Finish what is queued and stop the thread."""

def crc32c(data: bytes | bytearray | memoryview, crc: int = ...) -> int:
    """CRC-32C (Castagnoli) of `data`, continued from `crc`."""

def find_many(
    map: mmap, page_bytes: int, root: int, keys: Sequence[bytes], sums: array[int] | None
) -> list[bytes | None] | None:
    """The values of `keys` in a B+tree of pages as bbolt lays them out, None for those that are not there.

    Every page is compared to its CRC-32C in `sums` first, if given. None as a whole: a page is not what it
    should be.
    """

class RpcError(Exception):
    """A gRPC status other than OK."""

    code: int
    message: str

@final
class Channel:
    """A blocking gRPC client over one HTTP/2 connection (h2c or TLS, TCP or Unix socket), dialled at first
    use and
    again after a loss. For command-line programs: starts in a few milliseconds."""

    def __init__(
        self,
        target: str,  # "host:port" or "unix:path"
        *,
        authority: str | None = ...,
        tls: bool = ...,
        ca: bytes | None = ...,
        cert: bytes | None = ...,
        key: bytes | None = ...,
        server_name: str | None = ...,
        insecure_skip_verify: bool = ...,
        connect_timeout: float = ...,
        keepalive_time: float = ...,  # seconds between two pings, 0: none
        keepalive_timeout: float = ...,
        keepalive_idle: bool = ...,  # also while there is no call
    ) -> None: ...
    def unary(
        self,
        path: str,
        payload: bytes,
        metadata: Sequence[tuple[str, str]] = ...,
        timeout: float | None = ...,
    ) -> bytes:
        """One call. RpcError on any failure; a timeout is code 4 with `context deadline exceeded`."""
    def stream(
        self, path: str, metadata: Sequence[tuple[str, str]] = ..., timeout: float | None = ...
    ) -> ClientStream: ...
    def adopt(self, other: Channel) -> None:
        """Dial with another channel's certificates from now on; what is connected goes on."""
    def close(self) -> None: ...

@final
class ClientStream:
    def send(self, payload: bytes) -> None: ...
    def half_close(self) -> None: ...
    def recv(self, timeout: float | None = ...) -> bytes | None:
        """The next message, or None at a good end. RpcError at a bad one; TimeoutError when `timeout` passes.
        Returns early with KeyboardInterrupt on SIGINT."""
    def cancel(self) -> None: ...

@final
class Calls:
    """Calls over channels for a loop: begun at once, their answers drained. At most 16 messages of a stream
    lie in the queue before `read` asks for more."""

    def __init__(self, wake: Wake) -> None: ...
    def unary(
        self,
        channel: Channel,
        path: str,
        payload: bytes,
        metadata: Sequence[tuple[str, str]] = ...,
        timeout: float | None = ...,
    ) -> int:
        """Begin a unary call; returns its number."""
    def open(
        self,
        channel: Channel,
        path: str,
        metadata: Sequence[tuple[str, str]] = ...,
        timeout: float | None = ...,
    ) -> int:
        """Open a stream; returns its number."""
    def send(self, call: int, payload: bytes) -> bool:
        """Queue a message on a stream. False: 1024 are unsent, or the stream is over."""
    def half_close(self, call: int) -> None: ...
    def read(self, call: int, count: int) -> None:
        """`count` messages of a stream have been dealt with."""
    def cancel(self, call: int) -> None:
        """Give a call up; nothing more is said of it."""
    def under_way(self) -> int: ...
    def drain(self, max_news: int) -> list[tuple[int, bytes | None, int, str]]:
        """Up to `max_news` of `(call, message, code, text)`. Without a message the call has ended with that
        status; a unary call has ended with its message."""
