"""From a data directory to the parts of a member: new, or as it was when it last stopped.

Rules that hold here:

* A directory that is refused is left as it was found: whatever can refuse it (locks, damage, a database older
  than the log's marker, members that cannot be read) is looked at before a torn end of the log is cut, and
  before anything is written to the database.
* A new member's log is made before its database. So a database without a log is one that has lost it, and is
  refused; a log without a database is replayed from its beginning, if it reaches back to it.
* A member counts as begun once its first hard state is durable. A log without one, as a crash during the very
  first start leaves it, is begun again, by the same configuration; where that is to join a running cluster,
  with nothing, as the leader brings everything.
* A database that a leader sent, which the log counts on and which is not in its place yet, is proved before
  it takes the place of the present one.
* The log is replayed from its newest marker; what the database has applied already (up to its consistent
  index) is not applied again. Configuration and members are the database's, as of that index.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from pyetcd import logs
from pyetcd._native import Appender
from pyetcd.cluster.bootstrap import Beginning, NewCluster, metadata, new_cluster, read_metadata
from pyetcd.cluster.changes import check_learners
from pyetcd.cluster.datadir import DataDir, Found, check_database, place_received, prepare, received_databases
from pyetcd.cluster.members import Member, to_json
from pyetcd.cluster.membership import MEMBERS, BadMembership, Membership
from pyetcd.cluster.urls import parse_cluster
from pyetcd.cluster.versions import UnknownStorage, Version, check_storage_version
from pyetcd.logs.gotext import decimal_size
from pyetcd.member.config import ServerConfig
from pyetcd.member.forcing import committed, entries_for_one, is_removed
from pyetcd.member.position import Position
from pyetcd.proto.errors import EtcdError
from pyetcd.raft import (
    Config,
    ConfState,
    Entry,
    HardState,
    InvalidMessage,
    MemoryStorage,
    Node,
    Snapshot,
    SnapshotMetadata,
)
from pyetcd.raft.codec import conf_change_of, encode_conf_state
from pyetcd.storage.backend import Backend
from pyetcd.storage.defrag import defragment_now
from pyetcd.storage.files import Files
from pyetcd.storage.schema import (
    AUTH,
    AUTH_REVISION,
    create_buckets,
    storage_version,
    uint64,
)
from pyetcd.storage.snap import Snapshots
from pyetcd.storage.wal import SEGMENT_BYTES, Marker, Replay, Wal, read_only

MAX_MESSAGE_BYTES = 512 << 10
MAX_INFLIGHT_MESSAGES = 512

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
    snapshots: Snapshots
    files: Files
    place: DataDir
    executor: Executor
    peers: Sequence[Member]  # the others, as far as they are known before anything is applied
    remotes: Sequence[Member]  # a running cluster's members, to be dialled until the log brings them

    def discard(self) -> None:
        """Close everything as it is: the start is refused after all."""
        self.backend.discard()
        self.wal.close()


def open_member(
    config: ServerConfig,
    files: Files,
    executor: Executor,
    appender: Appender,
    chance: random.Random,
    *,
    cluster: Beginning | None = None,
    segment_bytes: int = SEGMENT_BYTES,
) -> Opened:
    """Open or make the member in `config.data_dir`. CannotOpen, or the errors of its parts: DataDirError,
    WalError, DatabaseError, NewerCluster, OSError.

    `cluster` is how a member without a log begins, which `joining.find_cluster` finds out; without it, as
    the flags alone describe a new cluster."""
    place = DataDir(config.data_dir, config.wal_dir)
    found = prepare(files, place)
    opening = _Opening(config, files, executor, appender, chance, place, cluster, segment_bytes)
    opened = opening.again(found) if found.has_log else opening.anew()
    opened.snapshots.tidy()
    return opened


@dataclass(slots=True)
class _Opening:
    """One attempt to open a directory."""

    config: ServerConfig
    files: Files
    executor: Executor
    appender: Appender
    chance: random.Random
    place: DataDir
    cluster: Beginning | None
    segment_bytes: int
    storage: MemoryStorage = field(default_factory=MemoryStorage)

    def anew(self) -> Opened:
        """A member without a log."""
        beginning = self._beginning()
        wal = Wal.create(
            self.files,
            self.place.wal,
            metadata(beginning.local_id, beginning.cluster.id),
            self.appender,
            executor=self.executor,
            segment_bytes=self.segment_bytes,
            fsync=not self.config.unsafe_no_fsync,
        )
        return self._begin(beginning, wal, self._database(self.place.database))

    def again(self, found: Found) -> Opened:
        """The member whose log is there."""
        backend = self._defragmented(self._found_database(found))
        try:
            return self._continue(found, backend)
        except BaseException:
            backend.discard()
            raise

    def _found_database(self, found: Found) -> Backend:
        """The database that is there, or the one a leader sent, where the log counts on it and it is not in
        its place."""
        if not found.has_database:  # and none is made for a log that needs the one that is gone
            received = self._received(found, 0)
            return self._database(self.place.database) if received is None else self._take_over(received)
        backend = self._database(self.place.database)
        try:
            applied = Position(backend).index
            # Nearly always there is none, and the log need not be read for it.
            is_waiting = any(index > applied for index in received_databases(self.files, self.place))
            received = self._received(found, applied) if is_waiting else None
        except BaseException:
            backend.discard()
            raise
        if received is None:
            return backend
        backend.discard()
        return self._take_over(received)

    def _defragmented(self, backend: Backend) -> Backend:
        """The database, without its free pages if there are as many as the flag says."""
        threshold = self.config.bootstrap_defrag_threshold_megabytes << 20
        size, in_use = backend.size_bytes, backend.size_in_use_bytes
        if not threshold:
            return backend
        if size - in_use < threshold:
            fields = {
                "current-db-size-bytes": size,
                "current-db-size": decimal_size(size),
                "current-db-size-in-use-bytes": in_use,
                "current-db-size-in-use": decimal_size(in_use),
                "bootstrap-defrag-threshold-bytes": threshold,
                "bootstrap-defrag-threshold": decimal_size(threshold),
            }
            _log.info("Skipping defragmentation", fields)
            return backend
        path = backend.path
        try:
            defragment_now(self.files, backend)
        finally:
            backend.discard()
        return self._database(path)

    def _received(self, found: Found, applied: int) -> str | None:
        marker = read_only(self.files, self.place.wal, entry=Entry).marker
        if marker.index <= applied:
            return None
        return check_database(self.files, self.place, found, marker.index, applied)

    def _take_over(self, received: str) -> Backend:
        """Put a received database in its place, once it has been read."""
        backend = self._database(received)
        try:
            Membership(backend, 0, 0).load()
        except BadMembership as error:
            raise CannotOpen(f"{received}: {error}") from None
        finally:
            backend.discard()
        place_received(self.files, self.place, received)
        return self._database(self.place.database)

    def _database(self, path: str) -> Backend:
        config = self.config
        backend = Backend.open(
            self.files,
            path,
            self.executor,
            interval_seconds=config.effective_backend_batch_interval_seconds,
            writes_max=config.effective_backend_batch_limit,
            sync=not config.unsafe_no_fsync,
        )
        try:
            check_contents(backend)
        except CannotOpen:
            backend.discard()
            raise
        create_buckets(backend)
        if uint64(backend.get(AUTH, AUTH_REVISION)) == 0:
            # As etcd's first start does, and `Hash` covers it.
            backend.put(AUTH, AUTH_REVISION, (1).to_bytes(8, "big"))
        return backend

    def _beginning(self) -> Beginning:
        """How a member begins: as was found out before, or as the flags describe it."""
        if self.cluster is not None:
            return self.cluster
        config = self.config
        assert config.is_new_cluster, "who joins a cluster asks for its members first"
        urls = parse_cluster(config.initial_cluster)
        initial = {name: [url.text for url in found] for name, found in urls.items()}
        new = new_cluster(initial, config.initial_cluster_token)
        return Beginning(new, new.named(config.name).id)

    def _begin(self, beginning: Beginning, wal: Wal, backend: Backend) -> Opened:
        local_id, members = beginning.local_id, beginning.cluster.members
        node = self._node(local_id, 0)
        if beginning.is_new:
            # Every member begins with the same entries, which its peers' IDs and JSON make up.
            node.bootstrap([(member.id, to_json(member)) for member in members])
        cluster = Membership(backend, local_id, beginning.cluster.id, self.config.max_learners)
        fields = {"local-member-id": f"{local_id:x}", "cluster-id": f"{beginning.cluster.id:x}"}
        _log.info("starting local member", fields)
        return self._opened(wal, node, backend, cluster, Position(backend), members, beginning.remotes)

    def _continue(self, found: Found, backend: Backend) -> Opened:
        position = Position(backend)
        _log.info("restore consistentIndex", {"index": position.index})
        cluster = Membership(backend, 0, 0, self.config.max_learners)
        unborn: list[Beginning] = []
        is_one_of_many = len(backend.scan(MEMBERS, b"", limit=2)) > 1

        def accept(replay: Replay[Entry]) -> None:
            try:
                cluster.local_id, cluster.cluster_id = read_metadata(replay.metadata)
            except ValueError as error:
                raise CannotOpen(f"{self.place.wal}: {error}") from None
            missing = check_database(self.files, self.place, found, replay.marker.index, position.index)
            assert missing is None, "what was received is in its place"
            try:
                cluster.load()
            except BadMembership as error:
                raise CannotOpen(f"{self.place.database}: {error}") from None
            self._check_owner(cluster, replay, position.index)
            self._check_learners(cluster)
            if self.config.force_new_cluster:
                self._check_forcible(cluster, replay, position.index)
            if replay.hard_state is None:
                if position.index:
                    why = f"holds no hard state, yet {self.place.database} has applied entry {position.index}"
                    raise CannotOpen(f"{self.place.wal} {why}")
                unborn.append(self._begin_again(cluster))

        wal, replay = Wal.open(
            self.files,
            self.place.wal,
            self.appender,
            entry=Entry,
            # Go's members apply what is committed elsewhere while they write it to their own log.
            durable=0 if is_one_of_many else position.index,
            accept=accept,
            executor=self.executor,
            segment_bytes=self.segment_bytes,
            fsync=not self.config.unsafe_no_fsync,
        )
        if unborn:
            return self._begin(unborn[0], wal, backend)
        if self.config.force_new_cluster:
            self._force(wal, replay, cluster, position)
            return self._opened(
                wal, self._node(cluster.local_id, position.index), backend, cluster, position, (), ()
            )
        commit = self._fill_storage(replay, cluster, position.index)
        node = self._node(cluster.local_id, min(max(position.index, replay.marker.index), commit))
        _log.info("restarting local member", {**_ids(cluster), "commit-index": commit})
        return self._opened(wal, node, backend, cluster, position, cluster.list(), ())

    def _force(self, wal: Wal, replay: Replay[Entry], cluster: Membership, position: Position) -> None:
        """Let the log end with what leaves this member alone: see `forcing`."""
        hard = replay.hard_state
        assert hard is not None, "a log without one is begun again"
        applied, marker, members = position.index, replay.marker, _conf_state(cluster)
        commit = max(hard.commit, applied)
        entries = [*committed(replay.entries, commit)]
        begins_anew = None
        if applied > replay.last_index:  # what lies between is known to the database alone
            marker, entries = Marker(applied, position.term, encode_conf_state(members)), []
            begins_anew = marker
        unapplied = [entry for entry in entries if entry.index > applied]
        forced = entries_for_one(cluster.list(), unapplied, cluster.local_id, hard.term, commit)
        last = forced[-1].index if forced else commit
        state = HardState(hard.term, hard.vote, last)
        wal.save_now(state, forced, begins_anew)
        self.storage.apply_snapshot(Snapshot(SnapshotMetadata(marker.index, marker.term, members)))
        self.storage.set_hard_state(state)
        self.storage.append([*entries, *forced])
        fields = {"wal-commit-index": hard.commit, "commit-index": last}
        _log.info("forcing restart member", {**_ids(cluster), **fields})

    def _check_owner(self, cluster: Membership, replay: Replay[Entry], applied: int) -> None:
        """That the database is the log's, not one of another member: with members, but not this one, neither
        now nor later in the log."""
        id = cluster.local_id
        if not cluster.members or id in cluster.members or id in cluster.removed:
            return
        changes = (entry for entry in replay.entries if entry.type and entry.index > applied)
        if not any(_adds(entry, id) for entry in changes):
            members = ", ".join(member.hex_id for member in cluster.list())
            raise CannotOpen(
                f"{self.place.database} does not belong to the log {self.place.wal}: that is the log of "
                f"member {id:x}, the database has the members {members}"
            )

    @staticmethod
    def _check_forcible(cluster: Membership, replay: Replay[Entry], applied: int) -> None:
        id, commit = cluster.local_id, 0 if replay.hard_state is None else replay.hard_state.commit
        unapplied = [entry for entry in replay.entries if applied < entry.index <= commit]
        if id in cluster.removed or is_removed(unapplied, id):
            raise CannotOpen(f"member {id:x} was removed from its cluster, which cannot go on with it alone")

    def _check_learners(self, cluster: Membership) -> None:
        try:
            check_learners(cluster.list(), self.config.max_learners)
        except EtcdError:
            raise CannotOpen("membership: too many learner members in cluster") from None

    def _begin_again(self, cluster: Membership) -> Beginning:
        if self.cluster is None and not self.config.is_new_cluster:
            return Beginning(NewCluster(cluster.cluster_id, ()), cluster.local_id, is_new=False)
        beginning = self._beginning()
        id, cluster_id = beginning.local_id, beginning.cluster.id
        if (id, cluster_id) != (cluster.local_id, cluster.cluster_id):
            theirs = f"member {cluster.local_id:x} of cluster {cluster.cluster_id:x}"
            raise CannotOpen(
                f"{self.place.wal} was begun for {theirs} and never got further; the flags are those of "
                f"member {id:x} of cluster {cluster_id:x}"
            )
        return beginning

    def _fill_storage(self, replay: Replay[Entry], cluster: Membership, applied: int) -> int:
        """The log as raft is to see it. Returns up to where it is committed."""
        marker, hard = replay.marker, replay.hard_state
        assert hard is not None, "a log without one is begun again"
        metadata = SnapshotMetadata(marker.index, marker.term, _conf_state(cluster))
        self.storage.apply_snapshot(Snapshot(metadata))
        # That something is committed is not always synced at once; what is applied is committed.
        commit = max(hard.commit, min(applied, replay.last_index))
        self.storage.set_hard_state(HardState(hard.term, hard.vote, commit))
        self.storage.append(replay.entries)
        return commit

    def _node(self, id: int, applied: int) -> Node:
        return Node(
            Config(
                id=id,
                election_ticks=self.config.election_ticks,
                heartbeat_ticks=1,
                storage=self.storage,
                random=self.chance,
                applied=applied,
                async_storage=True,
                max_message_bytes=MAX_MESSAGE_BYTES,
                max_inflight_messages=MAX_INFLIGHT_MESSAGES,
                check_quorum=True,
                pre_vote=self.config.pre_vote,
                gather_reads=True,
            )
        )

    def _opened(
        self,
        wal: Wal,
        node: Node,
        backend: Backend,
        cluster: Membership,
        position: Position,
        members: Sequence[Member],
        remotes: Sequence[Member],
    ) -> Opened:
        local_id = cluster.local_id
        return Opened(
            local_id,
            cluster.cluster_id,
            backend,
            wal,
            node,
            self.storage,
            cluster,
            position,
            Snapshots(self.files, self.place.snap),
            self.files,
            self.place,
            self.executor,
            [member for member in members if member.id != local_id],
            [member for member in remotes if member.id != local_id],
        )


def _ids(cluster: Membership) -> dict[str, object]:
    return {"cluster-id": f"{cluster.cluster_id:x}", "local-member-id": f"{cluster.local_id:x}"}


def _conf_state(cluster: Membership) -> ConfState:
    voters = tuple(member.id for member in cluster.voters())
    learners = tuple(member.id for member in cluster.learners())
    return ConfState(voters=voters, learners=learners)


def check_contents(backend: Backend) -> None:
    """CannotOpen where this version does not know what to do with what is in the database."""
    stored = storage_version(backend)
    try:
        if stored is not None:
            check_storage_version(Version(*stored))
    except UnknownStorage as error:
        raise CannotOpen(f"{backend.path}: {error}") from None


def _adds(entry: Entry, id: int) -> bool:
    try:
        change = conf_change_of(entry).as_v2()
    except InvalidMessage:
        return False
    return any(single.node_id == id for single in change.changes)
