"""The TxnResponse: responses within a response, put together when all of them are there.

Every inner response carries a header with the revision only; that of a nested transaction is empty, as in
etcd.
"""

from __future__ import annotations

from typing import Final

from pyetcd.mvcc.answer import Answer, Job
from pyetcd.mvcc.ranges import Parts
from pyetcd.proto.splice import varint

RANGE_TAG, PUT_TAG, DELETE_TAG, TXN_TAG = b"\x0a", b"\x12", b"\x1a", b"\x22"  # fields of ResponseOp
EMPTY_HEADER: Final = b"\x0a\x00"


class Pieces:
    """A TxnResponse without its header: (tag, header, body) of each ResponseOp; a body may still be a job."""

    __slots__ = ("pieces", "succeeded")

    def __init__(self, succeeded: bool) -> None:
        self.succeeded = succeeded
        self.pieces: list[tuple[bytes, bytes, Parts | Job[Parts] | Pieces]] = []


def _waits(pieces: Pieces) -> bool:
    for _, _, body in pieces.pieces:
        if isinstance(body, list):
            continue
        if not isinstance(body, Pieces) or _waits(body):
            return True
    return False


def _assemble(pieces: Pieces) -> Parts:
    """Fields 2 and 3 of the TxnResponse, once every body is there."""
    parts: Parts = [b"\x10\x01"] if pieces.succeeded else []
    for tag, header, body in pieces.pieces:
        inner = _assemble(body) if isinstance(body, Pieces) else body
        assert isinstance(inner, list), "jobs have been run"
        length = len(header) + sum(map(len, inner)) if inner else len(header)
        head = tag + varint(length)
        parts.append(b"\x1a" + varint(len(head) + length) + head + header)
        if inner:
            parts += inner
    return parts


def answer_of(revision: int, pieces: Pieces) -> Answer | Job[Answer]:
    if _waits(pieces):
        return _assemble_later(revision, pieces)
    return Answer(revision, _assemble(pieces))


def _assemble_later(revision: int, pieces: Pieces) -> Job[Answer]:
    yield from _run_jobs(pieces)
    return Answer(revision, _assemble(pieces))


def _run_jobs(pieces: Pieces) -> Job[None]:
    for at, (tag, header, body) in enumerate(pieces.pieces):
        if isinstance(body, Pieces):
            yield from _run_jobs(body)
        elif not isinstance(body, list):
            pieces.pieces[at] = (tag, header, (yield from body))
