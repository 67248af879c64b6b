"""`PUT /config/local/log` with `{"Level":"DEBUG"}`: another log level for a member that runs, until it ends.

etcd had this until 3.4, and it went with the v2 API; requests and answers are of that time, the names of
levels those of `--log-level` in any case.
"""

from __future__ import annotations

import json
from typing import Final

from pyetcd import logs
from pyetcd.api.http_reply import TEXT, Reply

PATH: Final = "/config/local/log"
NOT_ALLOWED: Final = Reply(405, (("Allow", "PUT"), *TEXT), b"Method Not Allowed\n")
_JSON: Final = (("Content-Type", "application/json"),)

_log = logs.get("etcdhttp")


def change(method: str, body: bytes) -> Reply:
    """Set the level that the body names. 204; 400 with a message; 405 for another method."""
    if method != "PUT":
        return NOT_ALLOWED
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):  # no JSON, no UTF-8
        return _refused("Invalid json body")
    if not isinstance(asked, dict):
        return _refused("Invalid json body")
    name = next((value for key, value in asked.items() if key.lower() == "level"), "")
    if not isinstance(name, str):
        return _refused("Invalid json body")
    level = logs.level_named(name)
    if level is None:
        return _refused(f"Invalid log level {name}")
    logs.set_level(level)
    _log.warn("log level is changed", {"level": level})
    return Reply(204, (), b"")


def _refused(message: str) -> Reply:
    body = json.dumps({"message": message}, separators=(",", ":")).encode()
    return Reply(400, _JSON, body)
