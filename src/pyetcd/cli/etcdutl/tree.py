"""The commands of etcdutl, their flags and help texts. What they do is imported only when they are called."""

from __future__ import annotations

from collections.abc import Callable

from pyetcd.cli import program
from pyetcd.cli.command import Command, Invocation, exactly_one
from pyetcd.cli.completion import completion_command
from pyetcd.cli.etcdutl.bbolt.commands import bbolt
from pyetcd.cli.flag import needed, number, span, switch, text, unsigned

DEFAULT_NAME = "default"
DEFAULT_PEER_URL = "http://localhost:2380"
DEFAULT_CLUSTER = f"{DEFAULT_NAME}={DEFAULT_PEER_URL}"
DEFAULT_TOKEN = "etcd-cluster"
DEFAULT_MAP_BYTES = 10 << 30  # what etcd maps; pyetcd maps what there is


def later(module: str, function: str) -> Callable[[Invocation], None]:
    return program.later("pyetcd.cli.etcdutl", module, function)


def root() -> Command:
    """The whole tree, fresh: flags keep what they are set to."""
    return Command(
        "etcdutl",
        "Works on etcd's files.",
        persistent=[
            span("timeout", 10, "how long to wait for the lock of a database file (0: for ever)"),
            text(
                "write-out",
                "simple",
                "output format: fields, json, protobuf, simple or table",
                "w",
                ("fields", "json", "protobuf", "simple", "table"),
            ),
        ],
        commands=[  # in the order in which they are suggested
            Command(
                "defrag",
                "Give free space of a stopped member's database back to the file system",
                later("defrag", "defrag"),
                flags=[needed("data-dir", "data directory of the member (required)")],
            ),
            _snapshot(),
            Command(
                "hashkv <filename>",
                "Show the hash of the key history in a database file",
                later("hashkv", "hash_kv"),
                flags=[number("rev", "hash up to this revision (default: the latest)")],
                check=exactly_one,
            ),
            Command(
                "check",
                "Tell whether a stopped member's data directory is sound; reads only",
                later("check", "check"),
                flags=[
                    needed("data-dir", "data directory of the member (required)"),
                    text("wal-dir", "", "directory of the log (default: within --data-dir)"),
                ],
            ),
            Command("version", "Show etcdutl's version", later("about", "version")),
            completion_command("etcdutl", later("about", "completion")),
            Command(
                "migrate",
                "Make a stopped member's data fit for another version of etcd",
                later("migrate", "migrate"),
                flags=[
                    needed("data-dir", "data directory of the member (required)"),
                    needed("target-version", "version to migrate to, as 3.6; 3.5 at least (required)"),
                    switch("force", "set the version even if the migration fails (not recommended)"),
                ],
            ),
            bbolt(),
            Command("help [command]", "Explain a command", later("about", "help_on")),
        ],
    )


def _snapshot() -> Command:
    return Command(
        "snapshot <subcommand>",
        "Look at snapshots and restore them",
        commands=[
            Command(
                "restore <filename> --data-dir {output dir} [options]",
                "Make a data directory for a new member from a snapshot",
                later("restore", "restore"),
                flags=[
                    text("data-dir", "", "directory to make (default: <name>.etcd)"),
                    text("wal-dir", "", "directory for the log (default: within --data-dir)"),
                    text("initial-cluster", DEFAULT_CLUSTER, "members of the new cluster"),
                    text("initial-cluster-token", DEFAULT_TOKEN, "token of the new cluster"),
                    text("initial-advertise-peer-urls", DEFAULT_PEER_URL, "this member's peer URLs"),
                    text("name", DEFAULT_NAME, "this member's name"),
                    switch("skip-hash-check", "accept a file without hash, as copied from a data directory"),
                    unsigned("initial-memory-map-size", DEFAULT_MAP_BYTES, "accepted, and not needed here"),
                    unsigned("bump-revision", 0, "by how much to raise the latest revision"),
                    switch("mark-compacted", "call the raised revision compacted; with --bump-revision"),
                ],
            ),
            Command(
                "status <filename>",
                "Show hash, revision, number of keys, size and version of a database file",
                later("snapshot_status", "status"),
            ),
        ],
    )
