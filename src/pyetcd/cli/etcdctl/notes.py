"""etcdctl's own log lines: one JSON object a line on stderr, in zap's shape.

`caller` is the place in etcd's source that says the same; who filters log lines by it finds them.
"""

from __future__ import annotations

import sys
import time

from pyetcd.cli.gotext import zap_string


def info(message: str, fields: dict[str, str | int], *, caller: str, logger: str = "") -> None:
    _write("info", message, fields, caller, logger)


def warn(message: str, fields: dict[str, str | int], *, caller: str, logger: str = "") -> None:
    _write("warn", message, fields, caller, logger)


def fatal(message: str, fields: dict[str, str | int], *, caller: str) -> None:
    """Only the line; ending the program is the caller's."""
    _write("fatal", message, fields, caller, "")


def _write(level: str, message: str, fields: dict[str, str | int], caller: str, logger: str) -> None:
    now = time.time_ns()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
    head: dict[str, str | int] = {"level": level, "ts": f"{stamp}.{now // 1000 % 1_000_000:06d}Z"}
    if logger:
        head["logger"] = logger
    parts = [
        f"{zap_string(name)}:{zap_string(value) if isinstance(value, str) else value}"
        for name, value in {**head, "caller": caller, "msg": message, **fields}.items()
    ]
    line = "{" + ",".join(parts) + "}\n"
    sys.stderr.buffer.write(line.encode("utf-8", "surrogateescape"))
    sys.stderr.flush()
