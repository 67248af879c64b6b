"""The feature gate SetMemberLocalAddr: which address of those advertised a member dials from."""

from __future__ import annotations

import pytest

from pyetcd.cli.etcd.local_address import local_address
from pyetcd.cluster.urls import parse_url
from pyetcd.member.config import ServerConfig
from pyetcd.member.features import FeatureGates


def config(gate: bool, *urls: str) -> ServerConfig:
    gates = FeatureGates().with_text(f"SetMemberLocalAddr={str(gate).lower()}")
    return ServerConfig(initial_advertise_peer_urls=tuple(parse_url(url) for url in urls), features=gates)


@pytest.mark.parametrize(
    ("urls", "address"),
    [
        (("http://192.0.2.7:2380",), "192.0.2.7"),
        (("http://localhost:2380", "http://127.0.0.1:2380", "http://192.0.2.7:2380"), "192.0.2.7"),
        (("http://[2001:db8::7]:2380", "http://192.0.2.7:2380"), "2001:db8::7"),
        (("http://[::1]:2380", "http://0.0.0.0:2380", "http://[::]:2380"), None),
        (("http://member.example:2380",), None),
    ],
)
def test_it_is_the_first_that_others_could_reach(urls: tuple[str, ...], address: str | None) -> None:
    assert local_address(config(True, *urls)) == address


def test_without_the_gate_the_system_chooses() -> None:
    assert local_address(config(False, "http://192.0.2.7:2380")) is None
