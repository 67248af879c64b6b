"""A world in which names mean what a test wants: run in a network and with mounts of its own, where it is the
name server (`test_names_in_certificates` starts it). Prints what it found as JSON.

    named_world.py DIRECTORY EXECUTABLES SCENE [KIND …]

EXECUTABLES: JSON, path by kind of member.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import programs

programs.executable = lambda kind: Path(json.loads(sys.argv[2])[kind])  # before anybody takes it from there
sys.path.append(str(Path(__file__).parents[1] / "interop"))

from authority import Authority  # noqa: E402
from cluster import Cluster, until  # noqa: E402
from members import Member  # noqa: E402
from tls_servers import context, knock  # noqa: E402

A, PTR, AAAA, SRV = 1, 12, 28, 33
NO_SUCH_NAME = 3
REJECTED = "rejected connection on peer endpoint"
DOMAIN = "example.test"
SECONDS = 20.0


class Names(threading.Thread):
    """The name server at 127.0.0.1. `records`: by name and type, the data of the answers."""

    def __init__(self, records: Mapping[tuple[str, int], list[bytes]]) -> None:
        super().__init__(daemon=True)
        self._records = records
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        self.start()

    def run(self) -> None:
        while True:
            question, client = self._socket.recvfrom(4096)
            self._socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        end = question.index(b"\0", 12) + 5
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode().lower())
            at += 1 + question[at]
        name, kind = ".".join(labels), struct.unpack_from("!H", question, at + 1)[0]
        found = self._records.get((name, kind), [])
        known = any(name == each for each, _ in self._records)
        flags = 0x8580 | (0 if known else NO_SUCH_NAME)
        head = question[:2] + struct.pack("!HHHHH", flags, 1, len(found), 0, 0)
        answers = [b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 60, len(data)) + data for data in found]
        return head + question[12:end] + b"".join(answers)


def encoded(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"


def address(text: str) -> bytes:
    return socket.inet_aton(text)


class Named(Cluster):
    """Members called m1.example.test, …, of whom only DNS tells. `certificates`: by member, whose it has
    where it is not `name`. The authority is one of the system's, unless it is `told` by its flag."""

    def __init__(
        self,
        directory: Path,
        kinds: list[str],
        authority: Authority,
        name: str,
        certificates: Mapping[str, str],
        *,
        told: bool,
    ) -> None:
        self._authority = authority
        self._name = name
        self._certificates = certificates
        self._told = told
        os.environ["SSL_CERT_FILE"] = "/dev/null" if told else str(authority.ca)
        super().__init__(directory, kinds, discovery_srv=DOMAIN, peer_client_cert_auth=True)
        records: dict[tuple[str, int], list[bytes]] = {(DOMAIN, A): [address("127.0.0.1")]}
        for member in self.members:
            host = f"{member.name}.{DOMAIN}"
            records[host, A] = [address("127.0.0.1")]
            place = struct.pack("!HHH", 0, 0, member.peer_port) + encoded(host)
            records.setdefault((f"_etcd-server-ssl._tcp.{DOMAIN}", SRV), []).append(place)
        records["other.test", A] = [address("127.0.0.1")]
        Names(records)

    def _make(self, kind: str) -> Member:
        member = super()._make(kind)
        member.listen_peer_url = f"https://127.0.0.1:{member.peer_port}"
        member.peer_url = f"https://{member.name}.{DOMAIN}:{member.peer_port}"
        files = self._authority.directory
        name = self._certificates.get(member.name, self._name)
        member.flags |= {
            "peer-cert-file": str(files / f"{name}.pem"),
            "peer-key-file": str(files / f"{name}.key"),
        }
        if self._told:
            member.flags["peer-trusted-ca-file"] = str(self._authority.ca)
        return member

    def _initial(self) -> str:
        return ""


def lines(member: Member, text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in member.log.read_text().splitlines() if text in line]


def agreed(cluster: Cluster) -> object:
    for member in cluster.members:
        member.client.put(member.name.encode(), b"v")
    cluster.wait_revision(max(member.client.status().header.revision for member in cluster.members))
    cluster.same_hashes()
    names = {member.name for member in cluster.members[0].client.members().members}
    return [sorted(names), [member.output.has(REJECTED) for member in cluster.members]]


def domain_alone(directory: Path, kinds: list[str]) -> object:
    """Certificates are made out to the domain, and to no host."""
    authority = Authority(directory / "authority")
    authority.issue(DOMAIN, [DOMAIN])
    with Named(directory, kinds, authority, DOMAIN, {}, told=False) as cluster:
        return agreed(cluster)


def hosts_alone(directory: Path, kinds: list[str]) -> object:
    """The authority is given by its flag: then the names of hosts count, as without DNS."""
    authority = Authority(directory / "authority")
    authority.issue("hosts", [f"m{number + 1}.{DOMAIN}" for number in range(len(kinds))])
    with Named(directory, kinds, authority, "hosts", {}, told=True) as cluster:
        return agreed(cluster)


def another_name(directory: Path, kinds: list[str]) -> object:
    """The last member's certificate bears its host's name, and not the domain."""
    authority = Authority(directory / "authority")
    authority.issue(DOMAIN, [DOMAIN])
    authority.issue("host", [f"m3.{DOMAIN}"])
    cluster = Named(directory, kinds, authority, DOMAIN, {"m3": "host"}, told=False)
    try:
        for member in cluster.members:
            member.begin("", "new")
        *dialling, named = cluster.members
        for member in dialling:
            member.wait_ready()
        why = "certificate is valid for m3.example.test, not example.test"
        until(lambda: all(lines(member, why) for member in dialling), "they see another name", SECONDS)
        until(lambda: bool(lines(named, REJECTED)), "it hears of it", SECONDS)
        heard = {str(line["error"]) for line in lines(named, REJECTED)}
        errors = [str(line["error"]) for member in dialling for line in lines(member, why)]
        return [sorted({error[error.index("tls: ") :].rstrip(")") for error in errors}), sorted(heard)]
    finally:
        cluster.close()


# Names in certificates of those who come, and whether they are where they come from
COMERS = {
    "here": ["here.test"],
    "one of two": ["away.test", "here.test"],
    "away": ["away.test"],
    "unknown": ["unknown.test"],
    "wild": ["*.wild.test"],
    "wild elsewhere": ["*.tame.test"],
    "by reverse lookup": ["back.wild.test"],
    "address or name": ["192.0.2.7", "here.test"],
    "neither": ["192.0.2.7", "away.test"],
    "address": ["127.0.0.1", "away.test"],
    "no name": [],
}


def who_comes(directory: Path, kinds: list[str]) -> object:
    """By kind of member: who is let in by its peers' port, and why others are not."""
    authority = Authority(directory / "authority")
    authority.issue("server", ["127.0.0.1"])
    for name, hosts in COMERS.items():
        authority.issue(name, hosts)
    Names(
        {
            ("here.test", A): [address("192.0.2.1"), address("127.0.0.1")],
            ("away.test", A): [address("192.0.2.7")],
            ("1.0.0.127.in-addr.arpa", PTR): [encoded("back.wild.test")],
        }
    )
    flags = {
        "peer_cert_file": authority.directory / "server.pem",
        "peer_key_file": authority.directory / "server.key",
        "peer_trusted_ca_file": authority.ca,
        "peer_client_cert_auth": True,
    }
    told = []
    for kind in kinds:
        cluster = Cluster(directory / kind, [kind], **flags)
        member = cluster.members[0]
        (directory / kind).mkdir()
        member.peer_url = member.listen_peer_url = f"https://127.0.0.1:{member.peer_port}"
        with cluster:
            seen: dict[str, object] = {}
            count = 0
            for name in COMERS:
                if knock(member.peer_port, context(authority, name)):
                    seen[name] = ""
                    continue
                count += 1
                wait(lambda member=member, count=count: len(lines(member, REJECTED)) == count)
                line = lines(member, REJECTED)[-1]
                error = str(line["error"]).replace(" on 127.0.0.1:53", "")  # whom Go has asked
                seen[name] = [error, line["dns-names"], line["ip-addresses"]]
            told.append(seen)
    return told


def wait(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


if __name__ == "__main__":
    scenes = {
        "domain": domain_alone,
        "hosts": hosts_alone,
        "another name": another_name,
        "who comes": who_comes,
    }
    print(json.dumps(scenes[sys.argv[3]](Path(sys.argv[1]), sys.argv[4:])))
