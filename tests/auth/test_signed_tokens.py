"""Signed tokens: every method, what is refused, and options that cannot be used."""

from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pyetcd.auth.signed_tokens import SignedTokens, signed_tokens
from pyetcd.auth.signing import KEY_MISMATCH, MISSING_KEY
from pyetcd.auth.tokens import BadTokenOptions
from pyetcd.proto.errors import EtcdError

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS: dict[str, object] = {
    **{f"{kind}{size}": RSA for kind in ("RS", "PS") for size in (256, 384, 512)},
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.5

    def __call__(self) -> float:
        return self.now


def private(key: object) -> bytes:
    encoded: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded


def public(key: object) -> bytes:
    encoded: bytes = key.public_key().public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


def made(files: dict[str, bytes], clock: Clock, **options: str) -> SignedTokens:
    def read(name: str) -> bytes:
        if name not in files:
            raise FileNotFoundError(name)
        return files[name]

    return signed_tokens({name.replace("_", "-"): value for name, value in options.items()}, read, clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("method", KEYS)
def test_a_token_signed_by_one_member_is_verified_by_another(method: str, clock: Clock) -> None:
    files = {"priv": private(KEYS[method]), "pub": public(KEYS[method])}
    signing = made(files, clock, sign_method=method, priv_key="priv", pub_key="pub")
    verifying = made(files, clock, sign_method=method, pub_key="pub")
    token = signing.assign("alice", 7, "", 1, True)
    for tokens in (signing, verifying, signing):
        caller = tokens.caller(token, 9)
        assert caller is not None
        assert (caller.name, caller.revision) == ("alice", 7)
    with pytest.raises(EtcdError, match="token signing attempted with verify-only key"):
        verifying.assign("alice", 7, "", 1, True)
    head, body, signature = token.split(".")
    spoiled = body[:-2] + ("A" if body[-2] != "A" else "B") + body[-1]
    assert verifying.caller(f"{head}.{spoiled}.{signature}", 9) is None


@pytest.mark.parametrize("method", ["HS256", "HS384", "HS512"])
def test_a_shared_secret_signs_and_verifies(method: str, clock: Clock) -> None:
    tokens = made({"priv": b"k" * 64}, clock, sign_method=method, priv_key="priv")
    caller = tokens.caller(tokens.assign("bob", 3, "", 1, True), 3)
    assert caller is not None
    assert caller.name == "bob"


def test_a_member_that_nobody_asked_signs_nothing(clock: Clock) -> None:
    files = {"priv": private(KEYS["RS256"])}
    assert made(files, clock, sign_method="RS256", priv_key="priv").assign("a", 1, "", 1, False) == ""


def test_a_token_ends_at_its_time_even_if_it_was_verified_before(clock: Clock) -> None:
    files = {"priv": private(KEYS["ES256"])}
    tokens = made(files, clock, sign_method="ES256", priv_key="priv", ttl="5s")
    token = tokens.assign("a", 1, "", 1, True)
    clock.now += 4.4
    assert tokens.caller(token, 1) is not None
    clock.now += 0.1  # it counts in whole seconds: from half past to the full one
    assert tokens.caller(token, 1) is None


@pytest.mark.parametrize("method", [*KEYS, "HS256"])
def test_another_library_reads_our_tokens_and_we_read_its(method: str, clock: Clock) -> None:
    secret = b"s" * 64
    key, its = (secret, secret) if method == "HS256" else (private(KEYS[method]), public(KEYS[method]))
    tokens = made({"priv": key}, clock, sign_method=method, priv_key="priv")
    token = tokens.assign("\u00fc", 2**40, "", 1, True)
    ours = jwt.decode(token, its, [method], options={"verify_exp": False})
    assert ours == {"username": "\u00fc", "revision": 2**40, "exp": int(clock.now + 300)}
    caller = tokens.caller(jwt.encode({"username": "\u00fc", "revision": 2**40}, key, method), 1)
    assert caller is not None
    assert (caller.name, caller.revision) == ("\u00fc", 2**40)


def test_what_is_no_token_of_ours_stands_for_nobody(clock: Clock) -> None:
    files = {"priv": private(RSA), "other": private(KEYS["ES256"])}
    tokens = made(files, clock, sign_method="RS256", priv_key="priv")
    for claims in (
        {"revision": 1},
        {"username": 1, "revision": 1},
        {"username": "a"},
        {"username": "a", "revision": "1"},
    ):
        assert tokens.caller(jwt.encode(claims, RSA, "RS256"), 1) is None
    good = {"username": "a", "revision": 1}
    assert tokens.caller(jwt.encode(good, RSA, "RS256"), 1) is not None
    assert tokens.caller(jwt.encode(good, RSA, "RS512"), 1) is None, "another method"
    assert tokens.caller(jwt.encode(good, RSA, "PS256"), 1) is None
    assert tokens.caller(jwt.encode(good, public(RSA)[:20], "HS256"), 1) is None
    assert tokens.caller(jwt.encode(good, "", "none"), 1) is None
    for text in ("", ".", "..", "a.b.c", "é", "abcdefghijklmnop.12"):
        assert tokens.caller(text, 1) is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "auth: invalid auth options"),
        ({"sign_method": "RS255"}, "auth: invalid auth options"),
        ({"sign_method": "RS256", "priv_key": "none"}, "auth: invalid auth options"),
        ({"sign_method": "RS256", "priv_key": "rsa", "ttl": "5"}, "auth: invalid auth options"),
        ({"sign_method": "RS256"}, MISSING_KEY),
        ({"sign_method": "HS256"}, MISSING_KEY),
        ({"sign_method": "RS256", "priv_key": "rsa", "pub_key": "other"}, KEY_MISMATCH),
        ({"sign_method": "RS256", "priv_key": "ec"}, "key is not a valid"),
        ({"sign_method": "ES256", "pub_key": "other"}, "key is not a valid"),
        ({"sign_method": "EdDSA", "priv_key": "junk"}, "invalid key"),
    ],
)
def test_options_that_cannot_be_used(options: dict[str, str], why: str, clock: Clock) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    files = {"rsa": private(RSA), "other": public(other), "ec": private(KEYS["ES256"]), "junk": b"junk"}
    with pytest.raises(BadTokenOptions, match=why):
        made(files, clock, **options)
