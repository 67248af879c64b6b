"""Real etcd's members as processes, in a cluster of which the test itself is a member."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import grpc
import pytest
from google.protobuf.message import Message

from pyetcd.launching import free_port
from pyetcd.proto.rpc_pb2 import PutRequest, PutResponse

REPOSITORY = Path(__file__).parents[2]
GO_MODULE = REPOSITORY / "bench" / "go"
READY_SECONDS = 60.0
Answer = TypeVar("Answer", bound=Message)
STOP_SECONDS = 20.0


def build_etcd(target: Path) -> Path:
    """Real etcd's executable, or skip the test where it cannot be had."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed")
    if _go("list", "-deps", "./cmd/etcd").returncode:
        pytest.skip("etcd's Go modules cannot be had")
    built = _go("build", "-o", str(target), "./cmd/etcd")
    assert not built.returncode, built.stderr
    return target


def _go(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["go", *arguments], cwd=GO_MODULE, capture_output=True, text=True)


class GoMember:
    """One process. Started when made; `stop` it."""

    def __init__(
        self, etcd: Path, directory: Path, name: str, initial: Mapping[str, str], **flags: object
    ) -> None:
        self.port = free_port()
        client = f"http://127.0.0.1:{self.port}"
        given = {name.replace("_", "-"): value for name, value in flags.items()}
        self._log = directory / f"{name}.log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [
                    str(etcd),
                    f"--name={name}",
                    f"--data-dir={directory / name}",
                    f"--listen-client-urls={client}",
                    f"--advertise-client-urls={client}",
                    f"--listen-peer-urls={initial[name]}",
                    f"--initial-advertise-peer-urls={initial[name]}",
                    "--initial-cluster=" + ",".join(f"{each}={url}" for each, url in initial.items()),
                    *(f"--{flag}={value}" for flag, value in given.items()),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")

    def printed(self) -> str:
        return self._log.read_text(errors="replace")

    def put(self, key: bytes, value: bytes) -> None:
        """Waits for the member to serve."""
        self.call("KV/Put", PutRequest(key=key, value=value), PutResponse)

    def call(self, path: str, request: Message, response: type[Answer]) -> Answer:
        """`path` without its package, as "KV/Range". Tried again for as long as a member may be starting."""
        method = self.channel.unary_unary(
            f"/etcdserverpb.{path}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                answer: Answer = method(request, timeout=10, wait_for_ready=True)
            except grpc.RpcError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{error}\n{self.printed()[-4000:]}") from None
                time.sleep(0.1)
            else:
                return answer

    def stop(self) -> None:
        self.channel.close()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        print(self.printed()[-6000:], file=sys.stderr)
