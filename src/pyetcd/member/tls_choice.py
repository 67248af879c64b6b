"""TLS versions and cipher suites by the names Go has for them.

Every name that Go 1.26 knows is taken, as etcd takes it (client/pkg/tlsutil). Suites concern TLS 1.2 alone:
those of TLS 1.3 cannot be chosen, in Go as here. What the TLS library does not have (CBC, RC4, 3DES, RSA key
exchange) is named in a warning and never used; where nothing else is chosen the start is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pyetcd import logs

VERSIONS: Final = {"": 0, "TLS1.2": 12, "TLS1.3": 13}
LOWEST: Final = 12
HIGHEST: Final = 13

_OFFERED: Final = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": 0xC02B,
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": 0xC02C,
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": 0xC02F,
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": 0xC030,
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA8,
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA9,
    # etcd's own older names
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": 0xCCA8,
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": 0xCCA9,
}
_NOT_OFFERED: Final = frozenset(
    {
        "TLS_RSA_WITH_RC4_128_SHA",
        "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA",
        "TLS_RSA_WITH_AES_256_CBC_SHA",
        "TLS_RSA_WITH_AES_128_CBC_SHA256",
        "TLS_RSA_WITH_AES_128_GCM_SHA256",
        "TLS_RSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
        "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
        "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
        "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    }
)


class UnknownSuite(Exception):
    """A name Go does not know; the text is etcd's."""


def suite_numbers(names: Sequence[str]) -> list[int]:
    """The suites' numbers, without those that cannot be had. UnknownSuite."""
    for name in names:
        if name not in _OFFERED and name not in _NOT_OFFERED:
            raise UnknownSuite(f"unexpected TLS cipher suite {logs.quote(name)}")
    return [_OFFERED[name] for name in names if name in _OFFERED]


def suites_not_offered(names: Sequence[str]) -> list[str]:
    """Those of Go's that the TLS library does not have."""
    return [name for name in names if name in _NOT_OFFERED]


def version_numbers(lowest: str, highest: str) -> tuple[int, int]:
    """The lowest and highest version, as numbers; empty names leave the choice to us."""
    return VERSIONS[lowest] or LOWEST, VERSIONS[highest] or HIGHEST
