"""Is this member well? `/health` for people and old probes, `/livez` and `/readyz` for orchestrators.

`/health` looks at alarms, leader and a read, and names the first thing wrong. `/livez` asks whether a restart
would help (can it read its own store?), `/readyz` whether to send it clients (can it read linearizably, is
its data sound, does it vote?). A lack of space fails `/health` but neither of the other two: the member still
serves reads.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import parse_qsl

from pyetcd import logs
from pyetcd.api.http_reply import TEXT, Reply
from pyetcd.logs import quote
from pyetcd.metrics import Counter, Registry
from pyetcd.proto.errors import EtcdError

_log = logs.get("etcdhttp")
_OK: Final = ""


class HealthSource(Protocol):
    """What is asked of a member."""

    @property
    def leader(self) -> int:
        """The leader's ID, 0 when none is known."""

    @property
    def is_learner(self) -> bool: ...

    def alarm_names(self) -> Sequence[str]:
        """`NOSPACE`, `CORRUPT`, …: one for every active alarm."""

    def cluster_version(self) -> str:
        """`3.7.0`, empty while not decided."""

    def storage_version(self) -> str:
        """`3.7.0`, empty while not known."""

    async def linearizable_read(self) -> None:
        """Read one key through the quorum. EtcdError when that fails or takes too long."""

    async def serializable_read(self) -> None:
        """Read one key from the local store. EtcdError when that fails."""


Check = Callable[[], Awaitable[str]]  # the reason of a failure, empty when well


class HealthChecks:
    """Answers the health paths and counts their outcomes. One for all ports of a member."""

    def __init__(self, member: HealthSource, registry: Registry, passed: Counter, failed: Counter) -> None:
        self._member = member
        self._passed = passed
        self._failed = failed
        self._checks: Mapping[str, Mapping[str, Check]] = {
            "livez": {"serializable_read": self._serializable},
            "readyz": {
                "data_corruption": self._data,
                "serializable_read": self._serializable,
                "linearizable_read": self._linearizable,
                "non_learner": self._votes,
            },
        }
        self._latest: dict[tuple[str, str], int] = {}
        registry.rows(
            "etcd_server_healthcheck",
            "gauge",
            "1 for a health check that passed last time.",
            ("name", "type"),
        ).rows = self._latest.items
        self._outcomes = registry.counters(
            "etcd_server_healthchecks_total", "Health checks by outcome.", ("name", "status", "type")
        )

    def knows(self, path: str) -> bool:
        """Whether `path` is one of ours."""
        if path == "/health":
            return True
        kind, _, name = path[1:].partition("/")
        checks = self._checks.get(kind)
        return checks is not None and (path == f"/{kind}" or name in checks)

    async def answer(self, path: str, query: str) -> Reply:
        """The answer to a GET of a path that `knows` accepted."""
        parameters = parse_qsl(query, keep_blank_values=True)
        if path == "/health":
            return await self._health(parameters)
        kind, _, name = path[1:].partition("/")
        if name:
            return await self._probe(path, kind, [name], parameters)
        excluded = {value for key, value in parameters if key == "exclude" and value}
        names = [name for name in self._checks[kind] if name not in excluded]
        missing = excluded - set(self._checks[kind])
        if missing:
            shown = ",".join(quote(name) for name in sorted(missing))
            _log.warn("some health checks cannot be excluded", {"missing-health-checks": shown})
        return await self._probe(path, kind, names, parameters)

    async def _health(self, parameters: Sequence[tuple[str, str]]) -> Reply:
        excluded = {value for key, value in parameters if key == "exclude"}
        flags = [value for key, value in parameters if key == "serializable"]
        reason = await self._sickness(excluded, flags[:1] == ["true"])
        health = {"health": "false" if reason else "true", "reason": reason}
        text = json.dumps(health, separators=(",", ":"), ensure_ascii=False)
        if reason:
            self._failed.value += 1
            _log.warn("/health error", {"output": text, "status-code": 503})
            return Reply.error(503, text)
        self._passed.value += 1
        return Reply(200, (("Content-Type", "text/plain; charset=utf-8"),), text.encode())

    async def _sickness(self, excluded: set[str], serializable: bool) -> str:
        for alarm in self._member.alarm_names():
            if alarm not in excluded:
                _log.warn("serving /health false due to an alarm", {"alarm": alarm})
                return f"ALARM {alarm}" if alarm in ("NOSPACE", "CORRUPT") else "ALARM UNKNOWN"
        if not serializable and self._member.leader == 0:
            _log.warn("serving /health false; no leader")
            return "RAFT NO LEADER"
        failure = await (self._serializable() if serializable else self._linearizable())
        if failure:
            _log.warn("serving /health false; Range fails", {"error": failure})
            return f"RANGE ERROR:{failure}"
        return _OK

    async def _probe(
        self, path: str, kind: str, names: Sequence[str], parameters: Sequence[tuple[str, str]]
    ) -> Reply:
        lines, failed = [], False
        for name in names:
            failure = await self._checks[kind][name]()
            status = "error" if failure else "success"
            self._latest[name, kind] = 0 if failure else 1
            self._outcomes.cell(name, status, kind).value += 1
            lines.append(f"[-]{name} failed: {failure}\n" if failure else f"[+]{name} ok\n")
            failed = failed or bool(failure)
        reason = "".join(lines)
        if failed:
            _log.error("Health check error", {"path": path, "reason": reason, "status-code": 503})
            return Reply.error(503, reason)
        verbose = any(key == "verbose" for key, _ in parameters)
        return Reply(200, TEXT, ((reason if verbose else "") + "ok\n").encode())

    async def _data(self) -> str:
        return "alarm activated: CORRUPT" if "CORRUPT" in self._member.alarm_names() else _OK

    async def _votes(self) -> str:
        return "not supported for learner" if self._member.is_learner else _OK

    async def _serializable(self) -> str:
        return await _failure_of(self._member.serializable_read())

    async def _linearizable(self) -> str:
        return await _failure_of(self._member.linearizable_read())


async def _failure_of(read: Awaitable[None]) -> str:
    try:
        await read
    except EtcdError as error:
        return error.message
    except TimeoutError:
        return "context deadline exceeded"
    return _OK
