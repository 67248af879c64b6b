"""Fuzz what faces the network: `python tests/fuzz SECONDS [SEED] [TARGET …]`, 600 seconds by default."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[1:1] = [str(TESTS / "native"), str(TESTS / "interop")]

import drive  # noqa: E402
import parsers  # noqa: E402
import wire  # noqa: E402

TARGETS = {
    "requests": parsers.requests,
    "gateway": parsers.gateway,
    "peers": parsers.peers,
    "tokens": parsers.tokens,
    "certificates": parsers.certificates,
    "kubernetes": parsers.kubernetes_values,
    "connections": wire.connections,
    "handshakes": wire.handshakes,
}

sys.exit(drive.main(TARGETS, sys.argv[1:]))
