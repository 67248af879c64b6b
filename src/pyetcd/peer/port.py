"""The sockets of `--listen-peer-urls`, and who answers which path there.

Paths under `/raft` are the transport's, the others are looked up: whole paths first, then prefixes, the
longest first; what nobody serves is 404. Handlers are coroutines and may take their time, `TASKS_MAX` of them
at once; whatever one raises finishes its own request alone, and a request whose sender has gone is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from pyetcd import logs
from pyetcd._native import CANCEL
from pyetcd.listen import Entrance
from pyetcd.peer import replies
from pyetcd.peer.seams import Refused
from pyetcd.peer.transport import Transport
from pyetcd.peer.wire import PeerWire

if TYPE_CHECKING:
    from pyetcd._native import HttpRequest, Meta

Handler = Callable[["HttpRequest", "Meta"], Awaitable[tuple[int, Sequence[tuple[str, str]], bytes]]]

TASKS_MAX: Final = 1_000

_log = logs.get("peer")


class PeerPort:
    """`handlers`: by whole path; `prefixes`: by the beginning of the path. Serves once it is made."""

    def __init__(
        self,
        wire: PeerWire,
        transport: Transport,
        handlers: Mapping[str, Handler],
        prefixes: Mapping[str, Handler],
    ) -> None:
        self._wire = wire
        self._transport = transport
        self._handlers = handlers
        self._prefixes = sorted(prefixes.items(), key=lambda item: -len(item[0]))
        self._tasks: set[asyncio.Task[None]] = set()
        wire.on_request = self._request

    def listen(self, entrances: Sequence[Entrance]) -> None:
        """Accept; requests wait until the wire is started."""
        for entrance in entrances:
            entrance.open(self._wire.server)
            _log.info("serving peer traffic", {"address": entrance.address})

    async def close(self) -> None:
        """Cancel what is still being answered."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _request(self, call: int, request: HttpRequest, meta: Meta) -> None:
        if self._transport.handle(call, request, meta):
            return
        handler = self._handler_of(unquote(request.target.partition("?")[0]))
        if handler is None:
            replies.not_found(self._wire.server, call)
        elif len(self._tasks) >= TASKS_MAX:
            replies.error(self._wire.server, call, 503, "too many requests")
        else:
            task = asyncio.get_running_loop().create_task(self._answer(call, request, meta, handler))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._wire.own(call, _Asked(task))

    def _handler_of(self, path: str) -> Handler | None:
        handler = self._handlers.get(path)
        if handler is not None:
            return handler
        return next((found for prefix, found in self._prefixes if path.startswith(prefix)), None)

    async def _answer(self, call: int, request: HttpRequest, meta: Meta, handler: Handler) -> None:
        server = self._wire.server
        try:
            status, headers, body = await handler(request, meta)
        except Refused as error:
            replies.refused(server, call, error)
        except Exception as error:
            _log.warn(
                "peer request handler failed", {"path": request.target, "error": repr(error)}, exc=error
            )
            replies.error(server, call, 500, "Internal Server Error")
        else:
            server.http_reply(call, status, headers, body)
        finally:
            self._wire.disown(call)


class _Asked:
    """Owns a request that is being answered."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def on_event(self, kind: int, payload: object) -> None:
        if kind == CANCEL:
            self._task.cancel()
