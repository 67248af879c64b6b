"""What the answer to a POSTed message means."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from pyetcd import logs
from pyetcd.logs import quote
from pyetcd.peer.headers import CLUSTER_ID_MISMATCH, INCOMPATIBLE_VERSION, header, hex_id

if TYPE_CHECKING:
    from pyetcd._native import HttpResponse

# Who answers here has the URL of somebody else. etcd takes that for its removal and ends.
MISMATCH: Final = b"to mismatch member"
REMOVED: Final = "the member has been permanently removed from the cluster"

_log = logs.get("peer")


class PostFailed(Exception):
    """The message has not been taken; the text is etcd's. `removed`: because we are no member any more."""

    def __init__(self, text: str, removed: bool = False) -> None:
        super().__init__(text)
        self.removed = removed


def check_post_response(response: HttpResponse, url: str, to: int, cluster_id: int) -> None:
    """Returns when the message has been processed. Raises PostFailed."""
    status = response.status
    if status == HTTPStatus.NO_CONTENT:
        return
    if status == HTTPStatus.FORBIDDEN and MISMATCH not in response.body:
        raise PostFailed(REMOVED, removed=True)
    if status != HTTPStatus.PRECONDITION_FAILED:
        raise PostFailed(f"unexpected http status {status_text(status)} while posting to {quote(url)}")
    body = response.body.decode("utf-8", "replace")
    text = body.removesuffix("\n")
    if text == INCOMPATIBLE_VERSION:
        _log.error("request sent was ignored by peer", {"remote-peer-id": hex_id(to)})
        raise PostFailed(text)
    if text == CLUSTER_ID_MISMATCH:
        _log.error(
            "request sent was ignored due to cluster ID mismatch",
            {
                "remote-peer-id": hex_id(to),
                "remote-peer-cluster-id": header(response.headers, "x-etcd-cluster-id"),
                "local-member-cluster-id": hex_id(cluster_id),
            },
        )
        raise PostFailed(text)
    raise PostFailed(f"unhandled error {quote(body)} when precondition failed")


def status_text(status: int) -> str:
    """The status in words; empty for one nobody knows."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
