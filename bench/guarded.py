"""`python -m bench.guarded`: what a put costs with authentication on, beside one with it off; pyetcd and real
etcd. Writes a table to bench/results.

Each server is measured by turns: a round open, a round locked, on the same member. Locked, every client has
logged in as a user whose role may write the keys; a put then brings a token, and its permission is judged.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
from collections.abc import Sequence

import grpc
from google.protobuf.message import Message

from bench.load import Sample, run
from bench.machine import describe
from bench.programs import REPOSITORY, Programs, build
from bench.rounds import progress
from bench.servers import GO, PYETCD, Server
from pyetcd.proto import rpc_pb2
from pyetcd.proto.rpc_pb2 import AuthenticateRequest, AuthenticateResponse

CLIENTS, CONNECTIONS = 64, 16
USER, PASSWORD = "writer", "secret"
ROOT_PASSWORD = "root"
CALL_SECONDS = 30
RATIO_MAX = 1.3
OPEN, LOCKED = "off", "on"

AUTH = "/etcdserverpb.Auth/"
SETUP: Sequence[tuple[str, Message]] = (
    ("UserAdd", rpc_pb2.AuthUserAddRequest(name="root", password=ROOT_PASSWORD)),
    ("UserAdd", rpc_pb2.AuthUserAddRequest(name=USER, password=PASSWORD)),
    ("RoleAdd", rpc_pb2.AuthRoleAddRequest(name="writes")),
    (
        "RoleGrantPermission",
        rpc_pb2.AuthRoleGrantPermissionRequest(
            name="writes", perm={"permType": "READWRITE", "key": b"\0", "range_end": b"\0"}
        ),
    ),
    ("UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root")),
    ("UserGrantRole", rpc_pb2.AuthUserGrantRoleRequest(user=USER, role="writes")),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.guarded", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of one round (default 3)")
    options = parser.parse_args()
    programs = build()
    seen = {kind: measure(programs, kind, options.rounds, options.seconds) for kind in (PYETCD, GO)}
    machine = describe(programs.go_version)
    text = table(seen, f"{machine.cores} cores of {machine.cpu}, {machine.python}, {machine.go}.")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    (REPOSITORY / "bench" / "results" / f"{date}-auth.md").write_text(text)
    print(text)
    return 0 if ratio(seen[PYETCD]) <= RATIO_MAX else 1


def measure(programs: Programs, kind: str, rounds: int, seconds: float) -> dict[str, list[Sample]]:
    server = Server(kind, programs)
    seen: dict[str, list[Sample]] = {OPEN: [], LOCKED: []}
    try:
        server.start()
        with grpc.insecure_channel(server.endpoint) as channel:
            for path, request in SETUP:
                ask(channel, path, request)
            put(programs, server, seconds, "")  # not counted: everything is warm
            for number in range(rounds):
                seen[OPEN].append(put(programs, server, seconds, ""))
                ask(channel, "AuthEnable", rpc_pb2.AuthEnableRequest())
                seen[LOCKED].append(put(programs, server, seconds, f"{USER}:{PASSWORD}"))
                request = AuthenticateRequest(name="root", password=ROOT_PASSWORD)
                token = AuthenticateResponse.FromString(ask(channel, "Authenticate", request)).token
                ask(channel, "AuthDisable", rpc_pb2.AuthDisableRequest(), token)
                progress(f"{kind}: round {number + 1} of {rounds}")
    finally:
        server.discard()
    return seen


def put(programs: Programs, server: Server, seconds: float, user: str) -> Sample:
    options: dict[str, float | str] = {"clients": CLIENTS, "conns": CONNECTIONS, "seconds": seconds}
    if user:
        options["user"] = user
    return run(programs, server, "put", **options)


def ask(channel: grpc.Channel, path: str, request: Message, token: str = "") -> bytes:
    metadata = (("token", token),) if token else ()
    call = channel.unary_unary(AUTH + path)
    answer: bytes = call(request.SerializeToString(), metadata=metadata, timeout=CALL_SECONDS)
    return answer


def cost_us(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.cpu_us_per_op for sample in samples)


def ratio(seen: dict[str, list[Sample]]) -> float:
    return cost_us(seen[LOCKED]) / cost_us(seen[OPEN])


def table(seen: dict[str, dict[str, list[Sample]]], machine: str) -> str:
    lines = [
        "# Puts with authentication on\n",
        f"{CLIENTS} clients on {CONNECTIONS} connections, each logged in once; medians of rounds that "
        f"alternate between off and on. At most {RATIO_MAX} times the CPU is wanted of pyetcd. {machine}\n",
        "| | authentication | puts, per s | CPU of the server, us a put | on to off |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for kind, kinds in seen.items():
        for name, samples in kinds.items():
            rate = statistics.median(sample.throughput for sample in samples)
            beside = f"{ratio(kinds):.2f}x" if name == LOCKED else ""
            lines.append(f"| {kind} | {name} | {rate:,.0f} | {cost_us(samples):.1f} | {beside} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
