"""`-w table`: for what comes in rows."""

from __future__ import annotations

from pyetcd.cli.etcdctl import rows
from pyetcd.cli.etcdctl.output import Health, Printer, emit
from pyetcd.cli.table import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.proto.lite import Message


class TablePrinter(Printer):
    def member_list(self, answer: Message) -> None:
        emit(table(rows.MEMBER_HEADER, rows.member_rows(answer)))

    def endpoint_health(self, healths: list[Health]) -> None:
        emit(table(rows.HEALTH_HEADER, rows.health_rows(healths)))

    def endpoint_status(self, statuses: list[tuple[str, Message]]) -> None:
        emit(table(rows.STATUS_HEADER, rows.status_rows(statuses)))

    def endpoint_hash_kv(self, hashes: list[tuple[str, Message]]) -> None:
        emit(table(rows.HASH_HEADER, rows.hash_rows(hashes)))
