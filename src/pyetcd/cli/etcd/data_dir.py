"""A first look at the data directory: whose is it, and is anything in it that does not belong there?"""

from __future__ import annotations

from collections.abc import Mapping

from pyetcd import logs
from pyetcd.storage.files import Files

_log = logs.get("etcdmain")


class DataDirError(Exception):
    """The directory cannot be used. `message` and `fields` are the log line."""

    def __init__(self, message: str, fields: Mapping[str, object]) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


def look_at_data_dir(files: Files, path: str) -> bool:
    """Log what is there; returns whether a member has been there before. DataDirError when it is no place for
    one.
    """
    try:
        names = sorted(files.listdir(path))
    except FileNotFoundError:
        names = []
    except OSError as error:
        why = f"open {path}: {(error.strerror or str(error)).lower()}"
        raise DataDirError("failed to list data directory", {"dir": path, "error": why}) from None
    for name in names:
        if name not in ("member", "proxy"):
            _log.warn("found invalid file under data directory", {"filename": name, "data-dir": path})
    if "member" in names and "proxy" in names:
        raise DataDirError("invalid datadir; both member and proxy directories exist", {})
    if "proxy" in names:
        raise DataDirError("v2 http proxy has already been deprecated in 3.6", {"dir-type": "proxy"})
    if "member" in names:
        _log.info("server has already been initialized", {"data-dir": path, "dir-type": "member"})
        return True
    _log.info("Initialize and start etcd server", {"data-dir": path, "dir-type": "empty"})
    return False
