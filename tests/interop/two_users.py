"""Whom tests of authentication begin with: root, and low, who may read and write keys from `own` on."""

from __future__ import annotations

from pyetcd.proto import rpc_pb2

TWO_USERS = (
    ("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="root", password="pass-of-root")),
    ("Auth/UserAdd", rpc_pb2.AuthUserAddRequest(name="low", password="pass-of-low")),
    ("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="root")),
    ("Auth/RoleAdd", rpc_pb2.AuthRoleAddRequest(name="owner")),
    ("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")),
    ("Auth/UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="low", role="owner")),
    (
        "Auth/RoleGrantPermission",
        rpc_pb2.AuthRoleGrantPermissionRequest(
            name="owner", perm={"permType": "READWRITE", "key": b"own", "range_end": b"owo"}
        ),
    ),
)
"""Path and request, in order; authentication is still to be enabled."""
