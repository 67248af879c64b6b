"""The questions that are put to name servers: SRV records (RFC 2782) and addresses.

Python's library asks for addresses only, so the question for SRV records is put here: one datagram to each
name server of /etc/resolv.conf in turn, over TCP where the answer did not fit. This is the one place with
sockets of its own beside the wire, which speaks no DNS. Everything blocks: a server asks through an executor.
"""

from __future__ import annotations

import random
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

RESOLV_CONF: Final = "/etc/resolv.conf"
PORT: Final = 53
TIMEOUT_SECONDS: Final = 5.0
ATTEMPTS: Final = 2
SRV: Final = 33
IN: Final = 1
NO_SUCH_NAME: Final = 3
NO_SUCH_HOST: Final = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

_header = struct.Struct("!HHHHHH")
_RECURSION_DESIRED = 0x0100
_TRUNCATED = 0x0200


class LookupFailed(Exception):
    """The text is Go's resolver's."""


class Record:
    """One SRV record."""

    __slots__ = ("port", "priority", "target", "weight")

    def __init__(self, priority: int, weight: int, port: int, target: str) -> None:
        self.priority = priority
        self.weight = weight
        self.port = port
        self.target = target


def name_servers() -> list[tuple[str, int]]:
    """Those of the system; this machine when it names none."""
    found: list[tuple[str, int]] = []
    try:
        with open(RESOLV_CONF, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                words = line.split()
                if len(words) > 1 and words[0] == "nameserver":
                    found.append((words[1], PORT))
    except OSError:
        pass
    return found or [("127.0.0.1", PORT)]


def lookup(name: str, servers: list[tuple[str, int]]) -> list[Record]:
    """The SRV records of a name: by priority, among equals at random by weight."""
    failure = LookupFailed(f"lookup {name}: no such host")
    for server in servers * ATTEMPTS:
        where = f"lookup {name} on {server[0]}:{server[1]}"
        try:
            records = _ask(name, server)
        except TimeoutError:
            failure = LookupFailed(f"{where}: i/o timeout")
        except OSError as error:
            failure = LookupFailed(f"{where}: {(error.strerror or str(error)).lower()}")
        except (ValueError, IndexError, struct.error):
            failure = LookupFailed(f"{where}: cannot unmarshal DNS message")
        else:
            if not records:
                raise LookupFailed(f"{where}: no such host")
            return sorted(records, key=lambda record: (record.priority, -record.weight * random.random()))
    raise failure


def _ask(name: str, server: tuple[str, int]) -> list[Record]:
    number = random.getrandbits(16)
    question = _header.pack(number, _RECURSION_DESIRED, 1, 0, 0, 0)
    for label in name.rstrip(".").split("."):
        part = label.encode("idna") if label else b""
        if not 0 < len(part) < 64:
            raise ValueError("a label of a domain name has 1 to 63 bytes")
        question += bytes((len(part),)) + part
    question += b"\0" + struct.pack("!HH", SRV, IN)
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asker:
        asker.settimeout(TIMEOUT_SECONDS)
        asker.connect(server)
        asker.send(question)
        answer = asker.recv(65535)
        while answer[:2] != question[:2]:
            answer = asker.recv(65535)
    if _header.unpack_from(answer)[1] & _TRUNCATED:
        answer = _ask_by_tcp(question, server)
    return _records(answer)


def _ask_by_tcp(question: bytes, server: tuple[str, int]) -> bytes:
    with socket.create_connection(server, TIMEOUT_SECONDS) as asker, asker.makefile("rb") as answers:
        asker.sendall(struct.pack("!H", len(question)) + question)
        (length,) = struct.unpack("!H", answers.read(2))
        return answers.read(length)


def _records(answer: bytes) -> list[Record]:
    """ValueError, IndexError or struct.error when the bytes are no answer."""
    _, flags, questions, answers, _, _ = _header.unpack_from(answer)
    if flags & 0xF not in (0, NO_SUCH_NAME):
        raise OSError(None, "server misbehaving")
    at = _header.size
    for _ in range(questions):
        at = _name(answer, at)[1] + 4
    found: list[Record] = []
    for _ in range(answers):
        at = _name(answer, at)[1]
        kind, _, _, length = struct.unpack_from("!HHIH", answer, at)
        at += 10
        if kind == SRV:
            priority, weight, port = struct.unpack_from("!HHH", answer, at)
            found.append(Record(priority, weight, port, _name(answer, at + 6)[0]))
        at += length
    return found


def _name(message: bytes, at: int) -> tuple[str, int]:
    """The domain name at `at`, with a dot at its end, and where it ends. Pointers lead backwards only."""
    labels: list[str] = []
    end = 0
    limit = at
    while message[at]:
        length = message[at]
        if length >= 0xC0:
            end = end or at + 2
            at = (length & 0x3F) << 8 | message[at + 1]
            if at >= limit:
                raise ValueError("a pointer leads forward")
            limit = at
            continue
        labels.append(message[at + 1 : at + 1 + length].decode("ascii"))
        at += 1 + length
    return ".".join([*labels, ""]), end or at + 1


def address(host: str, port: int) -> str:
    """The first address of a host, or the host where it is one. OSError, with Go's text."""
    try:
        return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or ""
        unknown = not reason or error.args[0] in NO_SUCH_HOST
        raise OSError(f"lookup {host}: {'no such host' if unknown else reason}") from None
