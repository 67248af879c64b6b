"""Real etcd and pyetcd side by side, asked by users: each has tokens of its own, handed out to the same names
at the same moments."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import Message
from random_kv import History
from servers import Etcd, GoEtcd
from twins import PATHS, Metadata, Twins, mask, outcome_of, settle_clock, shown, unary_call

from pyetcd.proto import rpc_pb2
from pyetcd.proto.rpc_pb2 import AuthenticateRequest, AuthenticateResponse

AUTH = "/etcdserverpb.Auth/"
MORE_PATHS: dict[type[Message], tuple[str, type[Message]]] = {
    rpc_pb2.MemberRemoveRequest: ("/etcdserverpb.Cluster/MemberRemove", rpc_pb2.MemberRemoveResponse),
    rpc_pb2.MoveLeaderRequest: ("/etcdserverpb.Maintenance/MoveLeader", rpc_pb2.MoveLeaderResponse),
    rpc_pb2.DefragmentRequest: ("/etcdserverpb.Maintenance/Defragment", rpc_pb2.DefragmentResponse),
    **{
        getattr(rpc_pb2, f"Auth{name}Request"): (AUTH + path, getattr(rpc_pb2, f"Auth{name}Response"))
        for name, path in (
            ("Enable", "AuthEnable"),
            ("Disable", "AuthDisable"),
            ("Status", "AuthStatus"),
            *(
                (name, name)
                for name in (
                    "UserAdd",
                    "UserGet",
                    "UserList",
                    "UserDelete",
                    "UserChangePassword",
                    "UserGrantRole",
                    "UserRevokeRole",
                    "RoleAdd",
                    "RoleGet",
                    "RoleList",
                    "RoleDelete",
                    "RoleGrantPermission",
                    "RoleRevokePermission",
                )
            ),
        )
    },
}
NOT_COMPARED = ("StatusResponse", "HashKVResponse", "MemberListResponse")  # they name sizes, times, addresses


class MainGoEtcd(GoEtcd):
    """Real etcd's own executable, with all its flags."""

    def command(self) -> list[str]:
        return [str(self.executable), *Etcd.command(self)[1:]]  # type: ignore[arg-type]


class AuthTwins(Twins):
    """`tokens`: ours and theirs, by name."""

    def __init__(self, executable: Path, directory: Path, **flags: object) -> None:
        (directory / "go").mkdir()
        (directory / "py").mkdir()
        self.theirs = MainGoEtcd(executable, directory / "go", **flags)
        self.ours = Etcd(directory / "py", **flags)
        self.diverged = False
        self.history = History()
        self.said = []
        self.title = ""
        self.tokens: dict[str, tuple[str, str]] = {}

    def authenticate(self, name: str, password: str) -> None:
        """Both hand out a token, or refuse alike."""
        request = AuthenticateRequest(name=name, password=password)
        ours, theirs = self.exchange(AUTH + "Authenticate", request.SerializeToString())
        self._same_status(f"Authenticate {name} {password}", ours, theirs)
        if ours.bodies:
            told = [AuthenticateResponse.FromString(outcome.bodies[0]) for outcome in (ours, theirs)]
            self.tokens[name] = told[0].token, told[1].token
            assert all(response.token for response in told)
            assert told[0].header.revision == told[1].header.revision

    def ask_as(self, name: str | None, request: Message) -> Message | None:
        """Both answer the same; the response, or None when the call failed on both. `name` None: nobody."""
        path, response_type = MORE_PATHS.get(type(request)) or PATHS[type(request)]
        ours, theirs = (
            outcome_of(call, bodies)
            for call, bodies in (
                unary_call(server, path, request.SerializeToString(), self.metadata(name, place))
                for place, server in enumerate((self.ours, self.theirs))
            )
        )
        self._same_status(f"{path} as {name}\n{shown(request)}", ours, theirs)
        if not ours.bodies:
            return None
        told = [response_type.FromString(outcome.bodies[0]) for outcome in (ours, theirs)]
        if response_type.DESCRIPTOR.name not in NOT_COMPARED:
            settle_clock(*told)
            for response in told:
                mask(response)
            self._same_response(*told)
        return told[1]

    def metadata(self, name: str | None, place: int) -> Metadata:
        if name is None:
            return ()
        known = self.tokens.get(name)
        return (("token", known[place] if known is not None else name),)
