"""The commands of etcdctl, their flags and help texts. What they do is imported only when they are called."""

from __future__ import annotations

from pyetcd.cli.command import Command
from pyetcd.cli.completion import completion_command
from pyetcd.cli.etcdctl.tree_auth import auth_command, role_command, user_command
from pyetcd.cli.etcdctl.tree_parts import later, parent
from pyetcd.cli.etcdctl.tree_recipes import (
    check_command,
    elect_command,
    lock_command,
    make_mirror_command,
    snapshot_command,
)
from pyetcd.cli.flag import Flag, number, span, switch, text

GROUPS = (
    ("kv", "Key-value commands"),
    ("maintenance", "Cluster maintenance commands"),
    ("concurrency", "Concurrency commands"),
    ("auth", "Authentication commands"),
    ("utility", "Utility commands"),
)
FORMATS = ("fields", "json", "protobuf", "simple", "table", "yaml")
FORMATS_NAMED = "output format: fields, json, protobuf, simple, table or yaml"
FOOTER = 'Use "etcdctl options" for a list of global command-line options (applies to all commands).\n'


def help_of(command: Command) -> str:
    from pyetcd.cli.usage import help_text

    return help_text(command, FOOTER)


def global_flags() -> list[Flag]:
    flags = [
        Flag("endpoints", "strings", ["127.0.0.1:2379"], "the members to talk to, separated by commas"),
        switch("debug", "print all settings to stderr"),
        text("write-out", "simple", FORMATS_NAMED, "w", FORMATS),
        switch("hex", "print keys, values and IDs in hexadecimal"),
        span("dial-timeout", 2, "how long one attempt to connect may take"),
        span("command-timeout", 5, "how long a short command may take, connecting included"),
        span("keepalive-time", 2, "pause between keepalive pings"),
        span("keepalive-timeout", 6, "how long a keepalive ping may stay unanswered"),
        number("max-request-bytes", "largest request in bytes (0: 2 MiB)"),
        number("max-recv-bytes", "largest answer in bytes (0: no limit)"),
        switch("insecure-transport", "speak plaintext unless certificates are given", on=True),
        switch("insecure-discovery", "accept plaintext endpoints from SRV records", on=True),
        switch("insecure-skip-tls-verify", "accept any server certificate (for tests only)"),
        text("cert", "", "file with the client's TLS certificate"),
        text("key", "", "file with the client's TLS key"),
        text("cacert", "", "file with the CA certificates that servers are checked against"),
        text("auth-jwt-token", "", "authenticate with this JWT; excludes --user and --password"),
        text("user", "", "name[:password] to authenticate with; asks for a password that is not given"),
        text("password", "", "password for --user, which then must not contain one"),
        text("discovery-srv", "", "domain whose SRV records name the endpoints", "d"),
        text("discovery-srv-name", "", "service name for --discovery-srv"),
    ]
    for flag in flags:
        flag.hidden = True
    return flags


def root() -> Command:
    """The whole tree, fresh: flags keep what they are set to."""
    commands = [  # in the order in which they are suggested
        get_command(),
        put_command(),
        del_command(),
        txn_command(),
        compaction_command(),
        alarm_command(),
        defrag_command(),
        endpoint_command(),
        top_command(),
        move_leader_command(),
        watch_command(),
        Command("version", "Show etcdctl's version", later("about", "version"), group="utility"),
        lease_command(),
        member_command(),
        snapshot_command(),
        make_mirror_command(),
        lock_command(),
        elect_command(),
        auth_command(),
        user_command(),
        role_command(),
        check_command(),
        completion_command("etcdctl", later("about", "completion"), "utility"),
        downgrade_command(),
        Command("options", "List the global flags", later("about", "options"), group="utility"),
        Command(
            "help [command]",
            "Explain a command",
            later("about", "help_on"),
            long="Explain a command; `etcdctl help [path to command]` is `etcdctl [path to command] --help`.",
            group="utility",
        ),
    ]
    return Command(
        "etcdctl",
        "The command-line client of etcd.",
        persistent=global_flags(),
        commands=commands,
        groups=GROUPS,
        hide_help=True,
    )


def get_command() -> Command:
    return Command(
        "get [options] <key> [range_end]",
        "Read a key or a range of keys",
        later("kv", "get"),
        group="kv",
        flags=[
            text("consistency", "l", "linearizable (l) or serializable (s)"),
            text("order", "", "ASCEND or DESCEND (ASCEND if only --sort-by is given)"),
            text("sort-by", "", "CREATE, KEY, MODIFY, VALUE or VERSION"),
            number("limit", "most keys to return"),
            switch("prefix", "all keys that begin with <key>"),
            switch("from-key", "all keys from <key> on, in byte order"),
            number("rev", "read the store as it was at this revision"),
            switch("keys-only", "leave the values out"),
            switch("count-only", "only count the keys"),
            switch("print-value-only", "print values without their keys (simple format)"),
            number("min-create-rev", "leave out keys created before this revision"),
            number("max-create-rev", "leave out keys created after this revision"),
            number("min-mod-rev", "leave out keys last changed before this revision"),
            number("max-mod-rev", "leave out keys last changed after this revision"),
            switch("stream", "fetch the range in pieces (RangeStream)"),
            switch("history", "show the key's revisions, as far back as they are kept, newest first"),
            text("decode", "", "show values as the objects they hold: k8s (Kubernetes)", choices=("k8s",)),
        ],
    )


def put_command() -> Command:
    return Command(
        "put [options] <key> <value> (<value> can also be given from stdin)",
        "Set a key",
        later("kv", "put"),
        long="""Set a key.

A value that begins with '-' looks like a flag. Put '--' before it:

$ put <key> -- <value>
$ put -- <key> <value>

Without <value> and --ignore-value, the value is read from standard input:

$ cat file | put <key>
""",
        group="kv",
        flags=[
            text("lease", "0", "lease (ID in hexadecimal) to attach the key to"),
            switch("prev-kv", "return the key as it was before"),
            switch("ignore-value", "keep the key's present value"),
            switch("ignore-lease", "keep the key's present lease"),
        ],
    )


def del_command() -> Command:
    return Command(
        "del [options] <key> [range_end]",
        "Delete a key or the range [key, range_end)",
        later("kv", "delete"),
        group="kv",
        flags=[
            switch("prefix", "all keys that begin with <key>"),
            switch("prev-kv", "return the deleted keys"),
            switch("from-key", "all keys from <key> on, in byte order"),
            switch("range", "delete a range without the pause to think it over"),
        ],
    )


def txn_command() -> Command:
    return Command(
        "txn [options]",
        "Do several requests as one transaction",
        later("txn", "txn"),
        long="""Do several requests as one transaction, read from standard input.

First come conditions, then requests to do if all of them hold, then requests to do otherwise;
each list ends with an empty line:

etcdctl txn --interactive
compares:
mod("key1") > "0"

success requests (get, put, del):
put key1 "changed"

failure requests (get, put, del):
put key1 "created"
put key2 "another"
""",
        group="kv",
        flags=[switch("interactive", "ask for each part", "i")],
    )


def watch_command() -> Command:
    return Command(
        "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
        "Follow the changes of keys",
        later("watch", "watch"),
        group="kv",
        flags=[
            switch("interactive", "read watch and progress commands from standard input", "i"),
            switch("prefix", "all keys that begin with the key"),
            number("rev", "the first revision to report"),
            switch("prev-kv", "show each key as it was before the change too"),
            switch("progress-notify", "report now and then how far the watch has come"),
        ],
    )


def compaction_command() -> Command:
    return Command(
        "compaction [options] <revision>",
        "Forget the history before a revision",
        later("kv", "compaction"),
        group="kv",
        flags=[switch("physical", "wait until the old revisions are gone from disk")],
    )


def lease_command() -> Command:
    keys = switch("keys", "list the keys attached to the lease")
    once = switch("once", "renew once and return")
    return parent(
        "lease",
        "Grant, renew and revoke leases",
        "kv",
        [
            Command("grant <ttl>", "Create a lease of <ttl> seconds", later("lease", "grant")),
            Command("revoke <leaseID>", "End a lease and delete its keys", later("lease", "revoke")),
            Command(
                "timetolive <leaseID> [options]",
                "Show how long a lease still lives",
                later("lease", "time_to_live"),
                flags=[keys],
            ),
            Command("list", "List all leases", later("lease", "leases")),
            Command(
                "keep-alive [options] <leaseID>",
                "Renew a lease until interrupted",
                later("lease", "keep_alive"),
                flags=[once],
            ),
        ],
    )


def alarm_command() -> Command:
    return parent(
        "alarm",
        "List and disarm alarms",
        "maintenance",
        [
            Command("disarm", "Disarm all alarms", later("maintenance", "alarm_disarm")),
            Command("list", "List all alarms", later("maintenance", "alarm_list")),
        ],
    )


def _cluster_flag() -> Flag:
    return switch("cluster", "ask all members of the cluster, as its member list names them")


def defrag_command() -> Command:
    return Command(
        "defrag",
        "Give free space of the members' databases back to the file system",
        later("maintenance", "defragment"),
        group="maintenance",
        persistent=[_cluster_flag()],
    )


def endpoint_command() -> Command:
    return parent(
        "endpoint",
        "Ask each endpoint for its state",
        "maintenance",
        [
            Command(
                "health",
                "Check that the endpoints serve requests",
                later("maintenance", "endpoint_health"),
            ),
            Command(
                "status",
                "Show version, size, role and raft position of the endpoints",
                later("maintenance", "endpoint_status"),
                long="""Show version, size, role and raft position of the endpoints.

The simple format has one line for each endpoint: endpoint, ID, version, storage version, db size, in use,
percentage not in use, quota, is leader, is learner, raft term, raft index, raft applied index, errors,
downgrade target version, downgrade enabled.
""",
            ),
            Command(
                "hashkv",
                "Show the hash of the endpoints' key history",
                later("maintenance", "endpoint_hash_kv"),
                persistent=[number("rev", "hash up to this revision (default: the latest)")],
            ),
        ],
        [_cluster_flag()],
    )


def top_command() -> Command:
    return Command(
        "top",
        "Watch what the cluster is doing",
        later("top", "top"),
        long="""Watch what the cluster is doing: who leads, how much is read and written, how long reads take,
how large the databases are, which prefixes change most. It ends with q or Ctrl-C.

Reads and writes are known where the endpoints serve their metrics. The prefixes come from a watch on
all keys, to which the server sends all changes; --prefixes=false does without.
""",
        group="maintenance",
        flags=[
            span("interval", 2, "pause between two looks"),
            switch("once", "print one view after one interval, and end"),
            switch("prefixes", "watch all keys for the prefixes that change most", on=True),
            number("depth", "parts of a key, as / separates them, that make up its prefix", 2),
            _cluster_flag(),
        ],
        whole_name=True,  # `t` is txn in etcdctl
    )


def move_leader_command() -> Command:
    return Command(
        "move-leader <transferee-member-id>",
        "Have another member lead",
        later("members", "move_leader"),
        group="maintenance",
    )


def downgrade_command() -> Command:
    return parent(
        "downgrade",
        "Take the cluster down to the minor version before",
        "maintenance",
        [
            Command(
                "validate <TARGET_VERSION>",
                "Ask whether a downgrade could be enabled now",
                later("maintenance", "downgrade_validate"),
            ),
            Command(
                "enable <TARGET_VERSION>",
                "Have the cluster go down, so that members of that version may take over",
                later("maintenance", "downgrade_enable"),
            ),
            Command(
                "cancel", "Call off a downgrade that is enabled", later("maintenance", "downgrade_cancel")
            ),
        ],
    )


def member_command() -> Command:
    learner = switch("learner", "add it as a learner, which does not vote")
    return parent(
        "member",
        "List and change the members of the cluster",
        "maintenance",
        [
            Command(
                "add <memberName> [options]",
                "Add a member",
                later("members", "add"),
                flags=[text("peer-urls", "", "the new member's peer URLs, separated by commas"), learner],
            ),
            Command("remove <memberID>", "Remove a member", later("members", "remove")),
            Command(
                "update <memberID> [options]",
                "Change a member's peer URLs",
                later("members", "update"),
                flags=[text("peer-urls", "", "the member's new peer URLs, separated by commas")],
            ),
            Command(
                "list",
                "List the members",
                later("members", "list_members"),
                long="""List the members.

The simple format has one line for each member: ID, status, name, peer addresses, client addresses,
is learner.
""",
                flags=[text("consistency", "l", "linearizable (l) or serializable (s)")],
            ),
            Command("promote <memberID>", "Make a learner a voter", later("members", "promote")),
        ],
    )
