"""Answers on stdout, in the format asked for.

A `Printer` has one method for each kind of answer; what a format cannot show ends the program with exit
code 4, as in etcdctl. Only the module of the format in use is loaded.
"""

from __future__ import annotations

import sys

from pyetcd.cli.exits import BAD_FEATURE, Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.etcdctl.settings import Settings
    from pyetcd.proto.lite import Message


def emit(text: str) -> None:
    """Print, without a newline; surrogates are the bytes they stand for."""
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))


def emit_bytes(data: bytes) -> None:
    sys.stdout.buffer.write(data)


def flush() -> None:
    sys.stdout.buffer.flush()


class Health:
    """What `endpoint health` found. `took` as Go prints durations; `error` is empty when all is well."""

    __slots__ = ("endpoint", "error", "healthy", "took")

    def __init__(self, endpoint: str, healthy: bool, took: str, error: str) -> None:
        self.endpoint = endpoint
        self.healthy = healthy
        self.took = took
        self.error = error


class WatchAnswer:
    """What a watcher is told. `reason` is the server's for canceling, `error` what clientv3 makes of it.

    Without a header the answer is the client's own.
    """

    __slots__ = ("canceled", "compact_revision", "error", "events", "header", "reason")

    def __init__(
        self,
        header: Message | None,
        events: list[Message],
        *,
        compact_revision: int = 0,
        canceled: bool = False,
        error: str = "",
        reason: str = "",
    ) -> None:
        self.header = header
        self.events = events
        self.compact_revision = compact_revision
        self.canceled = canceled
        self.error = error
        self.reason = reason

    @property
    def is_progress(self) -> bool:
        told = self.events or self.canceled or self.compact_revision
        return not told and self.header is not None and self.header.number("revision") != 0


class Printer:
    """The base of all formats: can show nothing."""

    def __init__(self, name: str, hexadecimal: bool) -> None:
        self.name = name
        self.hex = hexadecimal

    def unsupported(self) -> Exit:
        return Exit(BAD_FEATURE, f"{self.name} not supported as output format")

    def get(self, answer: Message) -> None:
        raise self.unsupported()

    def put(self, answer: Message) -> None:
        raise self.unsupported()

    def delete(self, answer: Message) -> None:
        raise self.unsupported()

    def txn(self, answer: Message) -> None:
        raise self.unsupported()

    def watch(self, answer: WatchAnswer) -> None:
        raise self.unsupported()

    def lease_grant(self, answer: Message) -> None:
        raise self.unsupported()

    def lease_revoke(self, lease: int, answer: Message) -> None:
        raise self.unsupported()

    def lease_keep_alive(self, answer: Message) -> None:
        raise self.unsupported()

    def lease_time_to_live(self, answer: Message, with_keys: bool) -> None:
        raise self.unsupported()

    def leases(self, answer: Message) -> None:
        raise self.unsupported()

    def member_list(self, answer: Message) -> None:
        raise self.unsupported()

    def member_change(self, what: str, member: int, answer: Message) -> None:
        """`what` is `add`, `remove`, `update` or `promote`."""
        raise self.unsupported()

    def move_leader(self, leader: int, target: int, answer: Message) -> None:
        raise self.unsupported()

    def downgrade(self, what: str, answer: Message) -> None:
        """`what` is `validate`, `enable` or `cancel`."""
        raise self.unsupported()

    def auth_status(self, answer: Message) -> None:
        raise self.unsupported()

    def done(self, name: str, answer: Message) -> None:
        """A user or role has changed. `name`: how that is said."""
        raise self.unsupported()

    def user_get(self, name: str, answer: Message) -> None:
        raise self.unsupported()

    def user_list(self, answer: Message) -> None:
        raise self.unsupported()

    def role_get(self, name: str, answer: Message) -> None:
        raise self.unsupported()

    def role_list(self, answer: Message) -> None:
        raise self.unsupported()

    def alarms(self, answer: Message) -> None:
        raise self.unsupported()

    def endpoint_health(self, healths: list[Health]) -> None:
        raise self.unsupported()

    def endpoint_status(self, statuses: list[tuple[str, Message]]) -> None:
        raise self.unsupported()

    def endpoint_hash_kv(self, hashes: list[tuple[str, Message]]) -> None:
        raise self.unsupported()


def printer(settings: Settings) -> Printer:
    """The printer for `--write-out`."""
    if settings.format == "simple":
        from pyetcd.cli.etcdctl.output_simple import SimplePrinter

        return SimplePrinter("simple", settings.hex)
    if settings.format == "json":
        from pyetcd.cli.etcdctl.output_json import JsonPrinter

        return JsonPrinter("json", settings.hex)
    if settings.format == "yaml":
        from pyetcd.cli.etcdctl.output_yaml import YamlPrinter

        return YamlPrinter("yaml", settings.hex)
    if settings.format == "fields":
        from pyetcd.cli.etcdctl.output_fields import FieldsPrinter

        return FieldsPrinter("fields", settings.hex)
    if settings.format == "protobuf":
        from pyetcd.cli.etcdctl.output_protobuf import ProtobufPrinter

        return ProtobufPrinter("protobuf", settings.hex)
    from pyetcd.cli.etcdctl.output_table import TablePrinter

    return TablePrinter("table", settings.hex)
