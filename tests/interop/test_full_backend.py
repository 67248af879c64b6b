"""A database that falls behind makes putters wait; it never refuses them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from servers import Etcd

PUTTERS = 64
PUTS = 40  # of each


def test_no_put_is_refused_while_the_database_catches_up(tmp_path: Path) -> None:
    """It is full with forty writes that are not committed, far fewer than come at once."""
    with closing(Etcd(tmp_path, **{"backend-batch-limit": 10})) as server:
        server.put(b"first", b"")

        def put(putter: int) -> list[int]:
            return [server.put(b"%d" % putter, b"v" * 100) for _ in range(PUTS)]

        with ThreadPoolExecutor(PUTTERS) as threads:
            revisions = [revision for each in threads.map(put, range(PUTTERS)) for revision in each]
        assert sorted(revisions) == list(range(3, 3 + PUTTERS * PUTS))
        assert server.range(b"0", b"\xff").count == PUTTERS + 1
