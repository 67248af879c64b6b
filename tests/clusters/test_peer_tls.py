"""Members that reach each other over TLS, with generated certificates and with those of an authority."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from authority import Authority
from cluster import Cluster, until
from cluster_load import Load
from members import Member
from programs import GO, OURS

REJECTED = "rejected connection on peer endpoint"


class Secured(Cluster):
    """A cluster whose members' URLs are https."""

    def _make(self, kind: str) -> Member:
        member = super()._make(kind)
        member.peer_url = member.listen_peer_url = f"https://127.0.0.1:{member.peer_port}"
        return member


@pytest.fixture
def made() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def agree(cluster: Cluster) -> None:
    for member in cluster.members:
        member.client.put(member.name.encode(), b"v")
    cluster.wait_revision(max(member.client.status().header.revision for member in cluster.members))
    cluster.same_hashes()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kinds", [[OURS, OURS, OURS], [OURS, GO, GO], [OURS, OURS, GO]], ids=str)
def test_members_reach_each_other_with_certificates_they_made(
    made: ExitStack, tmp_path: Path, kinds: Sequence[str]
) -> None:
    cluster = made.enter_context(Secured(tmp_path, kinds, peer_auto_tls=True))
    agree(cluster)
    for member in cluster.members:
        files = (member.data / "fixtures" / "peer").iterdir()
        assert {file.name for file in files} >= {"cert.pem", "key.pem"}


@pytest.mark.timeout(900)
def test_each_takes_over_the_certificate_the_other_made(made: ExitStack, tmp_path: Path) -> None:
    cluster = made.enter_context(Secured(tmp_path, [OURS, GO, GO], peer_auto_tls=True))
    agree(cluster)
    for member, kind in ((cluster.members[0], GO), (cluster.members[1], OURS)):
        certificate = (member.data / "fixtures" / "peer" / "cert.pem").read_bytes()
        member.stop()
        cluster.restart(member, kind)
        assert (member.data / "fixtures" / "peer" / "cert.pem").read_bytes() == certificate
    agree(cluster)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kinds", [[OURS, OURS, OURS], [OURS, GO, OURS]], ids=str)
def test_members_with_allowed_names_and_certificates_of_their_own_for_dialling_agree(
    made: ExitStack, tmp_path: Path, kinds: Sequence[str]
) -> None:
    authority = Authority(tmp_path / "authority")
    authority.issue("member", ["127.0.0.1"])
    authority.issue("member", ["127.0.0.1"], file="dialling")
    files = authority.directory
    cluster = made.enter_context(
        Secured(
            tmp_path,
            kinds,
            peer_client_cert_auth=True,
            peer_trusted_ca_file=authority.ca,
            peer_cert_file=files / "member.pem",
            peer_key_file=files / "member.key",
            peer_client_cert_file=files / "dialling.pem",
            peer_client_key_file=files / "dialling.key",
            peer_cert_allowed_cn="member",
            peer_crl_file=authority.crl,
        )
    )
    agree(cluster)
    assert not any(member.output.has(REJECTED) for member in cluster.members)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", [OURS, GO])
def test_a_member_that_comes_from_elsewhere_than_its_certificate_says_is_turned_away(
    made: ExitStack, tmp_path: Path, kind: str
) -> None:
    """The others are ours; the certificate they dial with names another address."""
    authority = Authority(tmp_path / "authority")
    authority.issue("member", ["127.0.0.1"])
    authority.issue("elsewhere", ["192.0.2.7"])
    files = authority.directory
    cluster = Secured(
        tmp_path,
        [kind, OURS],
        peer_client_cert_auth=True,
        peer_trusted_ca_file=authority.ca,
        peer_cert_file=files / "member.pem",
        peer_key_file=files / "member.key",
        peer_client_cert_file=files / "elsewhere.pem",
        peer_client_key_file=files / "elsewhere.key",
    )
    made.callback(cluster.close)
    initial = ",".join(f"{member.name}={member.peer_url}" for member in cluster.members)
    for member in cluster.members:
        member.begin(initial, "new")
    first = cluster.members[0]
    assert first.output.wait(REJECTED, 20)
    lines = [json.loads(line) for line in first.log.read_text().splitlines() if REJECTED in line]
    assert lines[0]["error"] == "x509: certificate is valid for 192.0.2.7, not 127.0.0.1"
    assert lines[0]["ip-addresses"] == ["192.0.2.7"]
    assert lines[0]["dns-names"] == []


def loaded_again(cluster: Cluster) -> list[int]:
    """How often each of our members has read its certificates again, to listen and to dial."""
    return [
        member.log.read_text().count("certificates were loaded again")
        for member in cluster.members
        if member.kind == OURS
    ]


def rejected_for(member: Member, why: str) -> int:
    return sum(REJECTED in line and why in line for line in member.log.read_text().splitlines())


def read_again(cluster: Cluster, before: Sequence[int], times: int) -> None:
    def all_have() -> bool:
        pairs = zip(loaded_again(cluster), before, strict=True)
        return all(now >= then + times for now, then in pairs)

    until(all_have, "the files are read again")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kinds", [[OURS, OURS, OURS], [OURS, GO, OURS]], ids=str)
def test_members_come_to_each_other_with_new_certificates_under_load(
    made: ExitStack, tmp_path: Path, kinds: Sequence[str]
) -> None:
    """The old ones are revoked, and our members cut off who stands by one: without the new ones, which they
    are to dial with at once, no cluster would be left."""
    authority = Authority(tmp_path / "authority")
    files = authority.directory
    authority.issue("serving", ["127.0.0.1"])
    authority.issue("first", ["127.0.0.1"], file="dialling")
    cluster = made.enter_context(
        Secured(
            tmp_path,
            kinds,
            peer_client_cert_auth=True,
            peer_trusted_ca_file=authority.ca,
            peer_cert_file=files / "serving.pem",
            peer_key_file=files / "serving.key",
            peer_client_cert_file=files / "dialling.pem",
            peer_client_key_file=files / "dialling.key",
            peer_crl_file=authority.crl,
        )
    )
    with Load(cluster) as load:
        for old, new in (("first", "second"), ("second", "third")):
            before = loaded_again(cluster)
            authority.issue(new, ["127.0.0.1"], file="dialling")
            read_again(cluster, before, 2)
            authority.revoke(*({"first", old}))
            revoked = f"serial {authority.serial(old):x} revoked"
            ours = [member for member in cluster.members if member.kind == OURS]
            until(lambda revoked=revoked, ours=ours: all(rejected_for(m, revoked) for m in ours), "cut off")
            agree(cluster)
    assert load.report.writes > 50
    assert load.report.longest_pause < 5, load.report
    assert rejected_for(cluster.members[0], "remote error") == 0


@pytest.mark.timeout(900)
def test_members_change_over_to_another_authority_under_load(made: ExitStack, tmp_path: Path) -> None:
    """Both are trusted for a while. Real etcd would have to be restarted."""
    old, new = Authority(tmp_path / "old", "old"), Authority(tmp_path / "new", "new")
    trusted, shown, key = (tmp_path / name for name in ("trusted.pem", "member.pem", "member.key"))

    def show(authority: Authority) -> None:
        for path, made_of in zip((shown, key), authority.issue("member", ["127.0.0.1"]), strict=True):
            path.write_bytes(made_of.read_bytes())

    trusted.write_bytes(old.ca.read_bytes())
    show(old)
    cluster = made.enter_context(
        Secured(
            tmp_path,
            [OURS] * 3,
            peer_client_cert_auth=True,
            peer_trusted_ca_file=trusted,
            peer_cert_file=shown,
            peer_key_file=key,
        )
    )
    with Load(cluster) as load:
        for step in (
            lambda: trusted.write_bytes(old.ca.read_bytes() + new.ca.read_bytes()),
            lambda: show(new),
            lambda: trusted.write_bytes(new.ca.read_bytes()),
        ):
            before = loaded_again(cluster)
            step()
            read_again(cluster, before, 2)
            agree(cluster)
    assert load.report.writes > 50
    # Who begins now knows the new authority alone, and so do the others.
    follower = cluster.follower()
    follower.stop()
    cluster.restart(follower)
    agree(cluster)
