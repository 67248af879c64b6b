"""Which of a member's URLs to dial: one until it fails, then the next."""

from __future__ import annotations

from collections.abc import Sequence

from pyetcd.cluster.urls import Url


class UrlPicker:
    def __init__(self, urls: Sequence[Url]) -> None:
        assert urls, "a member has at least one peer URL"
        self._urls = tuple(urls)
        self._picked = 0

    def update(self, urls: Sequence[Url]) -> None:
        """From now on these, from the first."""
        assert urls, "a member has at least one peer URL"
        self._urls = tuple(urls)
        self._picked = 0

    def pick(self) -> Url:
        return self._urls[self._picked]

    def unreachable(self, url: Url) -> None:
        """`url` has failed: pick the next one, unless that has happened already."""
        if url == self._urls[self._picked]:
            self._picked = (self._picked + 1) % len(self._urls)
