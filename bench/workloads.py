"""What is measured: the names `--only` takes, what each asks of the load, and what is to be reached.

Those of the first kind (`REPEATED`) repeat one operation for some seconds on a small key space; those of the
second (`LARGE`) share one large data set. `CLUSTERED` and `ELECT` ask clusters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SMALL_KEYS = 10_000

# What is measured of a workload; the first is better when higher, the others when lower.
THROUGHPUT, P50, P99, CPU = "throughput", "p50_us", "p99_us", "cpu_us"
MEMORY, RESTART, LATE, ELECTION = "memory_mib", "restart_s", "late_s", "election_s"
HIGHER_IS_BETTER = frozenset({THROUGHPUT})

LABELS = {
    THROUGHPUT: "throughput, per s",
    P50: "p50, µs",
    P99: "p99, µs",
    CPU: "server CPU, µs per operation",
    MEMORY: "anonymous memory, MiB",
    RESTART: "restart, s",
    LATE: "last key gone after its time, s",
    ELECTION: "until another leads, s",
}


@dataclass(frozen=True, slots=True)
class Workload:
    """`filled`: the key space is written before the first round. `options` go to the load as they are.
    `members`: of the cluster that is asked; connections are dealt out to them in turn."""

    name: str
    title: str
    load: str
    options: Mapping[str, float] = field(default_factory=dict)
    filled: bool = False
    members: int = 1


REPEATED = (
    Workload("put-1", "put, 1 client", "put", {"clients": 1, "conns": 1}),
    Workload("put-64", "put, 64 clients", "put", {"clients": 64, "conns": 16}),
    Workload("put-256", "put, 256 clients", "put", {"clients": 256, "conns": 64}),
    Workload("get-64", "linearizable get, 64 clients", "get", {"clients": 64, "conns": 16}, True),
    Workload(
        "get-serializable-64",
        "serializable get, 64 clients",
        "get-serializable",
        {"clients": 64, "conns": 16},
        True,
    ),
    Workload("txn-64", "txn as Kubernetes updates, 64 clients", "txn", {"clients": 64, "conns": 16}, True),
    Workload("list-1000", "list of 1,000 keys, 8 clients", "list", {"clients": 8, "conns": 4}, True),
    Workload("watch-100", "events to 100 watchers", "watch", {"watchers": 100, "conns": 8}),
    Workload("watch-1000", "events to 1,000 watchers", "watch", {"watchers": 1000, "conns": 8}),
    Workload("lease-64", "lease grant + keep-alive, 64 clients", "lease", {"clients": 64, "conns": 16}),
    Workload("keepalive-64", "keep-alive on 64 streams", "keepalive", {"clients": 64, "conns": 16}),
)

MEMBERS = 3
CLUSTERED = (
    Workload(
        "cluster-put-64", "3 members: put, 64 clients", "put", {"clients": 64, "conns": 18}, False, MEMBERS
    ),
    Workload(
        "cluster-put-256", "3 members: put, 256 clients", "put", {"clients": 256, "conns": 63}, False, MEMBERS
    ),
    Workload(
        "cluster-get-64",
        "3 members: linearizable get, 64 clients",
        "get",
        {"clients": 64, "conns": 18},
        True,
        MEMBERS,
    ),
)
ELECT = "cluster-elect"
ELECT_TITLE = "3 members: a new leader after kill -9"
ELECTIONS_PER_ROUND = 4  # election timeouts are random, from one to two seconds, so it takes many

LARGE = {
    "memory": "{keys} keys: memory after they were written",
    "memory-restarted": "{keys} keys: memory after a restart",
    "restart": "{keys} keys: restart until the first read",
    "stream": "{keys} keys through one RangeStream",
    "page": "{keys} keys at an old revision, 500 a page, others writing",
}
EXPIRE = "expire"
EXPIRE_TITLE = "{leases} leases that end together"
LEASES_PER_KEY = 1 / 20  # 50,000 at a million keys

ALONE = (*(workload.name for workload in REPEATED), *LARGE, EXPIRE)
CLUSTERS = (*(workload.name for workload in CLUSTERED), ELECT)
NAMES = (*ALONE, *CLUSTERS)
GROUPS = {"alone": ALONE, "clusters": CLUSTERS}


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio pyetcd : Go, or with `absolute` pyetcd's own figure, and the bound it is to keep."""

    name: str
    metric: str
    bound: float
    absolute: bool = False

    @property
    def at_least(self) -> bool:
        return self.metric in HIGHER_IS_BETTER


TARGETS = (
    Target("put-64", CPU, 0.5),
    Target("put-64", THROUGHPUT, 1.2),
    Target("txn-64", CPU, 0.5),
    Target("txn-64", THROUGHPUT, 1.2),
    Target("get-64", CPU, 0.6),
    Target("get-64", THROUGHPUT, 1.2),
    Target("get-serializable-64", CPU, 0.6),
    Target("get-serializable-64", THROUGHPUT, 1.2),
    Target("list-1000", THROUGHPUT, 1.0),
    Target("watch-1000", THROUGHPUT, 1.0),
    Target("memory", MEMORY, 0.8),
    Target("memory-restarted", MEMORY, 0.8),
    Target("restart", RESTART, 1.5),
    Target("page", THROUGHPUT, 20.0),
    Target("expire", LATE, 5.0, absolute=True),
    Target("stream", THROUGHPUT, 1.0),
    Target("cluster-put-64", THROUGHPUT, 1.5),
    Target("cluster-put-64", CPU, 0.5),
    Target("cluster-put-256", THROUGHPUT, 1.5),
    Target("cluster-put-256", CPU, 0.5),
    Target("cluster-get-64", THROUGHPUT, 1.2),
    Target(ELECT, ELECTION, 1.1),  # no later than Go: a tenth is what such medians differ by chance
)
