"""What is committed is what the `.proto` files say, and the `.proto` files say what etcd's wire says."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pyetcd.proto import election_pb2, health_pb2, lock_pb2, rpc_pb2

ROOT = Path(__file__).parents[2]


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_proto", ROOT / "scripts" / "generate_proto.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_files_are_up_to_date(tmp_path: Path) -> None:
    for path in generator().generate(tmp_path):
        assert (ROOT / "src" / path).read_text() == (tmp_path / path).read_text(), f"{path}: run `make proto`"


SERVICES = {
    "etcdserverpb.KV": "Range RangeStream Put DeleteRange Txn Compact",
    "etcdserverpb.Watch": "Watch",
    "etcdserverpb.Lease": "LeaseGrant LeaseRevoke LeaseKeepAlive LeaseTimeToLive LeaseLeases",
    "etcdserverpb.Cluster": "MemberAdd MemberRemove MemberUpdate MemberList MemberPromote",
    "etcdserverpb.Maintenance": "Alarm Status Defragment Hash HashKV Snapshot MoveLeader Downgrade",
    "etcdserverpb.Auth": "AuthEnable AuthDisable AuthStatus Authenticate UserAdd UserGet UserList UserDelete"
    " UserChangePassword UserGrantRole UserRevokeRole RoleAdd RoleGet RoleList RoleDelete RoleGrantPermission"
    " RoleRevokePermission",
    "v3lockpb.Lock": "Lock Unlock",
    "v3electionpb.Election": "Campaign Proclaim Leader Observe Resign",
    "grpc.health.v1.Health": "Check List Watch",
}


@pytest.mark.parametrize("module", [rpc_pb2, lock_pb2, election_pb2, health_pb2], ids=lambda m: m.__name__)
def test_the_services_have_etcds_names_and_methods(module: ModuleType) -> None:
    for service in module.DESCRIPTOR.services_by_name.values():
        assert [method.name for method in service.methods] == SERVICES[service.full_name].split()


def test_exactly_etcds_streams_are_streams() -> None:
    modules = (rpc_pb2, lock_pb2, election_pb2, health_pb2)
    services = [s for module in modules for s in module.DESCRIPTOR.services_by_name.values()]
    streams = {
        f"{service.full_name}/{method.name}": (method.client_streaming, method.server_streaming)
        for service in services
        for method in service.methods
        if method.client_streaming or method.server_streaming
    }
    assert streams == {
        "etcdserverpb.KV/RangeStream": (False, True),
        "etcdserverpb.Watch/Watch": (True, True),
        "etcdserverpb.Lease/LeaseKeepAlive": (True, True),
        "etcdserverpb.Maintenance/Snapshot": (False, True),
        "v3electionpb.Election/Observe": (False, True),
        "grpc.health.v1.Health/Watch": (False, True),
    }
