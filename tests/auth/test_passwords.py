"""Passwords: whoever is asked for, one hash is compared, at the cost that root's has."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from pyetcd.auth import passwords
from pyetcd.auth.passwords import DECOY_COST_MAX, Passwords, cost_of, hashed

CHEAP, DEARER = 4, 6


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The costs of the hashes that were compared."""
    costs: list[int] = []
    real = passwords.matches

    def matches(password: bytes, stored: bytes) -> bool:
        costs.append(cost_of(stored) or 0)
        return real(password, stored)

    monkeypatch.setattr(passwords, "matches", matches)
    return costs


def check(password: str, stored: bytes | None, example: bytes | None, cost: int = CHEAP) -> bool:
    async def whole() -> bool:
        with ThreadPoolExecutor(1) as executor:
            return await Passwords(executor, 1, cost).check(password, stored, example)

    return asyncio.run(whole())


def test_a_password_is_right_or_not(compared: list[int]) -> None:
    stored = hashed(b"secret", CHEAP)
    assert check("secret", stored, stored)
    assert not check("Secret", stored, stored)
    assert not check("secret", b"no hash", stored)
    assert compared == [CHEAP, CHEAP, 0]


def test_nobodys_password_is_compared_as_roots_would_be(compared: list[int]) -> None:
    """Also when hashes are made at another cost by now, and though it were the decoy's own password."""
    root = hashed(b"secret", DEARER)
    assert not check("", None, root)
    assert not check("secret", None, root)
    assert not check("secret", None, None)
    assert not check("secret", None, b"no hash")
    assert compared == [DEARER, DEARER, CHEAP, CHEAP]


def test_a_decoy_is_never_so_dear_that_all_would_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(passwords, "hashed", lambda password, cost: made.append(cost) or hashed(b"", CHEAP))
    check("secret", None, b"$2a$31$" + b"." * 53)
    assert made == [DECOY_COST_MAX]


@pytest.mark.parametrize(
    ("stored", "cost"),
    [(b"$2a$10$abc", 10), (b"$2b$04$abc", 4), (b"$2a$99$abc", None), (b"$2a$x$abc", None), (b"", None)],
)
def test_a_hash_tells_its_cost(stored: bytes, cost: int | None) -> None:
    assert cost_of(stored) == cost
