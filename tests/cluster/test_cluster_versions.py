"""Which version a cluster and its storage should have."""

from __future__ import annotations

import pytest

from pyetcd.cluster.versions import (
    LOWEST,
    SERVER,
    Downgrade,
    InvalidTarget,
    UnknownStorage,
    Version,
    check_downgrade,
    check_storage_version,
    decide_cluster_version,
    decide_storage_version,
    is_downgraded,
    parse_target,
)
from pyetcd.proto import errors
from pyetcd.version import SERVER_VERSION

V36, V37 = Version(3, 6), Version(3, 7)


def test_the_server_has_the_version_it_says() -> None:
    assert str(SERVER) == SERVER_VERSION


def test_versions_compare_as_semantic_versions() -> None:
    texts = ["3.6.11", "3.7.0-alpha.2", "3.7.0-alpha.10", "3.7.0-rc.0", "3.7.0", "3.7.1", "3.10.0", "4.0.0"]
    versions = [Version.parse(text) for text in texts]
    mixed = [versions[i] for i in (3, 7, 0, 5, 2, 6, 4, 1)]
    assert sorted(mixed) == versions
    assert [str(version) for version in versions] == texts
    assert Version.parse("3.7.1+git") == Version(3, 7, 1)


@pytest.mark.parametrize("text", ["", "3", "3.7", "3.7.x", "v3.7.0", "3.7.0.1", "-3.7.0", "3.7.0 "])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="dotted-tri"):
        Version.parse(text)


@pytest.mark.parametrize(
    ("cluster", "members", "downgrade", "decided"),
    [
        (None, {1: "3.7.1"}, None, V37),  # a new cluster of one: 3.7.0 at once
        (None, {1: "3.7.1", 2: None}, None, LOWEST),
        (None, {1: "3.7.1", 2: "3.6.2"}, None, V36),
        (LOWEST, {1: "3.7.1", 2: "3.7.0"}, None, V37),
        (LOWEST, {1: "3.7.1", 2: None}, None, None),
        (LOWEST, {1: "3.7.1", 2: "odd"}, None, None),
        (V37, {1: "3.7.1"}, None, None),
        (V36, {1: "3.7.1", 2: "3.6.9"}, None, None),
        (V37, {1: "3.6.0", 2: "3.7.1"}, None, None),
        (V37, {1: "3.7.1"}, "3.6.0", V36),
        (V36, {1: "3.7.1"}, "3.6.0", None),
    ],
)
def test_the_leader_proposes_the_lowest_version_of_all(
    cluster: Version | None, members: dict[int, str | None], downgrade: str | None, decided: Version | None
) -> None:
    info = Downgrade() if downgrade is None else Downgrade(True, downgrade)
    assert decide_cluster_version(cluster, members, info) == decided


@pytest.mark.parametrize(
    ("members", "target"), [({1: "3.7.1"}, "3.5.0"), ({1: "3.6.1", 2: "3.7.1"}, "3.6.0")]
)
def test_the_leader_proposes_no_downgrade_that_cannot_be(members: dict[int, str | None], target: str) -> None:
    with pytest.raises(InvalidTarget):
        decide_cluster_version(V37, members, Downgrade(True, target))


@pytest.mark.parametrize(
    ("cluster", "storage", "decided"),
    [
        (None, None, None),
        (LOWEST, None, None),
        (V37, None, V37),
        (V37, V36, V37),
        (V37, V37, None),
        (V36, V37, V36),
    ],
)
def test_the_storage_follows_the_cluster(
    cluster: Version | None, storage: Version | None, decided: Version | None
) -> None:
    assert decide_storage_version(cluster, storage) == decided


def test_a_downgrade_goes_one_minor_version_at_a_time() -> None:
    check_downgrade(V37, parse_target("3.6"), Downgrade())
    check_downgrade(V37, parse_target("3.6.4"), Downgrade())
    for target in ("3.7.0", "3.5.0", "4.6.0"):
        with pytest.raises(errors.INVALID_DOWNGRADE_TARGET_VERSION):
            check_downgrade(V37, parse_target(target), Downgrade())
    with pytest.raises(errors.DOWNGRADE_IN_PROCESS):
        check_downgrade(V37, V36, Downgrade(True, "3.6.0"))
    for text in ("", "3", "three", "3.6.x"):
        with pytest.raises(errors.WRONG_DOWNGRADE_VERSION_FORMAT):
            parse_target(text)


def test_a_downgrade_is_done_when_every_member_runs_the_target() -> None:
    assert is_downgraded({1: "3.6.1", 2: "3.6.0"}, V36)
    assert not is_downgraded({1: "3.6.1", 2: "3.7.0"}, V36)
    assert not is_downgraded({1: "3.6.1", 2: None}, V36)
    assert not is_downgraded({1: "3.6.1", 2: "odd"}, V36)


def test_a_storage_of_a_later_version_is_refused() -> None:
    for version in (Version(3, 5), V36, V37):
        check_storage_version(version)
    with pytest.raises(UnknownStorage, match=r'version "3\.8\.0" is not supported'):
        check_storage_version(Version(3, 8))
    with pytest.raises(UnknownStorage, match="changing major storage version is not supported"):
        check_storage_version(Version(4, 0))
