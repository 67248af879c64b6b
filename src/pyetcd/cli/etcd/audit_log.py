"""`--audit-log-path` and its rotation, from the settings to the open file."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from pyetcd import logs
from pyetcd.api.audit_writer import AuditWriter
from pyetcd.cli.etcd.rotation_config import rotation_of
from pyetcd.logs.files import File
from pyetcd.member.config import AuditConfig


class CannotAudit(Exception):
    """The file cannot be had; the text says why."""


def open_audit(
    config: AuditConfig, executor: Executor, loop: asyncio.AbstractEventLoop
) -> AuditWriter | None:
    """None where none is wanted. CannotAudit."""
    if not config.path:
        return None
    try:
        file = File(config.path, rotation_of(config.rotation_json))
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise CannotAudit(f"cannot open the audit log {config.path}: {why}") from None
    return AuditWriter(file, executor, loop, lambda: logs.ago(0.0))
