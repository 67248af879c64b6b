"""`/metrics` as an answer: the text of all families, compressed where the scraper takes that.

It is made in slices, so that a scrape of thousands of lines does not hold the loop up. One object answers all
ports of a server, and counts what it answers as Go's promhttp does: a scrape shows those before it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable
from typing import Final

from pyetcd.api.http_reply import Reply
from pyetcd.metrics import CONTENT_TYPE, Registry, Row

_FAST: Final = 1
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS


class Scrapes:
    """Answers scrapes of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._answered = {"200": 0, "500": 0, "503": 0}
        self._flying = registry.gauge(
            "promhttp_metric_handler_requests_in_flight", "Scrapes being answered, this one included."
        )
        registry.rows(
            "promhttp_metric_handler_requests_total",
            "counter",
            "Scrapes answered, by HTTP status.",
            ("code",),
        ).rows = self._rows

    def _rows(self) -> Iterable[Row]:
        return [((code,), count) for code, count in self._answered.items()]

    async def answer(self, accepted_encodings: str) -> Reply:
        """`accepted_encodings`: the request's Accept-Encoding."""
        self._flying.value += 1
        compressor = zlib.compressobj(_FAST, wbits=_GZIP_WINDOW) if _takes_gzip(accepted_encodings) else None
        parts: list[bytes] = []
        try:
            for part in self._registry.parts():
                parts.append(part if compressor is None else compressor.compress(part))
                await asyncio.sleep(0)
        except Exception:
            self._answered["500"] += 1
            raise
        finally:
            self._flying.value -= 1
        self._answered["200"] += 1
        if compressor is None:
            return Reply(200, (("Content-Type", CONTENT_TYPE),), b"".join(parts))
        parts.append(compressor.flush())
        headers = (("Content-Encoding", "gzip"), ("Content-Type", CONTENT_TYPE))
        return Reply(200, headers, b"".join(parts))


def _takes_gzip(accepted: str) -> bool:
    """Whether `gzip` is in an Accept-Encoding, and not with a weight of 0."""
    for each in accepted.split(","):
        coding, _, weight = each.partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
