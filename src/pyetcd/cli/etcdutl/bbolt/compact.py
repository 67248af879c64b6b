"""`compact`: a database copied into a new file without its free pages (`storage.packing`)."""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.command import ArgumentError, Invocation
from pyetcd.cli.etcdutl.bbolt.opened import size_of_source, whole
from pyetcd.cli.etcdutl.bbolt.texts import line
from pyetcd.cli.etcdutl.places import said
from pyetcd.storage.files import OsFiles
from pyetcd.storage.packing import TooDeep, pack


def compact(call: Invocation) -> None:
    target, files = call.text("output"), OsFiles()
    if not target:
        raise ArgumentError("output file required")
    before = size_of_source(call.args[0])
    with whole(call) as source:
        if files.exists(target) and files.file_size(target):
            raise ArgumentError(f"output file {gotext.quote(target)} already exists")
        try:
            after = pack(files, source, target, sync=not call.on("no-sync"))
        except OSError as error:
            raise ArgumentError(said("open", target, error)) from None
        except TooDeep as error:
            raise ArgumentError(str(error)) from None
    line(f"{before} -> {after} bytes (gain={before / after:.2f}x)")
