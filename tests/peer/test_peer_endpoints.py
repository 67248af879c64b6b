"""What other members may ask. `tests/interop/test_same_peer_endpoints.py` compares most of it with real etcd;
here is what a member alone in its cluster never says.
"""

from __future__ import annotations

import asyncio

import pytest
from fake_peers import FakeMember, Meta, Request, unknown_error
from hypothesis import given
from hypothesis import strategies as st

from pyetcd.peer.endpoints import Endpoints, NotPrimary, Response
from pyetcd.proto import errors
from pyetcd.proto.lease_pb2 import LeaseInternalRequest
from pyetcd.proto.rpc_pb2 import LeaseTimeToLiveRequest

CLUSTER = ("X-Etcd-Cluster-Id", "c1")
TEXT = (("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff"))
ALL = ["/members", "/version", "/members/promote/1", "/members/hashkv", "/leases", "/leases/internal"]


def ask(member: FakeMember, request: Request) -> Response:
    return asyncio.run(Endpoints(member).handle(request, Meta()))  # type: ignore[arg-type]


def promotion(error: Exception | None) -> Response:
    member = FakeMember()
    member.error = error
    return ask(member, Request("POST", "/members/promote/7"))


def test_a_promotion_that_succeeds_lists_the_members() -> None:
    status, headers, body = promotion(None)
    assert (status, headers) == (200, (CLUSTER, ("Content-Type", "application/json")))
    assert body == b'[{"id":1,"peerURLs":["http://a:2380"],"name":"a","clientURLs":["http://a:2379"]}]\n'


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (errors.MEMBER_NOT_FOUND(), 404, b"membership: ID not found\n"),
        (errors.MEMBER_NOT_LEARNER(), 412, b"membership: can only promote a learner member\n"),
        (
            errors.LEARNER_NOT_READY(),
            412,
            b"etcdserver: can only promote a learner member which is in sync with leader\n",
        ),
    ],
)
def test_a_promotion_that_is_refused(error: Exception, status: int, text: bytes) -> None:
    assert promotion(error) == (status, (CLUSTER, *TEXT), text)


@pytest.mark.parametrize("error", [errors.TIMEOUT(), errors.UNHEALTHY(), unknown_error()])
def test_a_promotion_that_fails_otherwise(error: Exception) -> None:
    headers = (CLUSTER, ("Content-Type", "application/json"))
    assert promotion(error) == (500, headers, b'{"message":"Internal Server Error"}')


def test_no_member_has_an_id_with_digits_of_another_script() -> None:
    status, _, body = ask(FakeMember(), Request("POST", "/members/promote/%D9%A1"))
    assert (status, body) == (404, "member \u0661 not found in cluster\n".encode())


def test_a_member_that_does_not_lead_knows_nothing_of_leases() -> None:
    member = FakeMember()
    member.error = NotPrimary()
    life = LeaseInternalRequest(LeaseTimeToLiveRequest=LeaseTimeToLiveRequest(ID=1)).SerializeToString()
    assert ask(member, Request("POST", "/leases", body=b"\x08\x01")) == (
        400, TEXT, b"not a primary lessor\n",
    )  # fmt: skip
    assert ask(member, Request("POST", "/leases/internal", body=life)) == (
        500, TEXT, b"not a primary lessor\n",
    )  # fmt: skip


def test_a_member_that_is_behind_says_so() -> None:
    member = FakeMember()
    member.behind = True
    text = b"waiting for node to catch up its applied index has timed out\n"
    assert ask(member, Request("POST", "/leases", body=b"\x08\x01")) == (408, TEXT, text)


def test_a_question_without_a_question_is_refused() -> None:
    assert ask(FakeMember(), Request("POST", "/leases/internal"))[0] == 400


def test_a_downgrade_that_cannot_be_read() -> None:
    member = FakeMember()
    member.error = errors.TIMEOUT()
    text = b"failed linearized read: etcdserver: request timed out\n"
    assert ask(member, Request("GET", "/downgrade/enabled")) == (500, (CLUSTER, *TEXT), text)


@given(st.sampled_from(["GET", "POST"]), st.sampled_from(ALL) | st.text(), st.binary())
def test_no_request_makes_a_handler_raise(method: str, target: str, body: bytes) -> None:
    status, _, _ = ask(FakeMember(), Request(method, target, body=body))
    assert 200 <= status < 500
