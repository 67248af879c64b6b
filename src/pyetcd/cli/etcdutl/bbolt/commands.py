"""The commands below `bbolt` and their flags, in the order in which bbolt's tool has them."""

from __future__ import annotations

from collections.abc import Callable

from pyetcd.cli import program
from pyetcd.cli.command import Command, Invocation, at_least, exactly, exactly_one, one_or_two
from pyetcd.cli.flag import Flag, needed, number, switch, text, unsigned

FORMATS = "auto, ascii-encoded, hex, bytes or redacted"
NO_EFFECT = "accepted, and not needed here"


def later(module: str, function: str) -> Callable[[Invocation], None]:
    return program.later("pyetcd.cli.etcdutl.bbolt", module, function)


def bbolt() -> Command:
    return Command(
        "bbolt",
        "Look into a database file, and mend copies of it",
        commands=[
            Command("version", "Print the version of bbolt that this follows", later("about", "version")),
            _surgery(),
            _one("inspect", "Print the buckets and how many keys they have, as JSON", "content"),
            _one(
                "check",
                "Check every page",
                "content",
                unsigned("from-page", 0, "check what this page reaches (0: the whole database)"),
            ),
            _one("buckets", "Print the buckets' names", "content"),
            _one("info", "Print the page size", "content"),
            Command(
                "compact [options] -o <dst-bbolt-file> <src-bbolt-file>",
                "Copy a database into a new file, without its free pages",
                later("compact", "compact"),
                flags=[
                    needed("output", "file to make (required)", shorthand="o"),
                    number("tx-max-size", NO_EFFECT, 65536),
                    switch("no-sync", "do not wait for the disk"),
                ],
                check=at_least(1),
            ),
            Command(
                "stats <bbolt-file> [prefix]",
                "Print how the pages of buckets are used",
                later("content", "stats"),
                check=one_or_two,
            ),
            _one("pages", "Print a line a page", "pages"),
            Command(
                "keys <bbolt-file> <buckets>",
                "Print the keys of a bucket",
                later("content", "keys"),
                flags=[text("format", "auto", f"of the keys: {FORMATS}", "f")],
                check=at_least(2),
            ),
            Command(
                "dump <bbolt-file> pageid [pageid...]",
                "Print pages in hexadecimal",
                later("pages", "dump"),
                check=at_least(2),
            ),
            Command(
                "page-item [options] <bbolt-file> pageid itemid",
                "Print a key and its value by their place on a page",
                later("pages", "page_item"),
                flags=[
                    switch("key-only", "print only the key"),
                    switch("value-only", "print only the value"),
                    text("format", "auto", f"of both: {FORMATS}"),
                ],
                check=exactly(3),
            ),
            Command(
                "page <bbolt-file> [pageid...]",
                "Print pages for people",
                later("pages", "page"),
                flags=[
                    switch("all", "print all pages"),
                    text("format-value", "auto", f"of values on leaf pages: {FORMATS}"),
                ],
                check=at_least(1),
            ),
            _bench(),
            Command(
                "get PATH [BUCKET..] KEY",
                "Print the value of a key",
                later("content", "get"),
                flags=[
                    text("parse-format", "ascii-encoded", "of the key: ascii-encoded or hex"),
                    text("format", "auto", f"of the value: {FORMATS}"),
                ],
                check=at_least(3),
            ),
        ],
    )


def _one(name: str, short: str, module: str, *flags: Flag) -> Command:
    """A command of one database file."""
    function = name.replace("-", "_")
    return Command(f"{name} <bbolt-file>", short, later(module, function), flags=flags, check=exactly_one)


def _surgery() -> Command:
    output = ("output", "file to make (required)")
    page_id = ("pageId", "page to clear (required)", "uint")
    return Command(
        "surgery <subcommand>",
        "Change pages of a copy by hand",
        commands=[
            _operation(
                "revert-meta-page", "Undo the last transaction", "revert_meta_page", needed(*output)
            ),
            _operation(
                "copy-page",
                "Put a page in the place of another",
                "copy_page",
                needed(*output),
                needed("from-page", "page to copy (required)", "uint"),
                needed("to-page", "page to replace (required)", "uint"),
            ),
            _operation(
                "clear-page",
                "Take everything off a branch or leaf page",
                "clear_page",
                needed(*output),
                needed(*page_id),
            ),
            _operation(
                "clear-page-elements",
                "Take some elements off a branch or leaf page",
                "clear_page_elements",
                needed(*output),
                needed(*page_id),
                needed("from-index", "first element to take off, from 0 (required)", "int"),
                needed("to-index", "element to stop at; -1: the end of the page (required)", "int"),
            ),
            Command(
                "freelist <subcommand>",
                "Which pages are free",
                commands=[
                    _operation(
                        "abandon", "Let the free pages be found anew", "abandon_freelist", needed(*output)
                    ),
                    _operation("rebuild", "Store the free pages", "rebuild_freelist", needed(*output)),
                ],
            ),
            Command(
                "meta <subcommand>",
                "The two meta pages",
                commands=[
                    _operation("validate", "Tell whether both are valid", "validate_meta"),
                    _operation(
                        "update",
                        "Set fields of one of them",
                        "update_meta",
                        needed(*output),
                        Flag("fields", "strings", [], "pageSize, root, freelist, pgid, each with :number"),
                        Flag("meta-page", "uint32", 0, "0 or 1"),
                    ),
                ],
            ),
        ],
    )


def _operation(name: str, short: str, function: str, *flags: Flag) -> Command:
    return Command(
        f"{name} <bbolt-file>", short, later("surgery", function), flags=flags, check=exactly_one
    )


def _bench() -> Command:
    return Command(
        "bench",
        "Measure writes and reads of a database of its own",
        later("bench", "bench"),
        flags=[
            text("profile-mode", "rw", NO_EFFECT),
            text("write-mode", "seq", "keys in order or not: seq or rnd"),
            text("read-mode", "seq", "keys in order or not: seq or rnd"),
            number("count", "keys to write", 1000),
            number("batch-size", "keys a transaction (0: all)"),
            number("key-size", "bytes", 8),
            number("value-size", "bytes", 32),
            text("cpuprofile", "", "Go's; no effect"),
            text("memprofile", "", "Go's; no effect"),
            text("blockprofile", "", "Go's; no effect"),
            text("fill-percent", "0.5", "part of a page that is filled when it is split"),
            switch("no-sync", "do not wait for the disk"),
            switch("work", "keep the database, and tell where it is"),
            text("path", "", "where the database is made (default: a temporary file)"),
            switch("gobench-output", "print as Go's benchmarks do"),
            number("page-size", "bytes; 4096 only", 4096),
            number("initial-mmap-size", NO_EFFECT),
        ],
    )
