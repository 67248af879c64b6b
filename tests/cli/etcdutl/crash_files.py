"""Files of a process that is killed, or whose disk fails, at some step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pyetcd.storage.files import Data, OsFiles


class Killed(BaseException):
    """The process is gone: what stands in its `except` and `finally` does not happen any more."""


class StepFiles(OsFiles):
    """Notes each step that changes what is on disk. At step `last` (None: never) `failure` is raised; with
    Killed no later step happens either, as nothing does in a process that is gone."""

    def __init__(self, last: int | None = None, failure: BaseException | None = None) -> None:
        self.steps: list[tuple[str, str]] = []
        self._last = last
        self._failure = failure or Killed()
        self._names: dict[int, str] = {}

    def _step(self, kind: str, name: str) -> None:
        is_at_end = self._last is not None and len(self.steps) >= self._last
        if is_at_end and (len(self.steps) == self._last or isinstance(self._failure, Killed)):
            if not isinstance(self._failure, Killed):
                self.steps.append(("failed", name))
            raise self._failure
        self.steps.append((kind, name))

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        exclusive: bool = False,
        truncate: bool = False,
    ) -> int:
        if create:
            self._step("create", path)
        fd = super().open(path, write=write, create=create, exclusive=exclusive, truncate=truncate)
        self._names[fd] = path
        return fd

    def pwrite(self, fd: int, data: Data, offset: int) -> None:
        self._step("write", self._names[fd])
        super().pwrite(fd, data, offset)

    def pwritev(self, fd: int, parts: Sequence[Data], offset: int) -> None:
        self._step("write", self._names[fd])
        super().pwritev(fd, parts, offset)

    def truncate(self, fd: int, length: int) -> None:
        self._step("truncate", self._names[fd])
        super().truncate(fd, length)

    def preallocate(self, fd: int, length: int) -> None:
        super().truncate(fd, length)  # quick, and as good here

    def fdatasync(self, fd: int) -> None:
        self._step("sync", self._names[fd])

    def fsync(self, fd: int) -> None:
        self._step("sync", self._names[fd])

    def fsync_dir(self, path: str) -> None:
        self._step("sync names", path)

    def rename(self, old: str, new: str) -> None:
        self._step("rename", new)
        super().rename(old, new)

    def unlink(self, path: str) -> None:
        self._step("unlink", path)
        super().unlink(path)

    def mkdir(self, path: str, *, parents: bool = False) -> None:
        self._step("mkdir", path)
        super().mkdir(path, parents=parents)

    def rmdir(self, path: str) -> None:
        self._step("rmdir", path)
        super().rmdir(path)


def steps_of(work: Callable[[StepFiles], object]) -> list[tuple[str, str]]:
    """What `work` does when nothing goes wrong."""
    files = StepFiles()
    work(files)
    return files.steps
