"""What the parts that serve one other member have in common."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyetcd.peer.counters import Counters
from pyetcd.peer.headers import Identity
from pyetcd.peer.picker import UrlPicker
from pyetcd.peer.seams import Raft
from pyetcd.peer.status import PeerStatus

if TYPE_CHECKING:
    from pyetcd.peer.wire import PeerWire


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a stream may be silent, and may take nothing, until it is given up. A beat comes three times
    in the former. etcd never goes below 5 s."""

    read_seconds: float = 5.0
    write_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Link:
    """Between this member and the one called `id`: everything it takes to talk to that one."""

    identity: Identity
    id: int
    picker: UrlPicker
    status: PeerStatus
    counters: Counters
    wire: PeerWire
    raft: Raft
    loop: asyncio.AbstractEventLoop
    timeouts: Timeouts
