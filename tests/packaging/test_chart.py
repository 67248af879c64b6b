"""The Helm chart: the shell it carries runs our executables as pods would, and it renders to what was meant
(where helm is there)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyetcd.launching import free_port

CHART = Path(__file__).parents[2] / "packaging/helm/pyetcd"
BIN = Path(sys.executable).parent
SECONDS = 90


class Pod:
    """One pod: its volume, its addresses, its script."""

    def __init__(self, directory: Path, name: str, begin_with: str = "", cluster: str = "") -> None:
        self.client = f"http://127.0.0.1:{free_port()}"
        self.peer = f"http://127.0.0.1:{free_port()}"
        self.data = directory / name
        self._environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "ETCD_NAME": name,
            "ETCD_DATA_DIR": str(self.data),
            "ETCD_LISTEN_CLIENT_URLS": self.client,
            "ETCD_LISTEN_PEER_URLS": self.peer,
            "ETCD_ADVERTISE_CLIENT_URLS": self.client,
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": self.peer,
            "ETCD_INITIAL_CLUSTER": begin_with or f"{name}={self.peer}",
            "ETCD_INITIAL_CLUSTER_TOKEN": "chart",
            "CLUSTER": cluster or self.client,
            "ASK_SECONDS": "1",
        }
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["sh", str(CHART / "files/start.sh")],
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stderr is not None
        seen: list[str] = []
        for line in self.process.stderr:
            seen.append(line)
            if "ready to serve client requests" in line:
                threading.Thread(target=self.process.stderr.read, daemon=True).start()
                return
        raise AssertionError("".join(seen))

    def kill(self) -> None:
        """All of it, as a node does that is gone."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, 9)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.process = None

    def ctl(self, *arguments: str) -> str:
        command = [str(BIN / "etcdctl"), f"--endpoints={self.client}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def voters(self) -> list[str]:
        rows = [line.split(", ") for line in self.ctl("member", "list").splitlines()]
        return sorted(row[2] for row in rows if row[1] == "started" and row[5] == "false")

    def wait_for_voters(self, *names: str) -> None:
        """etcd tells nobody when a member is promoted: it is asked."""
        end = time.monotonic() + SECONDS
        while self.voters() != list(names):
            assert time.monotonic() < end, self.ctl("member", "list")


@pytest.fixture
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    pod = Pod(tmp_path_factory.mktemp("first"), "m-0")
    pod.start()
    yield pod
    pod.kill()


def test_a_later_pod_joins_as_learner_is_promoted_and_joins_anew_when_its_data_is_lost(
    first: Pod, tmp_path: Path
) -> None:
    assert first.ctl("put", "greeting", "hello") == "OK\n"
    second = Pod(tmp_path, "m-1", f"m-0={first.peer}", first.client)
    try:
        second.start()
        first.wait_for_voters("m-0", "m-1")
        assert second.ctl("get", "greeting") == "greeting\nhello\n"
        before = first.ctl("member", "list")
        third = Pod(tmp_path, "m-2", f"m-0={first.peer}", first.client)
        try:
            third.start()
            first.wait_for_voters("m-0", "m-1", "m-2")
            second.kill()
            second.start()  # with its data it goes on under its ID
            first.wait_for_voters("m-0", "m-1", "m-2")
            assert set(before.splitlines()) <= set(first.ctl("member", "list").splitlines())
            third.kill()
            old = next(line for line in first.ctl("member", "list").splitlines() if ", m-2, " in line)
            shutil.rmtree(third.data)
            third.start()
            first.wait_for_voters("m-0", "m-1", "m-2")
            new = next(line for line in first.ctl("member", "list").splitlines() if ", m-2, " in line)
            assert new.split(",")[0] != old.split(",")[0], "never under its old ID with an empty log"
            assert third.ctl("get", "greeting") == "greeting\nhello\n"
        finally:
            third.kill()
    finally:
        second.kill()


def test_a_backup_is_proved_before_it_takes_its_name_and_old_ones_go(first: Pod, tmp_path: Path) -> None:
    for day in range(1, 4):
        (tmp_path / f"snapshot-2026010{day}T000000Z.db").touch()
    (tmp_path / "unproved.db").write_bytes(b"of a run that was cut short")
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "CLUSTER": first.client}
    environment |= {"BACKUP_DIR": str(tmp_path), "BACKUP_KEEP": "2"}
    script = str(CHART / "files/backup.sh")
    done = subprocess.run(["sh", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    old, new = sorted(path.name for path in tmp_path.iterdir())
    assert old == "snapshot-20260103T000000Z.db"
    status = subprocess.run(
        [str(BIN / "etcdutl"), "snapshot", "status", str(tmp_path / new)], capture_output=True, timeout=60
    )
    assert status.returncode == 0


def test_a_backup_of_nobody_fails_and_leaves_the_old_ones(tmp_path: Path) -> None:
    (tmp_path / "snapshot-20260101T000000Z.db").touch()
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "CLUSTER": f"http://127.0.0.1:{free_port()}"}
    environment |= {"BACKUP_DIR": str(tmp_path), "BACKUP_KEEP": "1"}
    script = str(CHART / "files/backup.sh")
    assert subprocess.run(["sh", script], env=environment, capture_output=True, timeout=60).returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot-20260101T000000Z.db"]


def test_templates_use_values_that_there_are_and_all_of_them() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    used: set[str] = set()
    for template in (CHART / "templates").iterdir():
        used |= set(re.findall(r"\.Values\.([\w.]+)", template.read_text()))
    for path in used:
        at: Any = values
        for name in path.split("."):
            at = at[name]
    assert {path.split(".")[0] for path in used} == values.keys()


@pytest.mark.skipif(shutil.which("helm") is None, reason="no helm")
def test_it_renders_to_what_was_meant() -> None:
    flags = "backup.enabled=true,backup.claim=kept,serviceMonitor.enabled=true,replicas=5,initialSize=3"
    command = ["helm", "template", "here", str(CHART), "--namespace=there", "--set", flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = {
        (each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout) if each
    }
    assert found.keys() == {
        ("Service", "here"),
        ("Service", "here-peers"),
        ("ConfigMap", "here-scripts"),
        ("StatefulSet", "here"),
        ("PodDisruptionBudget", "here"),
        ("CronJob", "here-backup"),
        ("ServiceMonitor", "here"),
    }
    assert found["PodDisruptionBudget", "here"]["spec"]["minAvailable"] == 3
    scripts = found["ConfigMap", "here-scripts"]["data"]
    assert scripts["start.sh"].strip() == (CHART / "files/start.sh").read_text().strip()
    pod = found["StatefulSet", "here"]["spec"]["template"]["spec"]
    (etcd,) = pod["containers"]
    given = {each["name"]: each.get("value") for each in etcd["env"]}
    names = [each.split("=")[0] for each in given["ETCD_INITIAL_CLUSTER"].split(",")]
    assert names == ["here-0", "here-1", "here-2"]
    assert given["CLUSTER"].startswith(
        "http://here.there.svc.cluster.local:2379,http://here-0.here-peers.there."
    )
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert {each["name"] for each in etcd["volumeMounts"]} == {"data", "scripts", "tmp"}
