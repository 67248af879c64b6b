"""Calls to a cluster: which endpoint, how long, and what may be tried again.

The promises are clientv3's. A call waits for an endpoint that can be reached, up to its deadline. One that a
server answered with Unavailable is repeated, at the next endpoint, only if it reads: a write is never sent
twice, since the first may have been done. A token that the server no longer knows is fetched anew once the
server says so; it has then refused the call, so this holds for writes too.

A connection counts only once its server has answered on it: one that is stopped accepts nonetheless, since
its kernel does that for it, and one that wants another certificate says so after the handshake. So each is
asked for its health before it is given a call, which then is not lost with the connection.
"""

from __future__ import annotations

import os
import time

from pyetcd._native import Channel, RpcError
from pyetcd.cli.etcdctl import notes
from pyetcd.cli.exits import BAD_ARGS, BAD_CONNECTION, Exit
from pyetcd.cluster.endpoints import Target
from pyetcd.proto import lite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd._native import ClientStream
    from pyetcd.cli.etcdctl.settings import Settings

API_VERSION = "3.7"
RETRIES_MAX = 100
LONGEST_DIAL_SECONDS = 20.0
RETRY_SECONDS = 0.025  # after each round over a quorum of the endpoints
REDIAL_SECONDS = (0.05, 1.0)  # the first pause after no endpoint could be reached, and the longest
LOGGER = "etcd-client"

CANCELED = 1
DEADLINE_EXCEEDED = 4
RESOURCE_EXHAUSTED = 8
UNAVAILABLE = 14
INTERNAL = 13

AUTH_NOT_ENABLED = "etcdserver: authentication is not enabled"
AUTHENTICATE = "/etcdserverpb.Auth/Authenticate"
STALE_CALLER = ("etcdserver: invalid auth token", "etcdserver: revision of auth store is old")
USER_EMPTY = "etcdserver: user name is empty"
LEARNER = "etcdserver: rpc not supported for learner"
NOT_CONNECTED = "connection error: "  # how the wire begins when a call has never left
FIRST_ROUND_SECONDS = 0.5  # for one of several endpoints to answer, before the next is tried
HEALTH = "/grpc.health.v1.Health/Check"
IN_GOS_WORDS = {  # what the wire says of a connection that comes to nothing, and what Go would
    "error reading from server: ": "",
    "stream closed because of a broken pipe": "EOF",
    "the stream is closed": "EOF",
    "received fatal alert: CertificateRequired": "remote error: tls: certificate required",
    "received fatal alert: BadCertificate": "remote error: tls: bad certificate",
    "tls: tls handshake eof": "EOF",
    "tls: invalid peer certificate: UnknownIssuer": "tls: failed to verify certificate: x509: certificate"
    " signed by unknown authority",
}


class CallError(Exception):
    """A call failed. `str()` is what clientv3 would say."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        if self.message.startswith("etcdserver: ") or self.message == "context deadline exceeded":
            return self.message
        return self.as_grpc()

    def as_grpc(self) -> str:
        """With its code, as gRPC's own text has it."""
        from pyetcd.proto import errors

        name = errors.CODE_NAMES[self.code] if self.code < len(errors.CODE_NAMES) else f"Code({self.code})"
        return f"rpc error: code = {name} desc = {self.message}"


class Deadline:
    """A moment by which something must be done; without `seconds` there is none."""

    __slots__ = ("_end",)

    def __init__(self, seconds: float | None = None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds, not below 0; None without end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def passed(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def sleep(self, seconds: float) -> None:
        left = self.left()
        time.sleep(seconds if left is None else min(seconds, left))


class Client:
    """Calls to `endpoints`, or to those of the settings. `logger` is the name under which attempts that
    failed are told of; without one they are not."""

    def __init__(self, settings: Settings, endpoints: list[str] | None = None, logger: str = LOGGER) -> None:
        self.settings = settings
        self.logger = logger
        self._targets = [Target(endpoint) for endpoint in endpoints or settings.endpoints]
        if not self._targets:
            raise Exit(BAD_CONNECTION, "etcdclient: no available endpoints")
        self._channels: list[Channel | None] = [None] * len(self._targets)
        self._current = int.from_bytes(os.urandom(2), "big") % len(self._targets)  # no member has all calls
        self._dial_seconds = settings.dial_timeout if settings.dial_timeout > 0 else LONGEST_DIAL_SECONDS
        several = len(self._targets) > 1
        self._patience = min(self._dial_seconds, FIRST_ROUND_SECONDS) if several else 0.0
        self._silent = 0
        self._token = settings.token
        self._streams = 0
        if self._has_login():
            try:
                self._authenticate(Deadline(settings.dial_timeout))
            except CallError as error:
                raise Exit(BAD_CONNECTION, str(error)) from None

    def close(self) -> None:
        for channel in self._channels:
            if channel is not None:
                channel.close()

    def call(
        self, path: str, request: lite.Message, answer_type: str, deadline: Deadline, *, reads: bool
    ) -> lite.Message:
        """One call to the method at `path`. CallError when it fails for good."""
        return lite.decode(answer_type, self._call(path, _encoded(request), deadline, reads))

    def stream(self, path: str, deadline: Deadline, *, has_leader: bool = False) -> ClientStream:
        """Open a stream at the present endpoint. CallError here, or RpcError from its `recv`."""
        if self._streams and self._has_login():
            # The server may have been started again since, and not know the token: only calls are told so.
            self._authenticate(deadline)
        self._streams += 1
        metadata = self._metadata()
        if has_leader:
            metadata.append(("hasleader", "true"))
        return self._channel(deadline).stream(path, metadata, deadline.left())

    @property
    def has_others(self) -> bool:
        """Whether there are endpoints to turn to."""
        return len(self._targets) > 1

    def is_alive(self, seconds: float) -> bool:
        """Whether the present endpoint answers at all within this time."""
        channel = self._channels[self._current]
        return channel is not None and _silence(channel, seconds) is None

    def next_endpoint(self) -> None:
        """Turn to the next endpoint, after the present one failed."""
        self._current = (self._current + 1) % len(self._targets)

    def _once(self, path: str, payload: bytes, deadline: Deadline) -> bytes:
        """One attempt at the present endpoint. CallError when it fails."""
        _check_size(len(payload), self.settings.send_bytes_max, "trying to send message larger than max")
        try:
            answer = self._channel(deadline).unary(path, payload, self._metadata(), deadline.left())
        except RpcError as error:
            raise CallError(error.code, error.message) from None
        if self.settings.recv_bytes_max > 0:
            limit = self.settings.recv_bytes_max
            _check_size(len(answer), limit, "grpc: received message larger than max")
        return answer

    def _call(self, path: str, payload: bytes, deadline: Deadline, reads: bool) -> bytes:
        attempt = unreachable = 0
        pause, longest_pause = REDIAL_SECONDS
        while True:
            try:
                return self._once(path, payload, deadline)
            except CallError as error:
                failure = error
            if failure.code == UNAVAILABLE and failure.message.startswith(NOT_CONNECTED):
                self.next_endpoint()
                unreachable += 1
                if unreachable % len(self._targets) == 0:
                    deadline.sleep(pause)
                    pause = min(pause * 1.6, longest_pause)
                if not deadline.passed():
                    continue
                failure = CallError(DEADLINE_EXCEEDED, f"latest balancer error: {failure.message}")
            self._note(path, attempt, failure)
            if deadline.passed() and failure.code in (CANCELED, DEADLINE_EXCEEDED):
                raise CallError(DEADLINE_EXCEEDED, "context deadline exceeded")
            stale = path != AUTHENTICATE and self._caller_is_stale(failure)
            if stale and self._has_login():
                self._authenticate(deadline)
            attempt += 1
            if not (stale or self._may_repeat(failure, reads)) or attempt >= RETRIES_MAX:
                raise failure
            self.next_endpoint()
            if attempt % (len(self._targets) // 2 + 1) == 0:
                deadline.sleep(RETRY_SECONDS)

    def _may_repeat(self, failure: CallError, reads: bool) -> bool:
        if failure.message == LEARNER and len(self._targets) > 1:
            return True
        return reads and failure.code == UNAVAILABLE

    def _caller_is_stale(self, failure: CallError) -> bool:
        """What was known of the caller, its rights, say, has changed meanwhile: nothing has been done, and it
        is asked again, also by a name in a certificate."""
        if self.settings.token:
            return False
        return failure.message in STALE_CALLER or (failure.message == USER_EMPTY and self._has_login())

    def _has_login(self) -> bool:
        return bool(self.settings.username and self.settings.password)

    def _authenticate(self, deadline: Deadline) -> None:
        request = lite.Message(
            "etcdserverpb.AuthenticateRequest", name=self.settings.username, password=self.settings.password
        )
        self._token = ""
        try:
            answer = self._call(AUTHENTICATE, _encoded(request), deadline, False)
        except CallError as error:
            if error.message != AUTH_NOT_ENABLED:
                raise
            return
        self._token = lite.decode("etcdserverpb.AuthenticateResponse", answer).text("token")

    def _metadata(self) -> list[tuple[str, str]]:
        metadata = [("client-api-version", API_VERSION)]
        if self._token:
            metadata.append(("token", self._token))
        return metadata

    def _channel(self, deadline: Deadline) -> Channel:
        """The present endpoint's. CallError when it is no address, or does not answer in time."""
        channel = self._channels[self._current]
        if channel is None:
            channel = self._dial(self._targets[self._current])
            seconds, left = self._patience or self._dial_seconds, deadline.left()
            why = _silence(channel, seconds if left is None else min(seconds, left))
            if why is not None:
                channel.close()
                self._note_silence()
                raise CallError(UNAVAILABLE, why)
            self._channels[self._current] = channel
        return channel

    def _note_silence(self) -> None:
        """Once no endpoint has answered at once, each has the time that the settings give it."""
        self._silent += 1
        if self._silent >= len(self._targets):
            self._patience = 0.0

    def _dial(self, target: Target) -> Channel:
        if target.problem:
            desc = f"transport: Error while dialing: {target.problem}"
            raise CallError(UNAVAILABLE, f'{NOT_CONNECTED}desc = "{desc}"')
        tls = self.settings.tls
        try:
            return Channel(
                target.address,
                authority=target.authority,
                tls=target.speaks_tls(tls is not None),
                ca=tls.ca if tls else None,
                cert=tls.cert if tls else None,
                key=tls.key if tls else None,
                server_name=(tls.server_name if tls else "") or target.server_name,
                insecure_skip_verify=tls.skip_verify if tls else False,
                connect_timeout=self._patience or self._dial_seconds,
            )
        except ValueError as error:
            raise Exit(BAD_ARGS, str(error)) from None

    def _note(self, path: str, attempt: int, failure: CallError) -> None:
        if not self.logger:
            return
        notes.warn(
            "retrying of unary invoker failed",
            {
                # etcd tells its clients apart by an address in memory.
                "target": f"etcd-endpoints://0x{id(self):x}/{self._targets[0].name}",
                "method": path,
                "attempt": attempt,
                "error": failure.as_grpc(),
            },
            caller="v3/retry_interceptor.go:68",
            logger=self.logger,
        )


def _silence(channel: Channel, seconds: float) -> str | None:
    """Why the server at the other end does not answer, in gRPC's words; None when it does, with whatever."""
    try:
        channel.unary(HEALTH, b"", [], seconds)
    except RpcError as error:
        if error.message.startswith(NOT_CONNECTED):
            return _in_gos_words(error.message)
        if error.code == DEADLINE_EXCEEDED:
            return f'{NOT_CONNECTED}desc = "error reading server preface: i/o timeout"'
        if error.code == UNAVAILABLE:
            return f'{NOT_CONNECTED}desc = "error reading server preface: {_in_gos_words(error.message)}"'
    return None


def _encoded(request: lite.Message) -> bytes:
    try:
        return request.encode()
    except UnicodeEncodeError:
        text = "grpc: error while marshaling: string field contains invalid UTF-8"
        raise CallError(INTERNAL, text) from None


def _check_size(size: int, limit: int, words: str) -> None:
    if size > limit:
        raise CallError(RESOURCE_EXHAUSTED, f"{words} ({size} vs. {limit})")


def _in_gos_words(message: str) -> str:
    for ours, theirs in IN_GOS_WORDS.items():
        message = message.replace(ours, theirs)
    return message
