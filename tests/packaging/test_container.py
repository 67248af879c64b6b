"""The container image, as far as it can be tried without an engine: what the Dockerfile says is taken from it
and run here."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
KNOWN = {
    *("FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD")
}


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "packaging/container/Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [
        (word, rest.strip()) for word, rest in (line.split(" ", 1) for line in lines.splitlines() if line)
    ]


def of_the_image(name: str) -> list[str]:
    """The last stage's."""
    found = instructions()
    last = max(at for at, (word, _) in enumerate(found) if word == "FROM")
    return [rest for word, rest in found[last:] if word == name]


def variables() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in of_the_image("ENV") for pair in shlex.split(line))


def test_the_file_has_known_instructions_and_ends_without_rights() -> None:
    assert {word for word, _ in instructions()} == KNOWN
    (user,) = of_the_image("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "a number: Kubernetes can tell that it is not root"
    assert of_the_image("VOLUME") == [variables()["ETCD_DATA_DIR"]]
    assert of_the_image("STOPSIGNAL") == ["SIGTERM"]


def test_every_shell_step_is_shell() -> None:
    for word, rest in instructions():
        if word == "RUN":
            assert (
                subprocess.run(["sh", "-n", "-c", rest], capture_output=True, timeout=60).returncode == 0
            ), rest


def test_the_wheel_it_copies_is_the_one_that_make_wheel_makes() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    import wheel

    copied = next(rest for word, rest in instructions() if word == "COPY").split()[0]
    assert copied == "dist/*-cp311-cp311-*.whl"
    name = "pyetcd-0.1.0-cp311-cp311-manylinux_2_34_x86_64.whl"
    assert wheel._WHEEL.fullmatch(name) is not None
    assert Path("dist", name).match(copied)


def test_its_command_serves_with_its_variables(tmp_path: Path) -> None:
    (command,) = (json.loads(each) for each in of_the_image("CMD"))
    check = json.loads(of_the_image("HEALTHCHECK")[0].partition("CMD ")[2])
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ports.append(listener.getsockname()[1])
    environment = {**variables(), "HOME": str(tmp_path), "LANG": os.environ.get("LANG", "C.UTF-8")}
    environment |= {"ETCD_DATA_DIR": str(tmp_path / "data"), "PATH": f"{BIN}:/usr/bin:/bin"}
    listen = environment["ETCD_LISTEN_CLIENT_URLS"].replace("2379", str(ports[0]))
    environment |= {"ETCD_LISTEN_CLIENT_URLS": listen}
    environment |= {"ETCD_LISTEN_PEER_URLS": f"http://127.0.0.1:{ports[1]}"}
    server = subprocess.Popen(
        [str(BIN / command[0]), *command[1:]], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        assert any("ready to serve client requests" in line for line in server.stderr)
        environment["ETCDCTL_ENDPOINTS"] = f"http://127.0.0.1:{ports[0]}"
        done = subprocess.run(
            [str(BIN / check[0]), *check[1:]], env=environment, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "data/member/wal").is_dir(), "ETCD_DATA_DIR says where"
        server.terminate()
        server.communicate(timeout=60)
    finally:
        server.kill()
        server.communicate()
