"""Members find each other through a registry, or by DNS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

import pytest

from pyetcd.cluster import dns
from pyetcd.cluster.dns import LookupFailed, Record
from pyetcd.cluster.urls import parse_urls
from pyetcd.member import dns_members
from pyetcd.member.discovery import Compacted, Discovery, DiscoveryFailed, Registered, RegistryError

SIZE = "/_etcd/registry/token/_config/size"
MEMBERS = "/_etcd/registry/token/members"


class FakeRegistry:
    """Keys in memory. `failures`: so many calls fail first. `on_watch`: called when somebody watches."""

    def __init__(self, size: str | None = "3") -> None:
        self.keys: dict[str, Registered] = {}
        self.revision = 1
        self.failures = 0
        self.compactions = 0
        self.on_watch: Callable[[], None] = lambda: None
        if size is not None:
            self.set(SIZE, size)

    def set(self, key: str, value: str) -> Registered:
        self.revision += 1
        old = self.keys.get(key)
        self.keys[key] = Registered(key, value, old.create_revision if old else self.revision)
        return self.keys[key]

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise RegistryError("context deadline exceeded")

    async def get(self, key: str) -> str | None:
        self._fail()
        found = self.keys.get(key)
        return found.value if found else None

    async def get_prefix(self, prefix: str) -> tuple[Sequence[Registered], int]:
        self._fail()
        return [found for key, found in sorted(self.keys.items()) if key.startswith(prefix)], self.revision

    async def put(self, key: str, value: str) -> None:
        self._fail()
        self.set(key, value)

    async def watch(self, prefix: str, revision: int) -> AsyncGenerator[Sequence[Registered], None]:
        seen = set(self.keys)
        if self.compactions:
            self.compactions -= 1
            self.on_watch()
            raise Compacted("etcdserver: mvcc: required revision has been compacted")
        while True:
            self.on_watch()
            yield [found for key, found in self.keys.items() if key not in seen and key.startswith(prefix)]
            seen = set(self.keys)
            await asyncio.sleep(0)


def join(registry: FakeRegistry, id: int = 1, own: str = "a=http://a:1") -> tuple[str, list[float]]:
    """The cluster, and the pauses made on the way to it."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def run() -> str:
        discovery = Discovery(registry, "token", id, "http://e:1", sleep)
        async with asyncio.timeout(10):
            return await discovery.join(own)

    return asyncio.run(run()), pauses


def test_a_member_registers_and_waits_for_the_others() -> None:
    registry = FakeRegistry()
    registry.set(f"{MEMBERS}/2", "b=http://b:1,b=http://b:2")
    later = iter([f"{MEMBERS}/{3}", f"{MEMBERS}/4"])

    def another() -> None:
        key = next(later, None)
        if key is not None:
            registry.set(key, f" {key[-1]}=http://{key[-1]}:1\n")

    registry.on_watch = another
    cluster, pauses = join(registry)
    assert cluster == "b=http://b:1,b=http://b:2,a=http://a:1,3=http://3:1"
    assert pauses == []
    assert registry.keys[f"{MEMBERS}/1"].value == "a=http://a:1"


def test_a_member_alone_waits_for_nobody() -> None:
    assert join(FakeRegistry("1"))[0] == "a=http://a:1"


def test_a_member_that_registered_before_comes_back() -> None:
    registry = FakeRegistry("2")
    registry.set(f"{MEMBERS}/1", "a=http://a:1")
    registry.set(f"{MEMBERS}/2", "b=http://b:1")
    assert join(registry)[0] == "a=http://a:1,b=http://b:1"


def test_who_comes_too_late_is_refused() -> None:
    registry = FakeRegistry("2")
    for id in (2, 3):
        registry.set(f"{MEMBERS}/{id}", f"{id}=http://{id}:1")
    with pytest.raises(DiscoveryFailed) as caught:
        join(registry)
    assert str(caught.value) == "failed to join discovery cluster (discovery: cluster is full)"
    assert f"{MEMBERS}/1" not in registry.keys


def test_of_members_that_come_at_once_the_first_ones_count() -> None:
    registry = FakeRegistry("2")
    registry.set(f"{MEMBERS}/2", "b=http://b:1")
    original = registry.put

    async def put(key: str, value: str) -> None:
        registry.set(f"{MEMBERS}/3", "c=http://c:1")  # a moment before
        await original(key, value)

    registry.put = put  # type: ignore[method-assign]
    with pytest.raises(DiscoveryFailed, match="discovery: cluster is full"):
        join(registry)


@pytest.mark.parametrize(
    ("size", "why"),
    [
        (None, "discovery: size key not found"),
        ("0", "discovery: size key is bad"),
        ("-1", "discovery: size key is bad"),
        ("", "discovery: size key is bad"),
        ("3 ", "discovery: size key is bad"),
        ("three", "discovery: size key is bad"),
        ("\u0663", "discovery: size key is bad"),
        ("9" * 5000, "discovery: size key is bad"),
    ],
)
def test_a_size_that_is_none(size: str | None, why: str) -> None:
    with pytest.raises(DiscoveryFailed) as caught:
        join(FakeRegistry(size))
    assert str(caught.value) == f"failed to join discovery cluster ({why})"


def test_what_another_registered_may_be_no_url() -> None:
    registry = FakeRegistry("2")
    registry.set(f"{MEMBERS}/2", "b=nowhere")
    with pytest.raises(DiscoveryFailed, match="discovery: invalid peer URL"):
        join(registry)
    registry = FakeRegistry("1")
    registry.set(f"{MEMBERS}/2", "no pair")  # is no member
    assert join(registry)[0] == "a=http://a:1"


def test_a_registry_that_is_away_is_asked_again_with_longer_pauses() -> None:
    registry = FakeRegistry("1")
    registry.failures = 10
    assert join(registry) == ("a=http://a:1", [2.0, 4, 8, 16, 32, 64, 128, 256, 256, 256])


def test_pauses_begin_anew_after_a_success() -> None:
    registry = FakeRegistry("1")
    original = registry.get_prefix
    registry.failures = 2

    async def get_prefix(prefix: str) -> tuple[Sequence[Registered], int]:
        found = await original(prefix)
        registry.failures = 1 if f"{MEMBERS}/1" not in registry.keys else 0
        return found

    registry.get_prefix = get_prefix  # type: ignore[method-assign]
    assert join(registry)[1] == [2.0, 4.0, 2.0]


def test_what_is_compacted_before_it_was_seen_is_read_again() -> None:
    registry = FakeRegistry("2")
    registry.compactions = 1
    registry.on_watch = lambda: (registry.set(f"{MEMBERS}/2", "b=http://b:1"), None)[1]
    assert join(registry)[0] == "a=http://a:1,b=http://b:1"


def test_a_token_is_a_path() -> None:
    registry = FakeRegistry(None)
    registry.set("/_etcd/registry/a/b/_config/size", "1")

    async def run() -> str:
        return await Discovery(registry, "a//b/", 0xAB, "e").join("a=http://a:1")

    assert asyncio.run(run()) == "a=http://a:1"
    assert "/_etcd/registry/a/b/members/ab" in registry.keys


# DNS


@pytest.fixture(autouse=True)
def addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    known = {"a.example.": "10.0.0.1", "b.example.": "10.0.0.2", "c.example.": "10.0.0.3"}

    def address(host: str, port: int) -> str:
        if host[0].isdigit():
            return host
        if host not in known:
            raise OSError(f"lookup {host}: no such host")
        return known[host]

    monkeypatch.setattr(dns, "address", address)
    return known


def found(
    records: dict[str, list[Record]], own: str = "http://10.0.0.2:2380", service: str = ""
) -> tuple[list[str], str]:
    def lookup(name: str) -> list[Record]:
        if name not in records:
            raise LookupFailed(f"lookup {name} on 10.0.0.9:53: no such host")
        return records[name]

    answer = dns_members.members("example", service, "own", parse_urls([own]), lookup)
    return list(answer.pairs), answer.failure


def records(*targets: str) -> list[Record]:
    return [Record(0, 0, 2380, f"{target}.example.") for target in targets]


PLAIN = "_etcd-server._tcp.example"
TLS = "_etcd-server-ssl._tcp.example"


def missing(service: str) -> str:
    name = f"{service}._tcp.example"
    return f"error querying DNS SRV records for {service} lookup {name} on 10.0.0.9:53: no such host"


def test_a_member_finds_itself_by_its_address() -> None:
    assert found({PLAIN: records("a", "b", "c")}) == (
        ["0=http://a.example:2380", "own=http://b.example:2380", "1=http://c.example:2380"],
        missing("_etcd-server-ssl"),
    )


def test_both_kinds_of_records_count() -> None:
    pairs, failure = found({PLAIN: records("a"), TLS: records("b", "c")}, "https://10.0.0.2:2380")
    assert pairs == ["own=https://b.example:2380", "0=https://c.example:2380", "0=http://a.example:2380"]
    assert failure == ""


def test_a_service_may_have_a_name() -> None:
    pairs, _ = found({"_etcd-server-blue._tcp.example": records("b")}, service="blue")
    assert pairs == ["own=http://b.example:2380"]


def test_a_domain_that_names_none() -> None:
    assert found({}) == ([], f"{missing('_etcd-server-ssl')}\n{missing('_etcd-server')}")


def test_targets_that_are_no_hosts_are_left_out() -> None:
    assert found({PLAIN: records("nowhere", "b")})[0] == ["own=http://b.example:2380"]
    assert found({PLAIN: records("nowhere")}) == (
        [],
        f"{missing('_etcd-server-ssl')}\nerror querying DNS SRV records for _etcd-server "
        "lookup nowhere.example.: no such host",
    )


def test_another_scheme_than_advertised_is_told() -> None:
    assert found({TLS: records("b")}) == (
        [],
        "error querying DNS SRV records for _etcd-server-ssl bootstrap at https://b.example:2380 from DNS "
        "for etcd-server-ssl has scheme mismatch with expected peer http://10.0.0.2:2380\n"
        + missing("_etcd-server"),
    )


def test_own_urls_that_are_no_hosts() -> None:
    pairs, failure = found({PLAIN: records("b")}, "http://unknown.example:2380")
    assert (pairs, failure) == ([], "\n".join(["lookup unknown.example: no such host"] * 2))
