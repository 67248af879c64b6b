"""Moving the leadership to another member: because an operator asks for it, or before this member stops."""

from __future__ import annotations

import asyncio

from pyetcd import logs
from pyetcd.cluster.membership import Membership
from pyetcd.logs import duration
from pyetcd.member.consensus import Consensus
from pyetcd.member.reconfigure import Connections
from pyetcd.proto import errors
from pyetcd.proto.errors import UNKNOWN, EtcdError

TOOK_TOO_LONG = "etcdserver: request timed out, leader transfer took too long"  # etcd gives it no code

_log = logs.get("member")


class Transfer:
    """Every method from the loop."""

    def __init__(
        self, cluster: Membership, consensus: Consensus, connections: Connections, timeout_seconds: float
    ) -> None:
        self._cluster = cluster
        self._consensus = consensus
        self._connections = connections
        self._timeout_seconds = timeout_seconds
        self._changed = asyncio.Event()

    def look(self) -> None:
        """Another leader, or none, is known, or some time has passed."""
        self._changed.set()

    async def move(self, target: int) -> None:
        """Returns when `target` leads. NOT_LEADER, BAD_LEADER_TRANSFEREE, or an error when it takes too
        long."""
        node, local_id = self._consensus.node, self._cluster.local_id
        if node.lead != local_id:
            raise errors.NOT_LEADER
        member = self._cluster.members.get(target)
        if member is None or member.is_learner:
            raise errors.BAD_LEADER_TRANSFEREE
        loop = asyncio.get_running_loop()
        began = loop.time()
        local = f"{local_id:x}"
        fields = {
            "local-member-id": local,
            "current-leader-member-id": local,
            "transferee-member-id": member.hex_id,
        }
        _log.info("leadership transfer starting", fields)
        node.transfer_leader(target)
        self._consensus.flush()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                while node.lead != target:
                    gone = self._connections.active_since(target) is None
                    if gone or (node.is_leader and node.transferee != target):
                        raise TimeoutError  # it stops as well, or raft has given it up
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise EtcdError(UNKNOWN, TOOK_TOO_LONG) from None
        _log.info(
            "leadership transfer finished",
            {
                "local-member-id": local,
                "old-leader-member-id": local,
                "new-leader-member-id": member.hex_id,
                "took": duration(loop.time() - began),
            },
        )

    async def before_stop(self) -> None:
        """Hand the leadership to whoever has been connected the longest, if this member has it."""
        lead, local_id = self._consensus.node.lead, self._cluster.local_id
        fields = {"local-member-id": f"{local_id:x}", "current-leader-member-id": f"{lead:x}"}
        if lead != local_id:
            _log.info("skipped leadership transfer; local server is not leader", fields)
            return
        others = [member.id for member in self._cluster.voters() if member.id != local_id]
        if not others:
            _log.info("skipped leadership transfer for single voting member cluster", fields)
            return
        since = {id: self._connections.active_since(id) for id in others}
        connected = [(when, id) for id, when in since.items() if when is not None]
        try:
            if not connected:
                raise errors.UNHEALTHY
            await self.move(min(connected)[1])
        except EtcdError as error:
            fields = {"local-member-id": f"{local_id:x}", "error": error.message}
            _log.warn("leadership transfer failed", fields)
