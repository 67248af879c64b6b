"""`defrag`: a stopped member's database without its free pages (`storage.defrag`). It stays locked until the
end.

The file beside it with the pages' checksums (`db.sum`) belongs to the old pages and no longer counts: the new
file's meta page has no seal that would tie it to them. The next server gathers new ones.
"""

from __future__ import annotations

from pyetcd.cli.command import Invocation
from pyetcd.cli.etcdutl import log_setup
from pyetcd.cli.etcdutl.places import check_is_there, database_in, open_to_write, said
from pyetcd.cli.etcdutl.progress import Progress
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.storage.bolt import DatabaseError
from pyetcd.storage.defrag import defragment_now
from pyetcd.storage.files import OsFiles


def defrag(call: Invocation) -> None:
    directory = call.text("data-dir")
    failed = f"Failed to defragment etcd data[{directory}] ({{}})"
    files, path = OsFiles(), database_in(directory)
    missing = check_is_there(files, path)
    if missing is not None:
        raise Exit(ERROR, failed.format(missing))
    log_setup.to_console()
    backend = open_to_write(files, path, call)
    progress = Progress("copying the database", backend.size_bytes)
    try:
        defragment_now(files, backend, progress.reached)
    except DatabaseError as error:
        raise Exit(ERROR, failed.format(error)) from None
    except OSError as error:
        raise Exit(ERROR, failed.format(said("open", error.filename or path, error))) from None
    finally:
        progress.close()
        backend.discard()
