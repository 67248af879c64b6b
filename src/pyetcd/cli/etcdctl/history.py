"""`get --history`: the revisions of a key, newest first, as far back as the server keeps them.

A revision is fetched by a Range just before the one that came after it, which costs the server one look into
its index, and only when it is about to be shown. Ranges cannot tell when a key was deleted. That takes a
watch from the oldest revision on, which makes the server go through all that it keeps (Go etcd holds back
writes meanwhile, and has all of it in memory), so there is one only once a life of the key has been shown
from its beginning, and something is kept of the time before. It asks for deletions alone.

What is in memory is two values, and the revisions of so many deletions.
"""

from __future__ import annotations

from collections import deque

from pyetcd._native import RpcError
from pyetcd.cli.etcdctl import differences
from pyetcd.cli.etcdctl.client import UNAVAILABLE, CallError, Deadline
from pyetcd.cli.etcdctl.output import emit
from pyetcd.cli.etcdctl.output_json import JsonPrinter, as_object
from pyetcd.cli.etcdctl.output_simple import SimplePrinter, lease_id
from pyetcd.cli.etcdctl.watcher import COMPACTED, WATCH
from pyetcd.cli.exits import BAD_ARGS, BAD_FEATURE, ERROR, Exit
from pyetcd.proto import lite
from pyetcd.proto.lite import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyetcd.cli.command import Invocation
    from pyetcd.cli.etcdctl.output import Printer
    from pyetcd.cli.etcdctl.output_json import Json
    from pyetcd.cli.etcdctl.session import Session

GOES_WITH = frozenset({"history", "decode", "consistency"})
NO_PUTS = 0  # of WatchCreateRequest.FilterType
DELETIONS_MAX = 100_000  # at a time
SILENCE_SECONDS = 0.25  # after which a watch is asked how far it has come
_CHANGES = {"create": "created", "put": "put", "delete": "deleted"}


class Revision:
    """What one revision made of the key: `kv`, or None where it deleted it. `before` is what it was until
    then: None without a key, and where that is compacted, which `cut` tells."""

    __slots__ = ("before", "cut", "kv", "number")

    def __init__(self, number: int, kv: Message | None, before: Message | None, cut: bool) -> None:
        self.number = number
        self.kv = kv
        self.before = before
        self.cut = cut

    @property
    def change(self) -> str:
        if self.kv is None:
            return "delete"
        return "create" if self.kv.number("version") == 1 else "put"


class _Compacted(Exception):
    """The server has forgotten that revision."""


class Past:
    """The past of the key that `request`, a RangeRequest, names. CallError when the server cannot be
    asked."""

    def __init__(self, session: Session, request: Message) -> None:
        self._client = session.client
        self._seconds = session.settings.command_timeout
        self._request = request
        self._head = 0
        self._deletions: deque[int] | None = None  # the last before what was shown, ascending, once asked for
        self._are_all = False  # whether there are none before these
        self._compacted = 0

    def revisions(self) -> Iterator[Revision]:
        answer = self._range(0)
        self._head = answer.child("header").number("revision")
        self._request.values["serializable"] = True  # from here on it is the past that is asked for
        self._client.logger = ""  # and that it may be compacted is nothing to tell of
        kv = _only(answer)
        number = self._head + 1
        cut = False
        while not cut:
            number = self._deletion_before(number) if kv is None else kv.number("mod_revision")
            if not number:
                return
            try:
                before = _only(self._range(number - 1)) if number > 1 else None
            except _Compacted:
                before, cut = None, True
            yield Revision(number, kv, before, cut)
            kv = before

    def compacted(self) -> int:
        """The oldest revision that can be asked for, 0 if that is the first. To be asked at the end."""
        if self._deletions is None:
            self._compacted = self._read_deletions(1, 1, deque(maxlen=1))
        return self._compacted

    def _range(self, revision: int) -> Message:
        self._request.values["revision"] = revision
        answer_type = "etcdserverpb.RangeResponse"
        try:
            return self._client.call(
                "/etcdserverpb.KV/Range", self._request, answer_type, Deadline(self._seconds), reads=True
            )
        except CallError as error:
            if error.message == COMPACTED:
                raise _Compacted from None
            raise

    def _deletion_before(self, revision: int) -> int:
        """The revision of the last deletion of the key before this one; 0 if there is none."""
        while True:
            while self._deletions:
                found = self._deletions.pop()
                if found < revision:
                    return found
            if self._are_all:
                return 0
            self._find_deletions(revision)

    def _find_deletions(self, end: int) -> None:
        """The last deletions before revision `end`, as many as there is room for."""
        self._deletions = deque(maxlen=DELETIONS_MAX)
        while compacted := self._read_deletions(max(1, self._compacted), end, self._deletions):
            self._deletions.clear()
            self._compacted = compacted
        self._are_all = len(self._deletions) < DELETIONS_MAX

    def _read_deletions(self, start: int, end: int, found: deque[int]) -> int:
        """Add the key's deletions from revision `start` to before `end`. If `start` is compacted, return the
        first revision that is not, else 0."""
        create = Message(
            "etcdserverpb.WatchCreateRequest",
            key=self._request.data("key"),
            start_revision=start,
            filters=[NO_PUTS],
        )
        stream = self._client.stream(WATCH, Deadline(), has_leader=True)
        try:
            stream.send(Message("etcdserverpb.WatchRequest", create_request=create).encode())
            deadline = Deadline(self._seconds)
            while not deadline.passed():
                try:
                    data = stream.recv(SILENCE_SECONDS)
                except TimeoutError:
                    progress = Message("etcdserverpb.WatchProgressRequest")
                    stream.send(Message("etcdserverpb.WatchRequest", progress_request=progress).encode())
                    continue
                if data is None:
                    raise CallError(UNAVAILABLE, "the watch has ended")
                answer = lite.decode("etcdserverpb.WatchResponse", data)
                if answer.number("compact_revision"):
                    return answer.number("compact_revision")
                if answer.flag("canceled"):
                    raise CallError(UNAVAILABLE, answer.text("cancel_reason"))
                deleted = [event.child("kv").number("mod_revision") for event in answer.children("events")]
                found.extend(revision for revision in deleted if revision < end)
                if deleted and deleted[-1] >= end:
                    return 0
                if deleted:
                    deadline = Deadline(self._seconds)
                elif not answer.flag("created") and answer.child("header").number("revision") >= self._head:
                    return 0
            raise CallError(UNAVAILABLE, "context deadline exceeded")
        except RpcError as error:
            raise CallError(error.code, error.message) from None
        finally:
            stream.cancel()


def _only(answer: Message) -> Message | None:
    kvs = answer.children("kvs")
    return kvs[0] if kvs else None


def show(call: Invocation, session: Session, request: Message) -> None:
    """Print the history of the one key that `get` was called with. Exit."""
    if len(call.args) != 1:
        raise Exit(BAD_ARGS, "`--history` is for one key")
    others = {flag.name for flag in call.command.flags if flag.changed} - GOES_WITH
    if others:
        raise Exit(BAD_ARGS, f"`--history` and `--{min(others)}` cannot be set at the same time, choose one")
    view = _view(session.printer, call.text("decode"))
    past = Past(session, request)
    try:
        for revision in past.revisions():
            view.revision(revision)
        compacted = past.compacted()
    except CallError as error:
        raise Exit(ERROR, str(error)) from None
    if compacted:
        view.compacted(compacted)


def _view(printer: Printer, decoding: str) -> _Text | _Records:
    if decoding:
        from pyetcd.cli.etcdctl import decoded

        decoded.shows(decoding, printer)
    if isinstance(printer, SimplePrinter):
        return _Text(decoding)
    if isinstance(printer, JsonPrinter):
        return _Records(printer, decoding)
    raise Exit(BAD_FEATURE, "--history is only for `--write-out=simple`, json and yaml")


class _Text:
    """For people: what a revision did, and the lines in which it differs from the one before."""

    def __init__(self, decoding: str) -> None:
        self._forms = differences.forms(decoding)

    def revision(self, revision: Revision) -> None:
        words = [f"revision {revision.number}", _CHANGES[revision.change]]
        if revision.kv is not None:
            words += _about(revision.kv, revision.before)
        emit(", ".join(words) + "\n")
        old, new = (None if kv is None else kv.data("value") for kv in (revision.before, revision.kv))
        if revision.cut and revision.change == "put":
            lines = differences.plain(new or b"", self._forms)
        else:
            lines = differences.change(old, new, self._forms)
        emit("".join(f"{line}\n" for line in lines) + "\n")

    def compacted(self, revision: int) -> None:
        emit(f"compacted before revision {revision}\n")


def _about(kv: Message, before: Message | None) -> list[str]:
    lease, last = kv.number("lease"), before.number("lease") if before is not None else 0
    words = [f"version {kv.number('version')}"]
    if before is not None and before.data("value") == kv.data("value"):
        words.append("same value")
    if lease:
        words.append(f"lease {lease_id(lease)}")
    elif last:
        words.append("without its lease")
    return words


class _Records:
    """For programs: an object for each revision, one after the other."""

    def __init__(self, printer: JsonPrinter, decoding: str) -> None:
        self._printer = printer
        self._key_value: Callable[[Message], Json] = as_object
        if decoding:
            from pyetcd.cli.etcdctl import decoded

            self._key_value = decoded.key_value

    def revision(self, revision: Revision) -> None:
        record: dict[str, Json] = {"revision": revision.number, "change": revision.change}
        if revision.kv is not None:
            record["kv"] = self._key_value(revision.kv)
        self._printer.show(record)

    def compacted(self, revision: int) -> None:
        self._printer.show({"compact_revision": revision})
