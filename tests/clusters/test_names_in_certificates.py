"""Certificates that are made out to names, among members: the domain of `--discovery-srv` stands in them, and
who comes to the peers' port is looked up. Each scene has a network and name servers of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import GO, OURS, executable

WORLD = Path(__file__).parent / "named_world.py"
SECONDS = 120


def scene(directory: Path, name: str, kinds: list[str]) -> object:
    """What it found. Skips where there may be no namespaces."""
    executables = json.dumps({kind: str(executable(kind)) for kind in {*kinds}})
    (directory / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (directory / "hosts").write_text("127.0.0.1 localhost\n" if name != "who comes" else "")
    mounts = " && ".join(f"mount --bind {directory / file} /etc/{file}" for file in ("resolv.conf", "hosts"))
    begin = f"{mounts} && ip link set lo up"
    apart = ["unshare", "--net", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*apart, begin]).returncode:
        pytest.skip("no namespaces can be made here")
    command = f'{begin} && exec "$@"'
    ran = subprocess.run(
        [*apart, command, "sh", sys.executable, str(WORLD), str(directory), executables, name, *kinds],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]
    return json.loads(ran.stdout)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kinds", [[OURS] * 3, [OURS, GO, OURS]], ids=["ours", "mixed"])
@pytest.mark.parametrize("made_out_to", ["domain", "hosts"])
def test_members_that_dns_names_are_known_by_the_domain_or_with_an_authority_by_their_hosts(
    tmp_path: Path, kinds: list[str], made_out_to: str
) -> None:
    names, rejected = scene(tmp_path, made_out_to, kinds)  # type: ignore[misc]
    assert names == ["m1", "m2", "m3"]
    assert not any(rejected)


@pytest.mark.timeout(900)
def test_a_member_whose_certificate_does_not_bear_the_domain_is_no_member(tmp_path: Path) -> None:
    """Both kinds of member say the same of it, and it hears the same of both."""
    seen, heard = scene(tmp_path, "another name", [OURS, GO, OURS])  # type: ignore[misc]
    assert heard == ["remote error: tls: bad certificate"]
    why = "certificate is valid for m3.example.test, not example.test"
    assert seen == [f"tls: failed to verify certificate: x509: {why}"]


@pytest.mark.timeout(900)
def test_who_comes_to_the_peers_port_is_where_its_certificate_says_it_is(tmp_path: Path) -> None:
    ours, theirs = scene(tmp_path, "who comes", [OURS, GO])  # type: ignore[misc]
    assert ours == theirs
    refused = {name for name, why in ours.items() if why}
    assert refused == {"away", "unknown", "wild elsewhere", "neither"}
