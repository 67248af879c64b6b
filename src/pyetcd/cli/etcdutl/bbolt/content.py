"""`check`, `buckets`, `keys`, `get`, `info`, `inspect`, `stats`: what the newer meta page reaches."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from pyetcd.cli import gotext
from pyetcd.cli.command import ArgumentError, Invocation
from pyetcd.cli.etcdutl.bbolt.opened import whole
from pyetcd.cli.etcdutl.bbolt.texts import formatted, given, line, parsed, text
from pyetcd.storage.bolt import page
from pyetcd.storage.inspection import BadPage, Inspection, Visit

Names = tuple[bytes, ...]
"""The names on the way to a bucket; of the root, none."""


def check(call: Invocation) -> None:
    start = call.number("from-page")
    with whole(call) as inspected:
        problems: list[str] = []
        if start and not 2 <= start < inspected.meta.high_water:
            problems.append(f"page ID ({start}) out of range [2, {inspected.meta.high_water})")
        else:
            problems += _problems(inspected, start or None)
        for problem in problems:
            line(problem)
        if problems:
            line(f"{len(problems)} errors found")
            raise ArgumentError("invalid value")
        line("OK")


def _problems(inspected: Inspection, start: int | None) -> list[str]:
    problems: list[str] = []
    walked = inspected.walk(lambda problem: problems.append(str(problem)), _nothing, start)
    if start is not None:
        used = inspected.walk(lambda problem: None, _nothing).kinds
        reached = (number for number, kind in enumerate(walked.kinds) if kind and not used[number])
        return [f"page {number}: reachable freed" for number in reached] + problems
    for number in sorted(walked.free):
        if number >= len(walked.kinds):
            problems.append(f"page {number}: out of bounds: {len(walked.kinds)}")
        elif walked.kinds[number]:
            problems.append(f"page {number}: reachable freed")
    if walked.has_freelist and not problems:
        problems += [
            f"page {number}: unreachable unfreed"
            for number, kind in enumerate(walked.kinds)
            if not kind and number not in walked.free
        ]
    return problems


def buckets(call: Invocation) -> None:
    with whole(call) as inspected:
        for name in sorted(_walk(inspected, _nothing)):
            if len(name) == 1:
                line(text(name[0]))


def keys(call: Invocation) -> None:
    with whole(call) as inspected:
        for key, _, _ in _rows(inspected, call.args[1:]):
            line(formatted(key, call.text("format")))


def get(call: Invocation) -> None:
    *names, written = call.args[1:]
    key = parsed(written, call.text("parse-format"))
    if not key:
        raise ArgumentError("key is required: key required")
    with whole(call) as inspected:
        for found, value, flag in _rows(inspected, names):
            if found == key and not flag:
                line(formatted(value, call.text("format")))
                return
    raise ArgumentError(f'Error key not found for key: {gotext.quote(key)} hex: "{key.hex()}"')


def info(call: Invocation) -> None:
    with whole(call) as inspected:
        line(f"Page Size: {inspected.page_size}")


def inspect(call: Invocation) -> None:
    with whole(call) as inspected:
        counts: dict[Names, int] = {(): 0}

        def note(visit: Visit) -> None:
            counts[visit.bucket] = counts.get(visit.bucket, 0) + list(visit.flags).count(0)

        nested: dict[Names, list[Names]] = {}
        for name in sorted(_walk(inspected, note)):
            nested.setdefault(name[:-1], []).append(name)
        line(_structure((), counts, nested, 0))


def _structure(names: Names, counts: dict[Names, int], nested: dict[Names, list[Names]], depth: int) -> str:
    """A bucket and those in it, as JSON over several lines."""
    indent = "    " * depth
    name = gotext.json_string(text(names[-1]) if names else "root")
    lines = f'{{\n{indent}    "name": {name},\n{indent}    "keyN": {counts.get(names, 0)}'
    if names in nested:
        below = (f"{indent}        {_structure(each, counts, nested, depth + 2)}" for each in nested[names])
        lines += f',\n{indent}    "buckets": [\n' + ",\n".join(below) + f"\n{indent}    ]"
    return f"{lines}\n{indent}}}"


@dataclass(slots=True)
class Statistics:
    """Of buckets; bytes and numbers. Bytes in use are those of headers, elements, keys and values."""

    buckets: int = 0
    inline_buckets: int = 0
    inline_bytes: int = 0
    keys: int = 0
    depth: int = 0
    branches: int = 0
    branch_overflows: int = 0
    branch_bytes: int = 0
    leaves: int = 0
    leaf_overflows: int = 0
    leaf_bytes: int = 0

    def add(self, other: Statistics) -> None:
        """Sums, but for the depth, which is that of the deeper."""
        depth = max(self.depth, other.depth)
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))
        self.depth = depth


def stats(call: Invocation) -> None:
    prefix = given(call.args[1]) if len(call.args) > 1 else b""
    with whole(call) as inspected:
        found: dict[Names, Statistics] = {}

        def note(visit: Visit) -> None:
            if visit.bucket:
                _count(found.setdefault(visit.bucket, Statistics()), visit)

        roots = _walk(inspected, note)
        chosen = [name for name in roots if len(name) == 1 and name[0].startswith(prefix)]
        _add_nested(roots, found)
        total = Statistics()
        for name in chosen:
            total.add(found[name])
        _print(total, len(chosen), inspected.page_size)


def _count(of: Statistics, visit: Visit) -> None:
    """A page of one bucket."""
    view = visit.view
    of.depth = max(of.depth, visit.depth)
    if view.kind == page.BRANCH:
        of.branches += 1
        of.branch_overflows += view.overflow
        of.branch_bytes += view.used_bytes
        return
    of.keys += view.count
    if view.id == 0:
        of.inline_bytes += view.used_bytes
    else:
        of.leaves += 1
        of.leaf_overflows += view.overflow
        of.leaf_bytes += view.used_bytes


def _add_nested(roots: dict[Names, int], found: dict[Names, Statistics]) -> None:
    """Each bucket's become its own with those of the buckets in it, which lie deeper by its own depth."""
    below: dict[Names, Statistics] = {}
    for name in sorted(roots, key=len, reverse=True):
        own = found.setdefault(name, Statistics())
        own.buckets += 1
        own.inline_buckets += roots[name] == 0
        if name in below:
            nested = below[name]
            own.depth += nested.depth
            own.add(nested)
        below.setdefault(name[:-1], Statistics()).add(own)


def _print(of: Statistics, count: int, page_size: int) -> None:
    branch_bytes = (of.branches + of.branch_overflows) * page_size
    leaf_bytes = (of.leaves + of.leaf_overflows) * page_size
    line(f"Aggregate statistics for {count} buckets\n")
    line("Page count statistics")
    line(f"\tNumber of logical branch pages: {of.branches}")
    line(f"\tNumber of physical branch overflow pages: {of.branch_overflows}")
    line(f"\tNumber of logical leaf pages: {of.leaves}")
    line(f"\tNumber of physical leaf overflow pages: {of.leaf_overflows}")
    line("Tree statistics")
    line(f"\tNumber of keys/value pairs: {of.keys}")
    line(f"\tNumber of levels in B+tree: {of.depth}")
    line("Page size utilization")
    line(f"\tBytes allocated for physical branch pages: {branch_bytes}")
    line(f"\tBytes actually used for branch data: {_with_share(of.branch_bytes, branch_bytes)}")
    line(f"\tBytes allocated for physical leaf pages: {leaf_bytes}")
    line(f"\tBytes actually used for leaf data: {_with_share(of.leaf_bytes, leaf_bytes)}")
    line("Bucket statistics")
    line(f"\tTotal number of buckets: {of.buckets}")
    line(f"\tTotal number on inlined buckets: {_with_share(of.inline_buckets, of.buckets)}")
    line(f"\tBytes used for inlined buckets: {_with_share(of.inline_bytes, of.leaf_bytes)}")


def _with_share(part: int, whole_of: int) -> str:
    """With how much of the whole it is, worked out in single precision and cut off, as bbolt does."""
    percent = int(_single(_single(_single(part) * 100) / _single(whole_of))) if whole_of else 0
    return f"{part} ({percent}%)"


def _single(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


def _rows(inspected: Inspection, names: Sequence[str]) -> list[tuple[bytes, bytes, int]]:
    """What a bucket holds, in order. ArgumentError where there is no such bucket."""
    wanted = tuple(map(given, names))
    found: list[tuple[bytes, bytes, int]] = []

    def note(visit: Visit) -> None:
        if visit.bucket == wanted and visit.view.kind == page.LEAF:
            found.extend(zip(visit.keys, visit.values, visit.flags, strict=True))

    if wanted not in _walk(inspected, note):
        raise ArgumentError("bucket not found")
    return found


def _walk(inspected: Inspection, note: Callable[[Visit], None]) -> dict[Names, int]:
    return inspected.walk(_raised, note).roots


def _raised(problem: BadPage) -> None:
    raise problem


def _nothing(visit: Visit) -> None:
    return
