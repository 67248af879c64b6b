"""Signed tokens beside real etcd: either takes the other's, both refuse the same ones for the same reasons,
and `--auth-token` is taken or refused in the same words."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jwt
import pytest
from auth_twins import AuthTwins
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from servers import ETCD, free_port

from pyetcd.proto.auth_pb2 import Permission
from pyetcd.proto.rpc_pb2 import (
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthRoleGrantPermissionRequest,
    AuthUserAddRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    MemberListRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
)

Start = Callable[..., AuthTwins]
METHODS = ("RS256", "RS512", "PS256", "PS384", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS512")
SECRET = b"a secret of some length, which is longer than 64 bytes, as HS512 would like it"
END_SECONDS = 20


def keys() -> dict[str, object]:
    """By the beginnings of the names of methods."""
    return {
        "RS": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
        "Ed": ed25519.Ed25519PrivateKey.generate(),
    }


def pem(key: object) -> tuple[bytes, bytes]:
    """Private and public."""
    private: bytes = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public: bytes = key.public_key().public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public


class Files:
    """Keys for each method, and the options that name them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys = {name: pem(key) for name, key in keys().items()}
        self.rsa, self.rsa_public = self.keys["RS"]

    def private(self, method: str) -> bytes:
        if method.startswith("HS"):
            return SECRET
        name = "RS" if method.startswith("PS") else method[:2] if method[:2] in ("RS", "Ed") else method
        return self.keys[name][0]

    def public(self, method: str) -> bytes:
        private = self.private(method)
        return next(public for each, public in self.keys.values() if each == private)

    def write(self, name: str, data: bytes) -> Path:
        path = self.directory / name
        path.write_bytes(data)
        return path

    def signing(self, method: str, more: str = "") -> str:
        path = self.write(f"{method}.key", self.private(method))
        return f"jwt,sign-method={method},priv-key={path}{more}"

    def verifying(self, method: str) -> str:
        return f"jwt,sign-method={method},pub-key={self.write(f'{method}.pub', self.public(method))}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def start(mainetcd: Path, tmp_path: Path) -> Iterator[Start]:
    made: list[AuthTwins] = []

    def begin(auth_token: str, **flags: object) -> AuthTwins:
        made.append(AuthTwins(mainetcd, tmp_path, bcrypt_cost=4, auth_token=auth_token, **flags))
        made[0].title = "signed tokens"
        return made[0]

    yield begin
    for each in made:
        each.close()


AUTH_REVISION = 8  # after `lock`


def lock(twins: AuthTwins) -> None:
    """Authentication is on, with a root and a user `low` who may write the key `own`."""
    permission = Permission(permType=Permission.READWRITE, key=b"own")
    for request in (
        AuthUserAddRequest(name="root", password="root"),
        AuthRoleAddRequest(name="root"),
        AuthUserGrantRoleRequest(user="root", role="root"),
        AuthUserAddRequest(name="low", password="low"),
        AuthRoleAddRequest(name="owner"),
        AuthRoleGrantPermissionRequest(name="owner", perm=permission),
        AuthUserGrantRoleRequest(user="low", role="owner"),
        AuthEnableRequest(),
    ):
        assert twins.ask_as(None, request) is not None


def same_reasons(twins: AuthTwins) -> None:
    """Both say why tokens were wrong, in the order in which they came. Ends them, so that all is written."""
    for server in (twins.ours, twins.theirs):
        server.stop()
    assert reasons(twins.ours.printed.text()) == reasons(twins.theirs.printed.text()) != []


def reasons(text: str) -> list[str]:
    """Parsers differ in their details of bad JSON."""
    found = []
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        told = json.loads(line)
        if "jwt token" in told["msg"].lower():
            why = told.get("error", "")
            cut = why.find("could not JSON decode")
            found.append(f"{told['msg']}: {why if cut < 0 else why[: why.find(':', cut)]}")
    return found


@pytest.mark.parametrize("method", METHODS)
def test_either_takes_the_tokens_of_the_other_and_its_own(files: Files, start: Start, method: str) -> None:
    twins = start(files.signing(method))
    lock(twins)
    twins.authenticate("root", "root")
    twins.authenticate("low", "low")
    for name in ("root", "low"):
        tokens = twins.tokens[name]
        claims = [
            jwt.decode(token, options={"verify_signature": False}, algorithms=[method]) for token in tokens
        ]
        ends = [claim.pop("exp") for claim in claims]
        assert claims[0] == claims[1] == {"username": name, "revision": AUTH_REVISION}
        assert abs(ends[0] - ends[1]) <= 1
        assert abs(ends[0] - time.time() - 300) < 30
        for token in tokens:
            told = twins.ask_as(token, PutRequest(key=b"own", value=b"v"))
            assert told is not None
            assert (twins.ask_as(token, PutRequest(key=b"other")) is None) == (name == "low")
    assert twins.ask_as(twins.tokens["root"][0][:-8] + "AAAAAAAA", MemberListRequest()) is None
    endless = jwt.encode({"username": "low", "revision": AUTH_REVISION}, files.private(method), method)
    assert twins.ask_as(endless, RangeRequest(key=b"own")) is not None
    same_reasons(twins)


def odd_tokens(files: Files) -> Mapping[str, str]:
    """Each with the key that both have, in a way of its own."""
    rsa_key = serialization.load_pem_private_key(files.rsa, None)
    assert isinstance(rsa_key, rsa.RSAPrivateKey)

    def signed(payload: bytes, header: bytes = b'{"alg":"PS256"}') -> str:
        text = b".".join(jwt.utils.base64url_encode(part) for part in (header, payload))
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
        return (
            text + b"." + jwt.utils.base64url_encode(rsa_key.sign(text, pss, hashes.SHA256()))
        ).decode()

    def with_claims(**claims: object) -> str:
        return signed(json.dumps({"username": "low", "revision": AUTH_REVISION, **claims}).encode())

    now = time.time()
    text = b".".join(jwt.utils.base64url_encode(part) for part in (b'{"alg":"PS256"}', b'{"username":"low"}'))
    longest = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
    salted = (
        text + b"." + jwt.utils.base64url_encode(rsa_key.sign(text, longest, hashes.SHA256()))
    ).decode()
    good = with_claims()
    head, body, signature = good.split(".")
    return {
        "good": good,
        "another method": jwt.encode({"username": "low", "revision": 1}, files.rsa, "RS256"),
        "none": jwt.encode({"username": "low", "revision": 1}, "", "none"),
        "the public key as a secret": jwt.PyJWS().encode(
            b'{"username":"low"}', b"s" * 32, "HS256", headers={"alg": "HS256"}
        ),
        "a method nobody knows": signed(b"{}", b'{"alg":"XS256"}'),
        "no method": signed(b"{}", b"{}"),
        "a method that is a number": signed(b"{}", b'{"alg":256}'),
        "a header that is null": signed(b"{}", b"null"),
        "a header that is a list": signed(b"{}", b"[]"),
        "more in the header": signed(
            b'{"username":"low","revision":8}',
            b'{"alg":"PS256","typ":7,"kid":8,"crit":["x"],"b64":false,"zip":"DEF"}',
        ),
        "expired": with_claims(exp=now - 10),
        "an end of 0": with_claims(exp=0),
        "an end below 0": with_claims(exp=-5),
        "an end in words": with_claims(exp=str(now + 1000)),
        "an end that is null": with_claims(exp=None),
        "an end that is true": with_claims(exp=True),
        "an end in parts of seconds": with_claims(exp=now + 1000.75),
        "an end far away": with_claims(exp=1e15),
        "not yet": with_claims(nbf=now + 1000),
        "a beginning in words": with_claims(nbf="now"),
        "both wrong": with_claims(exp=now - 10, nbf=now + 10),
        "made in the future": with_claims(iat=now + 1000),
        "made at no time": with_claims(iat="x"),
        "for others": with_claims(aud="others", iss=5, sub=7, jti=[]),
        "no user": signed(b'{"revision":8}'),
        "a user that is a number": with_claims(username=5),
        "no revision": signed(b'{"username":"low"}'),
        "a revision in words": with_claims(revision="8"),
        "a revision that is true": with_claims(revision=True),
        "a revision with parts": with_claims(revision=8.9),
        "an old revision": with_claims(revision=7),
        "a later revision": with_claims(revision=9),
        "a stranger": with_claims(username="stranger"),
        "nobody": with_claims(username=""),
        "half a character": signed(b'{"username":"\\ud800","revision":8}'),
        "bytes that are no text": signed(b'{"username":"\xff","revision":8}'),
        "twice": signed(b'{"username":"root","username":"low","revision":8}'),
        "not a number": signed(b'{"username":"low","revision":NaN}'),
        "a number too large": signed(b'{"username":"low","revision":1e999}'),
        "no object": signed(b'["low"]'),
        "null": signed(b"null"),
        "no JSON": signed(b"{"),
        "a byte order mark": signed(b'\xef\xbb\xbf{"username":"low","revision":8}'),
        "a longer salt": salted,
        "padding": f"{head}.{body}.{signature}==",
        "padding inside": f"{head}==.{body}.{signature}",
        "other characters": f"{head}.{body}.{signature[:8]}!{signature[8:]}",
        "the other alphabet": f"{head}.{body}.{signature[:-1]}+",
        "a length that is none": f"{head}.{body}.{signature[:-1]}" + "A" * (1 + (1 - len(signature)) % 4),
        "four parts": f"{good}.",
        "two parts": f"{head}.{body}",
        "no signature": f"{head}.{body}.",
        "dots": "..",
        "a simple token": "abcdefghijklmnop.12",
        "another bearer": f"bearer {good}",
        "a bearer": f"Bearer {good}",
    }


def test_odd_tokens_are_taken_or_refused_alike_and_for_the_same_reasons(files: Files, start: Start) -> None:
    twins = start(files.signing("PS256"))
    lock(twins)
    assert twins.ask_as(None, RangeRequest(key=b"own")) is None
    taken = set()
    for name, token in odd_tokens(files).items():
        twins.title = f"{name}: {token}"
        if twins.ask_as(token, RangeRequest(key=b"own", serializable=True)) is not None:
            taken.add(name)
    same_reasons(twins)
    assert {"good", "more in the header", "an end of 0", "for others", "twice", "a bearer"} <= taken
    assert not {"none", "another method", "expired", "not yet", "a simple token"} & taken


def test_who_only_verifies_hands_out_none_and_takes_those_of_others(files: Files, start: Start) -> None:
    twins = start(files.verifying("ES256"))
    lock(twins)
    twins.authenticate("root", "root")
    assert twins.tokens == {}
    claims = {"username": "low", "revision": AUTH_REVISION, "exp": time.time() + 100}
    answer = twins.ask_as(jwt.encode(claims, files.private("ES256"), "ES256"), RangeRequest(key=b"own"))
    assert isinstance(answer, RangeResponse)


def test_tokens_end_with_their_time_and_with_a_change_of_users(files: Files, start: Start) -> None:
    twins = start(files.signing("RS256", ",ttl=3s"))
    lock(twins)
    twins.authenticate("low", "low")
    assert twins.ask_as("low", RangeRequest(key=b"own")) is not None
    deadline = time.monotonic() + END_SECONDS
    while twins.ask_as("low", RangeRequest(key=b"own")) is not None:
        assert time.monotonic() < deadline, "the token does not end"
        time.sleep(0.7)
    for name in ("root", "low"):
        twins.authenticate(name, name)
    assert twins.ask_as("root", AuthUserAddRequest(name="new", password="new")) is not None
    assert twins.ask_as("low", RangeRequest(key=b"own")) is None, "its revision is old"
    twins.authenticate("root", "root")
    twins.authenticate("low", "low")
    assert twins.ask_as("root", AuthUserDeleteRequest(name="low")) is not None
    assert twins.ask_as("low", RangeRequest(key=b"own")) is None


def test_a_key_of_another_curve_signs_nothing(files: Files, start: Start) -> None:
    path = files.write("curve.key", files.private("ES384"))
    twins = start(f"jwt,sign-method=ES256,priv-key={path}")
    lock(twins)
    twins.authenticate("root", "root")
    assert twins.tokens == {}


def refused(executable: Path, directory: Path, auth_token: str) -> tuple[int, str]:
    """Exit code, and the error of the last line of the log."""
    urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    ended = subprocess.run(
        [
            str(executable),
            f"--data-dir={directory}",
            f"--listen-client-urls={urls[0]}",
            f"--advertise-client-urls={urls[0]}",
            f"--listen-peer-urls={urls[1]}",
            f"--initial-advertise-peer-urls={urls[1]}",
            f"--initial-cluster=default={urls[1]}",
            f"--auth-token={auth_token}",
        ],
        capture_output=True,
        text=True,
        timeout=END_SECONDS,
    )
    last = json.loads([line for line in ended.stderr.splitlines() if line.startswith("{")][-1])
    return ended.returncode, last["error"]


def test_options_that_cannot_be_used_are_refused_in_the_same_words(
    files: Files, mainetcd: Path, tmp_path: Path
) -> None:
    rsa_key, other = files.write("rsa", files.rsa), files.write("ec", files.private("ES256"))
    strange = files.write("strange.pub", pem(keys()["RS"])[1])
    junk = files.write("junk", b"junk")
    ec_public = files.write("ec.pub", files.public("ES256"))
    for text in (
        "jwt",
        "jwt,sign-method=RS255",
        "jwt,sign-method=none",
        "jwt,sign-method",
        "jwt,sign-method=RS256,sign-method=RS256",
        "jwt,sign-method=RS256",
        "jwt,sign-method=HS256",
        f"jwt,sign-method=HS256,pub-key={rsa_key}",
        "jwt,sign-method=RS256,priv-key=/there/is/none",
        f"jwt,sign-method=RS256,priv-key={rsa_key},ttl=5",
        f"jwt,sign-method=RS256,priv-key={rsa_key},pub-key={strange}",
        f"jwt,sign-method=RS256,priv-key={other}",
        f"jwt,sign-method=ES256,priv-key={rsa_key}",
        f"jwt,sign-method=EdDSA,priv-key={other}",
        f"jwt,sign-method=PS256,pub-key={ec_public}",
        f"jwt,sign-method=ES256,pub-key={strange}",
        f"jwt,sign-method=EdDSA,pub-key={strange}",
        f"jwt,sign-method=RS256,priv-key={junk}",
        f"jwt,sign-method=EdDSA,pub-key={junk}",
        "simple,a",
        "other",
    ):
        ours = refused(ETCD, tmp_path / "ours", text)
        assert (text, ours) == (text, refused(mainetcd, tmp_path / "go", text))
