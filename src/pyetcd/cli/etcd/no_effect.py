"""Settings that are taken and change nothing, because they are Go's or what they set is still to come.

They are named in a warning line at the start, never swallowed; docs/compatibility.md lists the same ones,
which a test keeps. A setting that has its default is not named.
"""

from __future__ import annotations

from typing import Final

from pyetcd import logs
from pyetcd.cli.etcd.flag_table import BY_NAME
from pyetcd.member.config import ServerConfig

_OWN_MEMBER: Final = "the gateway does not connect to its own member"

# Flag, and why nothing changes.
FLAGS: Final[dict[str, str]] = {
    "backend-bbolt-freelist-type": "there is one kind of freelist",
    "client-cert-file": _OWN_MEMBER,
    "client-key-file": _OWN_MEMBER,
}

# Feature gate, and why nothing changes.
GATES: Final[dict[str, str]] = {
    "TxnModeWriteWithSharedBuffer": "there is one way to read in a transaction",
}

_DEFAULTS: Final = ServerConfig()

_log = logs.get("etcdmain")


def warn_of_no_effect(config: ServerConfig) -> None:
    """One line for each such setting that was given and is not the default anyway."""
    for name, why in FLAGS.items():
        field = BY_NAME[name].field
        if name in config.explicit and _value(config, field) != _value(_DEFAULTS, field):
            _warn(f"--{name}", why)
    for name, why in GATES.items():
        if config.feature(name) != _DEFAULTS.feature(name):
            _warn(f"--feature-gates={name}", why)


def _warn(flag: str, why: str) -> None:
    _log.warn("setting is accepted but has no effect in pyetcd", {"flag": flag, "reason": why})


def _value(config: ServerConfig, path: str) -> object:
    part: object = config
    for name in path.split("."):
        part = getattr(part, name)
    return part
