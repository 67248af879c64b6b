"""`snapshot`, `lock`, `elect`, `make-mirror` and `check`: the commands, their flags and help texts."""

from __future__ import annotations

from pyetcd.cli.command import Command
from pyetcd.cli.etcdctl.tree_parts import later, parent
from pyetcd.cli.flag import Flag, number, switch, text, unsigned

LOADS = ("small", "medium", "large", "xLarge")


def snapshot_command() -> Command:
    save = Command(
        "save <filename>",
        "Write a member's database to a file",
        later("snapshot", "save"),
        long="""Write the database of one member, as it is now, to a file that etcdutl can restore.

Name the member with --endpoints. Without --command-timeout this takes as long as it takes.
""",
    )
    return parent("snapshot", "Make backups of a member", "maintenance", [save])


def lock_command() -> Command:
    return Command(
        "lock <lockname> [exec-command arg1 arg2 ...]",
        "Hold a lock while a program runs, or until interrupted",
        later("lock", "lock"),
        long="""Hold a lock while a program runs, or until interrupted.

The program finds the lock's key in ETCD_LOCK_KEY and its revision, which no later holder shares, in
ETCD_LOCK_REV. Its exit code becomes etcdctl's. Flags of the program go behind '--':

$ lock <lockname> -- <program> -f
""",
        group="concurrency",
        flags=[number("ttl", "after how many seconds the lock is free if its holder falls silent", 10)],
    )


def elect_command() -> Command:
    return Command(
        "elect <election-name> [proposal]",
        "Stand for an election, or watch it",
        later("elect", "elect"),
        long="""Stand for an election with a proposal and lead until interrupted, or watch who leads (-l).
""",
        group="concurrency",
        flags=[switch("listen", "show each leader, without standing", "l")],
    )


def make_mirror_command() -> Command:
    insecure = "speak plaintext unless certificates are given, to the destination"
    return Command(
        "make-mirror [options] <destination>",
        "Copy keys to another cluster, and all their changes",
        later("mirror", "make_mirror"),
        group="utility",
        flags=[
            text("prefix", "", "mirror only the keys that begin with this"),
            number("rev", "mirror the changes from this revision on, without the keys as they are now"),
            unsigned("max-txn-ops", 128, "most changes in one transaction at the destination"),
            text("dest-prefix", "", "what --prefix becomes at the destination"),
            switch("no-dest-prefix", "leave --prefix out at the destination"),
            text("dest-cert", "", "file with the client's TLS certificate, for the destination"),
            text("dest-key", "", "file with the client's TLS key, for the destination"),
            text("dest-cacert", "", "file with the CA certificates for the destination"),
            switch("dest-insecure-transport", insecure, on=True),
            text("dest-user", "", "name[:password] for the destination; asks for a missing password"),
            text("dest-password", "", "password for --dest-user, which then must not contain one"),
        ],
    )


def check_command() -> Command:
    def after() -> list[Flag]:
        return [
            switch("auto-compact", "compact the store afterwards"),
            switch("auto-defrag", "defragment the endpoints afterwards"),
        ]

    sizes = "s(mall), m(edium), l(arge) or xl (xLarge)"
    perf_prefix, scale_prefix = "/etcdctl-check-perf/", "/etcdctl-check-datascale/"
    perf = Command(
        "perf [options]",
        "Write for a minute at a given rate, and judge how that went",
        later("check_perf", "perf"),
        flags=[
            text("load", "s", f"{sizes}: how many clients, how many writes", choices=LOADS),
            text("prefix", perf_prefix, "where the keys are put; they are deleted afterwards"),
            *after(),
        ],
    )
    scale = Command(
        "datascale [options]",
        "Show how much memory a member needs for a given amount of data",
        later("check_datascale", "datascale"),
        long="""Show how much memory a member needs for a given amount of data.

It is the first of the endpoints whose memory is looked at.
""",
        flags=[
            text("load", "s", f"{sizes}: how many keys, how many clients", choices=LOADS),
            text("prefix", scale_prefix, "where the keys are put; they are deleted afterwards"),
            *after(),
        ],
    )
    return parent("check", "Try what a cluster can do", "utility", [perf, scale])
