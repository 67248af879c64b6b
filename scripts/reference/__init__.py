"""The pages of the documentation that are made from the code: flags, commands, the API, errors, metrics.

They are made whenever the site is built and lie nowhere else, so that they cannot go stale.
"""

from __future__ import annotations

from reference import api_pages, command_pages, server_pages


def pages() -> dict[str, str]:
    """Path below `docs/` -> Markdown."""
    return {
        "reference/etcd.md": server_pages.flags(),
        "reference/etcdctl.md": command_pages.etcdctl(),
        "reference/etcdutl.md": command_pages.etcdutl(),
        "reference/proxies.md": command_pages.proxy_commands(),
        "reference/api.md": api_pages.services(),
        "reference/messages.md": api_pages.messages(),
        "reference/errors.md": api_pages.errors(),
        "reference/metrics.md": server_pages.metrics(),
    }
