"""docs/compatibility.md says what is so: each row is compared with the code, with a running member, or with
the names that real etcd 3.7.1 has."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from compatibility import Row, table
from servers import Etcd

from pyetcd.api.gateway.paths import PATHS
from pyetcd.api.server import STREAMS, UNARY
from pyetcd.cli.etcd import no_effect
from pyetcd.cli.etcd.flag_table import BY_NAME, FLAGS, Kind
from pyetcd.member.features import FEATURES
from pyetcd.proto import election_pb2, health_pb2, lock_pb2, rpc_pb2

HERE = Path(__file__).parent
REAL_FLAGS = set((HERE / "flags_of_etcd.txt").read_text().split())  # those of `etcd --help` that it takes
REAL_FAMILIES = dict(line.split() for line in (HERE / "families_of_etcd.txt").read_text().splitlines())
# Of three members: what one alone does not show.
OF_CLUSTERS = {name for name in REAL_FAMILIES if name.startswith("etcd_network_")}
NOT_THIS_METHOD = 501  # what the gateway says to a GET of a path it knows
WITHOUT_OBJECT = {"v2-deprecation"}  # etcd, too, takes and does not use it; it has a line of its own


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """At the level debug, since some paths are there only then."""
    etcd = Etcd(tmp_path_factory.mktemp("member"), metrics="extensive", log_level="debug")
    yield etcd
    etcd.close()


def all_rpcs() -> set[str]:
    return {
        f"{service.full_name}/{method.name}"
        for file in (rpc_pb2, lock_pb2, election_pb2, health_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def ended(member: Etcd, name: str) -> grpc.StatusCode:
    """How a call ends whose request is no message."""
    try:
        list(member.channel.stream_stream(f"/{name}")(iter([b"\xff"]), timeout=10))
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def listed_flags() -> dict[str, Row]:
    return {name.removeprefix("--"): row for name, row in table("Flags").items()}


def status(url: str, method: str = "GET", body: bytes | None = None) -> int:
    request = urllib.request.Request(url, body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_every_rpc_is_listed_as_the_dispatcher_has_it() -> None:
    rows = table("RPCs")
    assert set(rows) == all_rpcs()
    served = {name.removeprefix("/") for name in (*UNARY, *STREAMS)}
    assert {name for name, row in rows.items() if not row.is_missing} == served


def test_an_rpc_is_unimplemented_just_where_it_is_listed_as_missing(member: Etcd) -> None:
    for name, row in table("RPCs").items():
        code = ended(member, name)
        assert (code is grpc.StatusCode.UNIMPLEMENTED) == row.is_missing, (name, code)


def test_a_path_of_the_client_port_is_served_just_where_it_is_not_listed_as_missing(member: Etcd) -> None:
    for path, row in table("HTTP paths of the client ports").items():
        query = "?seconds=1" if path.startswith("/debug/pprof/") else ""
        assert (status(member.client_url + path + query) == 404) == row.is_missing, path


def test_a_path_of_the_peer_port_is_served_just_where_it_is_not_listed_as_missing(member: Etcd) -> None:
    """A path nobody knows is answered 404 to every method."""
    assert {status(member.peer_url + "/nothing", method) for method in ("GET", "POST")} == {404}
    for path, row in table("HTTP paths of the peer ports").items():
        found = {status(member.peer_url + path, method, b"") for method in ("GET", "POST")}
        assert (found == {404}) == row.is_missing, (path, found)


def test_every_path_of_the_gateway_is_listed_with_its_rpc_and_is_as_that_is(member: Etcd) -> None:
    rows, rpcs = table("Paths of the JSON gateway"), table("RPCs")
    assert {path: "/" + row.cells["RPC"].strip("`") for path, row in rows.items()} == PATHS
    for path, row in rows.items():
        assert row.state == rpcs[row.cells["RPC"].strip("`")].state, path
        assert status(member.client_url + path) == NOT_THIS_METHOD, path
    assert status(member.client_url + "/v3/nothing") == 404


def test_every_flag_of_etcd_is_taken_and_listed_and_no_other() -> None:
    ours = {flag.name for flag in FLAGS if flag.kind is not Kind.IGNORED}
    rows = listed_flags()
    assert set(rows) == ours
    assert {name for name in ours if rows[name].state != "beyond etcd"} == REAL_FLAGS


def test_a_flag_that_changes_nothing_is_listed_so_and_named_at_the_start() -> None:
    idle = {name for name, row in listed_flags().items() if row.state not in ("works", "beyond etcd")}
    assert idle == {*no_effect.FLAGS, *WITHOUT_OBJECT}
    assert all(BY_NAME[name].field for name in no_effect.FLAGS)


def test_every_feature_gate_is_listed_and_those_that_change_nothing_are_named_at_the_start() -> None:
    rows = table("Feature gates")
    assert set(rows) == set(FEATURES)
    assert {name for name, row in rows.items() if row.state != "works"} == set(no_effect.GATES)


def test_every_metric_family_of_etcd_is_listed_with_its_type_and_there(member: Etcd) -> None:
    rows = table("Metrics")
    assert {name: row.cells["type"] for name, row in rows.items() if row.state == "works"} == REAL_FAMILIES
    member.put(b"k", b"v")
    member.range(b"k")
    assert status(member.client_url + "/readyz") == 200  # health checks are told of once made
    with urllib.request.urlopen(member.client_url + "/metrics", timeout=20) as response:
        lines = response.read().decode().splitlines()
    found = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE ")}
    listed = {name: row.cells["type"] for name, row in rows.items()}
    assert found.items() <= listed.items()
    assert set(listed) - set(found) <= OF_CLUSTERS
