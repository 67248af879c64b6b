"""How long a wrong login takes does not tell whether there is such a user.

Times are compared by their medians, known and unknown names in turn, on a server whose hashes take
milliseconds: without a decoy an unknown name is told in a fraction of that. Noise may spoil a round, so there
are some.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import grpc
import pytest
from servers import Etcd
from test_same_auth import with_root

from pyetcd.proto.rpc_pb2 import AuthenticateRequest

COST = 9  # about 25 ms
LOGINS = 15
ROUNDS = 4
APART_MAX = 1.3


def login_seconds(etcd: Etcd, name: str) -> float:
    login = etcd.channel.unary_unary("/etcdserverpb.Auth/Authenticate")
    began = time.perf_counter()
    with pytest.raises(grpc.RpcError, match="invalid user ID or password"):
        login(AuthenticateRequest(name=name, password="wrong").SerializeToString(), timeout=10)
    return time.perf_counter() - began


def apart(etcd: Etcd) -> float:
    """By which factor the median times of a name that is there and one that is not differ."""
    times: dict[str, list[float]] = {"root": [], "nobody": []}
    for _ in range(LOGINS):
        for name, taken in times.items():
            taken.append(login_seconds(etcd, name))
    medians = sorted(statistics.median(taken) for taken in times.values())
    return medians[1] / medians[0]


@pytest.mark.parametrize("later_cost", [COST, 4])
def test_a_name_that_is_not_there_takes_as_long_as_one_that_is(tmp_path: Path, later_cost: int) -> None:
    """`later_cost`: at which hashes are made when it is asked, which need not be that of root's."""
    etcd = Etcd(tmp_path, bcrypt_cost=COST)
    try:
        with_root(etcd)
        if later_cost != COST:
            etcd.flags["bcrypt-cost"] = str(later_cost)
            etcd.restart()
        first = login_seconds(etcd, "nobody"), login_seconds(etcd, "root")
        assert min(first) > 0.002, "hashes are compared at all"
        found = []
        while not found or (found[-1] > APART_MAX and len(found) < ROUNDS):
            found.append(apart(etcd))
        assert found[-1] <= APART_MAX, found
    finally:
        etcd.close()
