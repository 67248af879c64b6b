"""From a data directory to the parts of a member: new, or as it was when it last stopped."""

from __future__ import annotations

import random
from concurrent.futures import Executor
from dataclasses import dataclass

from pyetcd import logs
from pyetcd._native import Appender
from pyetcd.cluster.bootstrap import metadata, new_cluster, read_metadata
from pyetcd.cluster.datadir import DataDir, Found, check_database, prepare
from pyetcd.cluster.members import to_json
from pyetcd.cluster.membership import Membership
from pyetcd.member.config import ServerConfig
from pyetcd.member.position import Position
from pyetcd.member.urls import parse_cluster
from pyetcd.raft import (
    Config,
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    Node,
    Snapshot,
    SnapshotMetadata,
)
from pyetcd.storage.backend import Backend
from pyetcd.storage.files import Files
from pyetcd.storage.wal import Wal

MAX_MESSAGE_BYTES = 512 << 10
MAX_INFLIGHT_MESSAGES = 512
BUCKETS = (
    b"alarm",
    b"auth",
    b"authRoles",
    b"authUsers",
    b"cluster",
    b"key",
    b"lease",
    b"members",
    b"members_removed",
    b"meta",
)

_log = logs.get("member")


class CannotOpen(Exception):
    """The data directory is not one this member can serve. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a member is made of."""

    member_id: int
    cluster_id: int
    backend: Backend
    wal: Wal
    node: Node
    storage: MemoryStorage
    cluster: Membership
    position: Position


def open_member(
    config: ServerConfig, files: Files, executor: Executor, appender: Appender, chance: random.Random
) -> Opened:
    """Open or make the member in `config.data_dir`. CannotOpen, or the errors of its parts: DataDirError,
    WalError,
    DatabaseCorrupt, BadMembership, NewerCluster, OSError."""
    place = DataDir(config.data_dir, config.wal_dir)
    found = prepare(files, place)
    backend = Backend.open(files, place.database, executor, sync=not config.unsafe_no_fsync)
    if backend.get(b"auth", b"authEnabled") == b"\x01":
        raise CannotOpen(f"{place.database} has authentication enabled, which this version does not enforce")
    for bucket in BUCKETS:
        backend.create_bucket(bucket)
    position = Position(backend)
    _log.info("restore consistentIndex", {"index": position.index})
    if found.has_log:
        return _reopen(config, files, executor, appender, chance, backend, position, place, found)
    return _create(config, files, executor, appender, chance, backend, position, place)


def _node(config: ServerConfig, id: int, storage: MemoryStorage, applied: int, chance: random.Random) -> Node:
    return Node(
        Config(
            id=id,
            election_ticks=config.election_ticks,
            heartbeat_ticks=1,
            storage=storage,
            random=chance,
            applied=applied,
            async_storage=True,
            max_message_bytes=MAX_MESSAGE_BYTES,
            max_inflight_messages=MAX_INFLIGHT_MESSAGES,
            check_quorum=True,
            pre_vote=config.pre_vote,
        )
    )


def _create(
    config: ServerConfig,
    files: Files,
    executor: Executor,
    appender: Appender,
    chance: random.Random,
    backend: Backend,
    position: Position,
    place: DataDir,
) -> Opened:
    initial = {
        name: [url.text for url in urls] for name, urls in parse_cluster(config.initial_cluster).items()
    }
    new = new_cluster(initial, config.initial_cluster_token)
    local = new.named(config.name)
    if len(new.members) > 1 or not config.is_new_cluster:
        raise CannotOpen("this version runs clusters of one member; more need the peer protocol")
    wal = Wal.create(
        files,
        place.wal,
        metadata(local.id, new.id),
        appender,
        executor=executor,
        fsync=not config.unsafe_no_fsync,
    )
    storage = MemoryStorage()
    node = _node(config, local.id, storage, 0, chance)
    # Every member begins with the same entries, which its peers' IDs and JSON make up.
    node.bootstrap([(member.id, to_json(member)) for member in new.members])
    cluster = Membership(backend, local.id, new.id, config.max_learners)
    _log.info("starting local member", {"local-member-id": local.hex_id, "cluster-id": f"{new.id:x}"})
    return Opened(local.id, new.id, backend, wal, node, storage, cluster, position)


def _reopen(
    config: ServerConfig,
    files: Files,
    executor: Executor,
    appender: Appender,
    chance: random.Random,
    backend: Backend,
    position: Position,
    place: DataDir,
    found: Found,
) -> Opened:
    wal, replay = Wal.open(
        files,
        place.wal,
        appender,
        entry=Entry,
        durable=position.index,
        executor=executor,
        fsync=not config.unsafe_no_fsync,
    )
    member_id, cluster_id = read_metadata(replay.metadata)
    if check_database(files, place, found, replay.marker.index, position.index) is not None:
        raise CannotOpen(f"a snapshot was received and not yet put in the place of {place.database}")
    cluster = Membership(backend, member_id, cluster_id, config.max_learners)
    cluster.load()
    voters = tuple(member.id for member in cluster.voters())
    learners = tuple(member.id for member in cluster.learners())
    storage = MemoryStorage()
    state = ConfState(voters=voters, learners=learners)
    storage.apply_snapshot(Snapshot(SnapshotMetadata(replay.marker.index, replay.marker.term, state)))
    hard = replay.hard_state
    commit = max(hard.commit if hard else 0, min(position.index, replay.last_index))
    if hard is not None:
        storage.set_hard_state(HardState(hard.term, hard.vote, commit))
    storage.append(replay.entries)
    applied = max(position.index, replay.marker.index)
    node = _node(config, member_id, storage, applied, chance)
    fields = {
        "cluster-id": f"{cluster_id:x}",
        "local-member-id": f"{member_id:x}",
        "commit-index": commit,
    }
    _log.info("restarting local member", fields)
    return Opened(member_id, cluster_id, backend, wal, node, storage, cluster, position)
