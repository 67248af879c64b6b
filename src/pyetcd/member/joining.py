"""What a member has to ask of others before it can begin: the members of a cluster that runs already, or
whether a new one has begun without it.

Rules that hold here:

* Nothing is written here; the data directory is only looked at. `opening` makes the member of what is found.
* A member whose log has begun asks nobody: all that counts is in its log.
* Order, checks, log lines and texts are those of etcd's server/etcdserver/{bootstrap,cluster_util}.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import Final

from pyetcd import logs
from pyetcd.cluster import dns
from pyetcd.cluster.bootstrap import BadCluster, Beginning, NewCluster, new_cluster
from pyetcd.cluster.changes import check_learners
from pyetcd.cluster.datadir import DataDir
from pyetcd.cluster.members import Member
from pyetcd.cluster.same_urls import address_text, duplicate
from pyetcd.cluster.urls import Url, UrlError, cluster_text, parse_cluster, parse_url
from pyetcd.cluster.versions import LOWEST, SERVER, Version
from pyetcd.member import dns_members
from pyetcd.member.config import ServerConfig
from pyetcd.member.discovery import Discovery, DiscoveryFailed, RegistryError
from pyetcd.member.initial import Comparison, Initial, check_existing, check_new, discovers, from_flags, texts
from pyetcd.member.registry import EtcdRegistry
from pyetcd.peer.calls import (
    MEMBERS,
    BadClusterId,
    CallFailed,
    Calls,
    ClusterInfo,
    Requests,
    Versions,
)
from pyetcd.proto.errors import EtcdError
from pyetcd.raft import Entry
from pyetcd.storage import wal
from pyetcd.storage.files import Files

MEMBERS_SECONDS: Final = 10.0  # for one member to list the others
BOOTSTRAPPED_SECONDS: Final = 1.0  # the same, where nobody need answer
FIRST_RECORDS_BYTES: Final = 256 << 10  # a log that goes further has begun

_log = logs.get("member")


async def find_cluster(
    config: ServerConfig,
    files: Files,
    requests: Requests,
    executor: Executor,
    *,
    initial: Initial | None = None,
) -> Beginning | None:
    """How this member begins; None where its log knows. BadCluster, WalError, OSError.

    `initial` is what `find_initial` said, where that had to be known earlier."""
    if has_begun(files, config):
        if discovers(config):
            _log.warn(
                "discovery token is ignored since cluster already initialized; valid logs are found",
                {"wal-dir": config.effective_wal_dir},
            )
        return None
    joining = _Joining(config, Calls(requests), files, executor)
    if initial is None:
        initial = await find_initial(config, executor)
    if config.is_new_cluster:
        return await joining.new(initial)
    return await joining.existing(initial)


async def find_initial(config: ServerConfig, executor: Executor) -> Initial:
    """The first members, as the flags or DNS name them. BadCluster."""
    initial = from_flags(config)
    if initial is not None:
        return initial
    try:
        pairs = await _ask_dns(config, executor)
        text = ",".join(pairs)
        urls = parse_cluster(text)
        if pairs and config.name not in urls:
            raise BadCluster(f"cannot find local etcd member {logs.quote(config.name)} in SRV records")
    except (BadCluster, UrlError) as error:
        raise BadCluster(f"error setting up initial cluster: {error}") from None
    is_named = "https://" in text and not config.peer_tls.trusted_ca_file
    return Initial(urls, config.initial_cluster_token, config.discovery.srv if is_named else "")


async def _ask_dns(config: ServerConfig, executor: Executor) -> Sequence[str]:
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(
        executor,
        dns_members.members,
        config.discovery.srv,
        config.discovery.srv_name,
        config.name,
        config.initial_advertise_peer_urls,
        lambda name: dns.lookup(name, dns.name_servers()),
    )
    if found.failure:
        _log.warn("failed to resolve during SRV discovery", {"error": found.failure})
        if not found.pairs:
            raise BadCluster(found.failure)
    for pair in found.pairs:
        _log.info("got bootstrap from DNS for etcd-server", {"node": pair})
    return found.pairs


def has_begun(files: Files, config: ServerConfig) -> bool:
    """Whether there is a log with a hard state: see `opening`. WalError where it cannot be read."""
    directory = DataDir(config.data_dir, config.wal_dir).wal
    if not wal.exists(files, directory):
        return False
    segments = [name for name in files.listdir(directory) if name.endswith(".wal")]
    if len(segments) > 1 or _goes_on(files, f"{directory}/{segments[0]}"):
        return True
    return wal.read_only(files, directory, entry=Entry).hard_state is not None


def _goes_on(files: Files, path: str) -> bool:
    """Whether a segment has more than a first start writes."""
    fd = files.open(path)
    try:
        return any(files.pread(fd, 1 << 16, FIRST_RECORDS_BYTES))
    finally:
        files.close(fd)


class _Joining:
    """One member's way into its cluster."""

    def __init__(self, config: ServerConfig, calls: Calls, files: Files, executor: Executor) -> None:
        self._config = config
        self._calls = calls
        self._files = files
        self._executor = executor

    # A new cluster

    async def new(self, initial: Initial) -> Beginning:
        config = self._config
        await check_new(config, initial, self._resolve)
        cluster = new_cluster(texts(initial.urls), initial.token)
        local = cluster.named(config.name)
        if await self._is_bootstrapped(cluster, local):
            raise BadCluster(f"member {local.hex_id} has already been bootstrapped")
        if discovers(config):
            urls = await self._discover(local.id, cluster_text(initial.urls))
            cluster = new_cluster(texts(urls), initial.token)
        return Beginning(cluster, local.id)

    async def _discover(self, member_id: int, own: str) -> Mapping[str, Sequence[Url]]:
        """The members that have found each other. BadCluster."""
        _log.info("Bootstrapping cluster using v3 discovery.")
        discovery = self._config.discovery
        registry = EtcdRegistry(discovery, self._files, self._executor)
        try:
            try:
                await registry.connect()
            except RegistryError as error:
                raise DiscoveryFailed(str(error)) from None
            endpoints = ",".join(discovery.endpoints)
            text = await Discovery(registry, discovery.token, member_id, endpoints).join(own)
        except DiscoveryFailed as error:
            _log.warn(
                "failed to bootstrap; discovery token was already used",
                {
                    "discovery-token": discovery.token,
                    "discovery-endpoints": list(discovery.endpoints),
                    "error": str(error),
                },
            )
            _log.warn("do not reuse discovery token; generate a new one to bootstrap a cluster")
            raise
        finally:
            registry.close()
        urls = parse_cluster(text)
        if duplicate(urls):
            raise BadCluster(f"discovery cluster {cluster_text(urls)} has duplicate url")
        return urls

    async def _is_bootstrapped(self, cluster: NewCluster, local: Member) -> bool:
        """Whether others know this member as one that has served already: then its data is lost."""
        for url in _remote_urls(cluster.members, local):
            try:
                info = await self._calls.members(parse_url(url), BOOTSTRAPPED_SECONDS)
            except (CallFailed, UrlError):
                continue
            return any(member.id == local.id and member.client_urls for member in info.members)
        return False

    # A cluster that runs

    async def existing(self, initial: Initial) -> Beginning:
        config = self._config
        check_existing(config, initial)
        flagged = new_cluster(texts(initial.urls), initial.token)
        info = await self._ask_members(_remote_urls(flagged.members, flagged.named(config.name)))
        members = await self._assign_ids(flagged.members, info)
        local = NewCluster(info.id, members).named(config.name)
        await self._check_versions([member for member in members if member.id != local.id])
        try:
            check_learners(info.members, config.max_learners)
        except EtcdError:
            raise BadCluster("membership: too many learner members in cluster") from None
        return Beginning(
            NewCluster(info.id, members), local.id, is_new=False, remotes=sorted(info.members, key=_id)
        )

    async def _ask_members(self, urls: Iterable[str]) -> ClusterInfo:
        """The first answer there is."""
        failed = "cannot fetch cluster info from peer urls: "
        for url in urls:
            address = url + MEMBERS
            try:
                info = await self._calls.members(parse_url(url), MEMBERS_SECONDS)
            except BadClusterId as error:
                fields = {"address": address, "header": error.header, "error": str(error)}
                _log.warn("failed to parse cluster ID", fields)
            except (CallFailed, UrlError) as error:
                _log.warn("failed to get cluster response", {"address": address, "error": str(error)})
            else:
                if not info.members:
                    raise BadCluster(failed + "failed to get raft cluster member(s) from the given URLs")
                return info
        raise BadCluster(failed + "could not retrieve cluster information from the given URLs")

    async def _assign_ids(self, flagged: Sequence[Member], info: ClusterInfo) -> Sequence[Member]:
        """The members of the flags, each with the ID that the running cluster knows its URLs by."""
        existing = sorted(info.members, key=_id)
        problem = f"error validating peerURLs {_shown(info.id, existing)}: "
        if len(existing) != len(flagged):
            raise BadCluster(problem + "member count is unequal")
        comparison = Comparison(self._resolve)
        assigned = list(flagged)
        for member in existing:
            why: str | None = None
            for at, local in enumerate(flagged):
                why = await self._difference(comparison, member, local)
                if why is None:
                    assigned[at] = replace(local, id=member.id)
                    break
            else:
                urls = " ".join(member.peer_urls or ())
                raise BadCluster(
                    f"{problem}PeerURLs: no match found for existing member ({member.hex_id}, [{urls}]), "
                    f"last resolver error ({why})"
                )
        return sorted(assigned, key=_id)

    @staticmethod
    async def _difference(comparison: Comparison, member: Member, local: Member) -> str | None:
        try:
            theirs = [parse_url(text) for text in member.peer_urls or ()]
        except UrlError as error:
            return str(error)
        return await comparison.difference(theirs, [parse_url(text) for text in local.peer_urls or ()])

    async def _check_versions(self, others: Sequence[Member]) -> None:
        seconds = self._config.request_timeout_seconds
        versions = await self._calls.versions_of(others, seconds)
        lowest, highest = LOWEST, SERVER.of_cluster
        if await self._calls.is_downgrading(others, seconds):
            lowest = highest = Version(highest.major, highest.minor + 1)
        if not _are_compatible(versions, lowest, highest):
            raise BadCluster("incompatible with current running cluster")

    # Names

    async def _resolve(self, url: Url) -> str:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, _address_of, url)


def _address_of(url: Url) -> str:
    return address_text(dns.address(url.hostname, int(url.port or 0)), url.port)


def _remote_urls(members: Iterable[Member], local: Member) -> list[str]:
    return sorted(url for member in members if member.name != local.name for url in member.peer_urls or ())


def _are_compatible(versions: Mapping[int, Versions | None], lowest: Version, highest: Version) -> bool:
    """Whether somebody's cluster version is within the bounds, and nobody's is not."""
    found = False
    for id, theirs in versions.items():
        if theirs is None:
            continue
        remote = {"remote-member-id": f"{id:x}"}
        try:
            cluster = Version.parse(theirs.cluster)
        except ValueError as error:
            _log.warn(
                "failed to parse cluster version of remote member",
                {**remote, "remote-member-cluster-version": theirs.cluster, "error": str(error)},
            )
            continue
        remote["remote-member-cluster-version"] = str(cluster)
        if cluster < lowest:
            _log.warn(
                "cluster version of remote member is not compatible; too low",
                {**remote, "minimum-cluster-version-supported": str(lowest)},
            )
            return False
        if highest < cluster:
            _log.warn(
                "cluster version of remote member is not compatible; too high",
                {**remote, "maximum-cluster-version-supported": str(highest)},
            )
            return False
        found = True
    return found


def _shown(cluster_id: int, members: Iterable[Member]) -> str:
    """A cluster as Go prints it."""
    each = " ".join(
        f"&{{ID:{member.hex_id} RaftAttributes:{{PeerURLs:[{' '.join(member.peer_urls or ())}] "
        f"IsLearner:{'true' if member.is_learner else 'false'}}} "
        f"Attributes:{{Name:{member.name} ClientURLs:[{' '.join(member.client_urls)}]}}}}"
        for member in members
    )
    return f"{{ClusterID:{cluster_id:x} Members:[{each}] RemovedMemberIDs:[]}}"


def _id(member: Member) -> int:
    return member.id
