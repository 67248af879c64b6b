"""`check`: whether a stopped member's data directory is sound, told with advice. It only ever reads.

The database is held under a shared lock meanwhile, as `snapshot status` holds it: a member that runs has the
exclusive one, and is left alone. Nothing else is locked, and no file is opened for writing, not even one of
those that a start would repair. The exit code is 1 where anything is damaged, or cannot be looked at.
"""

from __future__ import annotations

import json
import sys
from typing import Final

from pyetcd.cli.command import Invocation
from pyetcd.cli.etcdutl import log_setup
from pyetcd.cli.etcdutl.checks.buckets import Contents, check_buckets
from pyetcd.cli.etcdutl.checks.findings import DAMAGE, Finding, Report
from pyetcd.cli.etcdutl.checks.history import check_history
from pyetcd.cli.etcdutl.checks.log import LogState, check_entries, check_log, check_snap_files
from pyetcd.cli.etcdutl.checks.pages import RESTORE, check_pages, open_pages
from pyetcd.cli.etcdutl.checks.together import check_together
from pyetcd.cli.etcdutl.output import chosen_format
from pyetcd.cli.etcdutl.places import check_is_there, join, patiently, reason, said
from pyetcd.cli.exits import BAD_FEATURE, ERROR, Exit
from pyetcd.cluster.datadir import DataDir
from pyetcd.storage.bolt import Database, DatabaseError, DatabaseLocked
from pyetcd.storage.files import Files, OsFiles
from pyetcd.storage.wal import exists

FORMATS: Final = ("json", "simple")
IN_USE: Final = "the database is in use: a member runs on it. Stop it, or check a snapshot of it"


def check(call: Invocation) -> None:
    output = chosen_format(call)
    if output not in FORMATS:
        raise Exit(BAD_FEATURE, f"{output} not supported as output format")
    files: Files = OsFiles()
    place = DataDir(join(call.text("data-dir")), call.text("wal-dir"))
    missing = check_is_there(files, place.snap)
    if missing is not None:
        raise Exit(ERROR, missing)
    log_setup.to_nowhere()
    try:
        report = look_at(files, place, call.number("timeout"))
    except DatabaseLocked:
        raise Exit(ERROR, IN_USE) from None
    except OSError as error:
        raise Exit(ERROR, said("open", error.filename or place.path, error)) from None
    sys.stdout.write(as_json(report, place) if output == "json" else as_text(report))
    if not report.is_sound:
        raise Exit(ERROR, f"{place.path} is damaged" if output == "simple" else None)


def look_at(files: Files, place: DataDir, timeout_ns: int) -> Report:
    """Everything in turn. DatabaseLocked where a member runs; OSError."""
    report = Report()
    contents: Contents | None = None
    has_database = files.exists(place.database) and files.file_size(place.database) > 0
    has_log = exists(files, place.wal)
    if not has_database and not has_log:
        report.damage(place.path, "there is neither a database nor a log in it", "Is it the right directory?")
        return report
    log: LogState | None = None
    if has_database:
        contents = _database(report, files, place, timeout_ns)
    else:
        problem = "there is no database, or an empty one"
        report.warn(
            place.database, problem, "A start makes it anew where the log reaches back to the beginning."
        )
    if has_log:
        log = check_log(report, files, place.wal)
    else:
        advice = "Put the log back (--wal-dir?), or restore a snapshot elsewhere."
        report.damage(place.wal, "there is no log, without which no member starts on the database", advice)
    check_snap_files(report, files, place.snap)
    _leftovers(report, files, place)
    if contents is not None and log is not None:
        check_together(report, files, place, contents, log)
    elif log is not None and not has_database:
        check_entries(report, place.wal, log, 0)
        if log.marker.index:
            problem = f"the log begins behind index {log.marker.index}, and the database is gone"
            report.damage(place.path, problem, RESTORE)
    report.close()
    return report


def _database(report: Report, files: Files, place: DataDir, timeout_ns: int) -> Contents | None:
    """None where its pages are damaged, so that its contents say nothing."""
    path = place.database
    try:
        inspected = patiently(lambda: open_pages(report, files, path), timeout_ns)
    except DatabaseLocked:
        raise
    except DatabaseError as error:
        report.damage(path, reason(error), RESTORE)
        return None
    try:
        if not check_pages(report, inspected):
            return None
        try:
            database = Database.open(files, path, read_only=True)
        except DatabaseError as error:
            report.damage(path, reason(error), RESTORE)
            return None
        pin = database.pin()
        try:
            contents = check_buckets(report, pin)
            check_history(report, pin, contents.leases)
            return contents
        finally:
            pin.close()
            database.close()
    finally:
        inspected.close()


def _leftovers(report: Report, files: Files, place: DataDir) -> None:
    """What crashes and repairs leave: harmless, and good to know."""
    for directory in (place.snap, place.wal):
        if not files.exists(directory):
            continue
        for name in files.listdir(directory):
            path = f"{directory}/{name}"
            if name.endswith(".broken"):
                report.note(path, "a repair has put it aside", "Remove it once nobody wants to look at it.")
            elif directory == place.snap and name.startswith(("db.tmp", "tmp")):
                report.note(path, "work that was cut short has left it", "The next start removes it.")


def as_text(report: Report) -> str:
    """Facts first, then what was found, the worst last: there the eye rests."""
    lines: list[str] = []
    for part, facts in report.facts.items():
        lines.append(f"{part}:")
        lines += [f"  {name}: {_shown(value)}" for name, value in facts.items()]
    found = sorted(report.findings, key=_badness)
    for at, finding in enumerate(found, 1):
        lines.append(f"{finding.level.upper()} {finding.where}: {finding.problem}")
        if finding.advice and not (at < len(found) and found[at].advice == finding.advice):
            lines.append(f"  -> {finding.advice}")
    lines.append("sound" if report.is_sound else "DAMAGED")
    return "\n".join(lines) + "\n"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _badness(finding: Finding) -> int:
    return {"note": 0, "warning": 1, DAMAGE: 2}[finding.level]


def as_json(report: Report, place: DataDir) -> str:
    findings = [
        {"level": each.level, "where": each.where, "problem": each.problem, "advice": each.advice}
        for each in report.findings
    ]
    found = {
        "dataDir": place.path,
        "sound": report.is_sound,
        **{
            part: {_camel(name): value for name, value in facts.items()}
            for part, facts in report.facts.items()
        },
        "findings": findings,
    }
    return json.dumps(found, separators=(",", ":")) + "\n"


def _camel(name: str) -> str:
    first, *rest = name.split()
    return first + "".join(word.capitalize() for word in rest)
