"""The database as pages: both meta pages, everything the newer one reaches, checksums, the freelist."""

from __future__ import annotations

from typing import Final

from pyetcd.cli import gotext
from pyetcd.cli.etcdutl.checks.findings import Report
from pyetcd.storage.bolt.meta import Meta
from pyetcd.storage.files import Files
from pyetcd.storage.inspection import BadPage, Inspection, Visit, Walked

RESTORE: Final = (
    "Do not start a member on it. With other members in good health, remove this one from the cluster and "
    "add it again with an empty directory; else restore the last good snapshot (etcdutl snapshot restore)."
)


def check_pages(report: Report, inspected: Inspection) -> bool:
    """Whether all pages are good, so that what they hold can be looked at."""
    path, meta = inspected.path, inspected.meta
    _check_metas(report, inspected)
    needed = meta.high_water * meta.page_size
    whole = inspected.file_size >= needed
    if not whole:
        ends = f"it ends at byte {inspected.file_size}, the database has {needed} bytes"
        report.damage(path, f"the file is truncated: {ends}", RESTORE)
    problems: list[BadPage] = []

    def on_problem(problem: BadPage) -> None:
        problems.append(problem)
        where = f"page {problem.page} at offset {problem.page * meta.page_size}"
        report.damage(path, f"{where}: {problem.reason}", RESTORE, "pages that are damaged")

    walked = inspected.walk(on_problem, _nothing)
    if walked.has_freelist:
        _check_freelist(report, path, walked, bool(problems))
    used = walked.used_count
    size, in_use = meta.high_water * meta.page_size, used * meta.page_size
    proof = "checksums" if inspected.sums is not None else "structure only: no checksums for this state"
    report.fact("database", "path", path)
    report.fact("database", "size bytes", size)
    report.fact("database", "in use bytes", in_use)
    report.fact("database", "pages", meta.high_water)
    report.fact("database", "pages in use", used)
    report.fact("database", "page size", meta.page_size)
    report.fact("database", "transaction", meta.txid)
    report.fact("database", "proved by", proof)
    if size - in_use > size // 2 and size > 64 << 20:
        free = gotext.bytes_size(size - in_use)
        report.note(path, f"{free} of it are free pages", "Give them back: etcdutl defrag or etcdctl defrag.")
    return whole and not problems


def _nothing(visit: Visit) -> None:
    return


def _check_metas(report: Report, inspected: Inspection) -> None:
    for number, each in enumerate(inspected.metas):
        if isinstance(each, Meta):
            continue
        report.warn(
            inspected.path,
            f"meta page {number} is not valid ({each}); the other one counts",
            "A write that a crash cut short leaves this; the next commit writes it anew. Without a crash, "
            "look at the disk.",
        )


def _check_freelist(report: Report, path: str, walked: Walked, has_problems: bool) -> None:
    """Only where the file has one: etcd's has none. Pages below a damaged one are in use, unseen."""
    for number in sorted(walked.free):
        if not 2 <= number < len(walked.kinds):
            problem = f"page {number} is called free and lies outside"
            report.damage(path, problem, RESTORE, "free pages outside")
        elif walked.kinds[number]:
            problem = f"page {number} is in use and called free"
            report.damage(path, problem, RESTORE, "pages in use called free")
    if has_problems:
        return
    lost = [number for number, kind in enumerate(walked.kinds) if not kind and number not in walked.free]
    if lost:
        report.warn(
            path,
            f"{len(lost)} pages are neither in use nor on the freelist, from page {lost[0]} on",
            "They are lost space: etcdutl defrag gives it back.",
        )


def open_pages(report: Report, files: Files, path: str) -> Inspection:
    """The file for looking at. The errors of `Inspection.open`."""
    inspected = Inspection.open(files, path)
    sums = path + ".sum"
    if inspected.sums is None and files.exists(sums):
        report.note(
            sums,
            "is of another state of the database, as after etcd has written it",
            "The next start of pyetcd gathers the checksums anew.",
        )
    return inspected
