"""`/debug/vars`: etcd's variables, with what they are here."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable, Mapping

from pyetcd.member.member import Member


def variables(member: Member) -> Mapping[str, Callable[[], object]]:
    """What is read when somebody asks."""
    return {
        "cmdline": lambda: sys.argv,
        "file_descriptor_limit": lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "memstats": _memory,
        "raft.status": lambda: _raft(member),
    }


def _memory() -> Mapping[str, object]:
    """The fields of Go's that have a counterpart."""
    collections = sum(generation["collections"] for generation in gc.get_stats())
    return {
        "Sys": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        "HeapObjects": sys.getallocatedblocks(),
        "NumGC": collections,
        "EnableGC": gc.isenabled(),
    }


def _raft(member: Member) -> Mapping[str, object]:
    status = member.consensus.node.status()
    return {
        "id": f"{status.id:x}",
        "term": status.hard_state.term,
        "vote": f"{status.hard_state.vote:x}",
        "commit": status.hard_state.commit,
        "lead": f"{status.soft_state.lead:x}",
        "raftState": status.soft_state.role.name,
        "applied": status.applied,
        "progress": {
            f"{id:x}": {"match": each.match, "next": each.next, "state": each.state.name}
            for id, each in status.progress.items()
        },
        "leadtransferee": f"{status.transferee:x}",
    }
