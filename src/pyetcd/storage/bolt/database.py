"""One database file: open it, read states of it, commit new ones.

A **state** is what one meta page reaches; `Database.state` is the latest durable one. A `Pin` keeps a state
readable while others follow it: the pages only it needs are not written again until it is closed, so a pin
held long makes the file grow by what is rewritten meanwhile (`pinned_pages` counts them).

A `Commit` builds the next state. It is made of three parts, so that the loop is never blocked: `apply` and
`finish` build pages in small steps on the loop; `Database.write` and `Database.make_durable` only call the
operating system and may run in a thread; `Database.install` makes the result the current state, on the loop
again. There is one at a time. When one of them fails the file still holds the old state, and the database
takes no further commit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pyetcd._native import crc32c
from pyetcd.storage.bolt import meta as metas
from pyetcd.storage.bolt import page
from pyetcd.storage.bolt.errors import CHANGED, DatabaseCorrupt, DatabaseError, DatabaseLocked, NotADatabase
from pyetcd.storage.bolt.free_pages import FreePages
from pyetcd.storage.bolt.meta import NO_FREELIST, Meta
from pyetcd.storage.bolt.rewrite import SPLIT_FILL, LeafDraft, Steps, merge_leaf, rewrite_tree, write_root
from pyetcd.storage.bolt.tree import EMPTY_BUCKET, Bucket, Leaf, Pages
from pyetcd.storage.bolt.walk import Walk, sums_of
from pyetcd.storage.checksums import SumFile, SumWrites
from pyetcd.storage.files import Files, named

PAGE_SIZE = 4096
GROW_BYTES = 16 << 20  # the file grows by so much beyond what is needed, as bbolt's AllocSize
_PORTION = 4096  # changes merged in one step, about 1 ms; one request may bring 200,000 deletes
_FIRST_PAGES = 4  # of a new database: two meta pages, an empty freelist, an empty root

NewPages = list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class State:
    """What one meta page reaches. `above` are the pages (first, how many) of the tree of buckets."""

    meta: Meta
    buckets: dict[bytes, Bucket]
    above: list[tuple[int, int]]

    @property
    def size_bytes(self) -> int:
        return self.meta.high_water * self.meta.page_size


class Database:
    """One open file, locked. Everything but `write` and `make_durable` is called from one thread."""

    def __init__(
        self,
        files: Files,
        path: str,
        fd: int,
        sums: SumFile | None,
        read_only: bool,
        sync: bool,
        grow_bytes: int,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.sync = sync  # whether what is made durable is synced; it may be turned on before the last commit
        self._files = files
        self._fd = fd
        self._sums = sums
        self._grow_bytes = grow_bytes
        self._file_size = files.size(fd)
        first = _choose_meta(files, fd, path, self._file_size)
        view = files.mmap(fd, self._file_size, growable=not read_only)
        self.pages = Pages(path, first.page_size, view)
        known = sums.load(first) if sums is not None else None
        walk = Walk(path, view, first, known)
        buckets, above = walk.run(first)
        self.state = State(first, buckets, above)
        self.free = FreePages(walk.used)
        self.checked_sums = known is not None  # whether the pages were compared to sums written with them
        self.size_in_use_bytes = 0
        self._count_size()
        if sums is not None:
            sums.start(walk.sums if known is None else known, known is not None)
            self.pages.sums = sums.sums

    @classmethod
    def open(
        cls,
        files: Files,
        path: str,
        *,
        read_only: bool = False,
        checksums: bool = True,
        sync: bool = True,
        grow_bytes: int | None = None,
    ) -> Database:
        """Open, or create when missing and not `read_only`. Every page in use is read and proved.

        DatabaseLocked, NotADatabase, DatabaseCorrupt; OSError where the system refuses. A writer locks out
        all others, readers only writers. `checksums` keeps `<path>.sum`; `sync` False leaves out every
        fsync (unsafe). The file grows by `grow_bytes` beyond what is needed."""
        fd = files.open(path, write=not read_only, create=not read_only)
        try:
            if not files.flock(fd, shared=read_only):
                raise DatabaseLocked(path)
            if not read_only and _is_unborn(files, fd):
                _create(files, fd, path, sync)
            sums = SumFile(files, path + ".sum") if checksums else None
            grow = GROW_BYTES if grow_bytes is None else grow_bytes
            return cls(files, path, fd, sums, read_only, sync, grow)
        except OSError as error:
            files.close(fd)
            raise named(error, path) from None
        except BaseException:
            files.close(fd)
            raise

    @property
    def size_bytes(self) -> int:
        """The size as etcd reports it: pages up to the high water mark, not the length of the file."""
        return self.state.size_bytes

    @property
    def pinned_pages(self) -> int:
        """Pages kept back only because a pin may still read them."""
        return self.free.pending_count

    def _count_size(self) -> None:
        self.size_in_use_bytes = self.state.size_bytes - self.free.count * self.state.meta.page_size

    def pin(self) -> Pin:
        return Pin(self)

    def unpin(self, txid: int) -> None:
        """A pin of this transaction is closed."""
        self.free.remove_reader(txid)
        self._count_size()

    # -- committing
    # -----------------------------------------------------------------------------------------------

    def begin(self) -> Commit:
        if self.read_only:
            raise DatabaseError(self.path, f"{self.path}: opened for reading only")
        return Commit(self, self._sums)

    def commit(self, commit: Commit) -> None:
        """Finish, write and install in one go, for tools and tests."""
        for _ in commit.finish():
            pass
        self.make_durable(commit)
        self.install(commit)

    def write(self, pages: NewPages, write_back: bool = False) -> None:
        """Write new pages, given in order, without syncing; `write_back`: the disk may begin at once. Any
        thread."""
        try:
            self._write(pages)
            if write_back:
                size = self.state.meta.page_size
                first, last = pages[0][0], pages[-1][0]
                self._files.write_back(self._fd, first * size, (last - first) * size + len(pages[-1][1]))
        except OSError as error:
            raise named(error, self.path) from None

    def _write(self, pages: NewPages) -> None:
        size = self.state.meta.page_size
        last_id, last_data = pages[-1]
        self._grow_file(last_id * size + len(last_data))
        start = end = 0
        group: list[bytes] = []
        for page_id, data in pages:
            offset = page_id * size
            if offset != end and group:
                self._files.pwritev(self._fd, group, start)
                group = []
            if not group:
                start = offset
            group.append(data)
            end = offset + len(data)
        self._files.pwritev(self._fd, group, start)

    def read_written(self, page_id: int) -> bytes:
        """A page of the commit under way that was taken and written."""
        size = self.state.meta.page_size
        _, _, _, overflow = page.header.unpack(self._files.pread(self._fd, page.HEADER_SIZE, page_id * size))
        data = self._files.pread(self._fd, (overflow + 1) * size, page_id * size)
        for at in range(overflow + 1):
            self.pages.prove(page_id + at, data[at * size : (at + 1) * size])
        return data

    def make_durable(self, commit: Commit) -> None:
        """Write what is left of a finished commit, sync, then write and sync its meta page. Any thread.
        OSError: nothing of it counts; the file still holds the state before."""
        pages = commit.take()
        if pages:
            self.write(pages)
        if commit.sum_writes is not None:
            assert self._sums is not None
            self._sums.write(commit.sum_writes, self.sync)
        try:
            if self.sync:
                self._files.fdatasync(self._fd)
            new = commit.state.meta
            self._files.pwrite(self._fd, metas.encode(new), new.txid % 2 * new.page_size)
            if self.sync:
                self._files.fdatasync(self._fd)
        except OSError as error:
            raise named(error, self.path) from None

    def install(self, commit: Commit) -> None:
        """The commit is durable: make it the current state."""
        if len(self.pages.map) < self._file_size:
            self._files.grow_map(self.pages.map, self._file_size)
        self.state = commit.state
        self.free.committed(commit.state.meta.txid)
        self._count_size()

    def _grow_file(self, needed: int) -> None:
        if needed > self._file_size:
            self._files.truncate(self._fd, needed + self._grow_bytes)
            self._file_size = needed + self._grow_bytes

    def renamed(self, path: str) -> None:
        """The file has another name now, and so has that of its checksums."""
        self.path = self.pages.path = path
        if self._sums is not None:
            self._sums.path = path + ".sum"

    def close(self) -> None:
        """Give the lock back. What is pinned can still be read."""
        self._files.funlock(self._fd)
        self._files.close(self._fd)
        if self._sums is not None:
            self._sums.close()


class Commit:
    """The next state of a database while it is built."""

    def __init__(self, database: Database, sums: SumFile | None) -> None:
        self.pages = database.pages
        self.state = database.state
        self.sum_writes: SumWrites | None = None
        self.unwritten_bytes = 0  # of pages built and not taken yet
        self.page_count = 0
        self._database = database
        self._free = database.free
        self._sums = sums
        self._txid = database.state.meta.txid + 1
        self._buckets = dict(database.state.buckets)
        self._new: dict[int, bytes] = {}
        self._written: set[int] = set()
        self._noted: list[tuple[int, int]] | None = None

    # Sink, for rewrite

    def branch(self, page_id: int) -> tuple[list[bytes], Sequence[int]] | None:
        if page_id not in self._written:
            return self.pages.branch(page_id)
        kind, count, data, _ = self.read(page_id)
        if kind != page.BRANCH:
            return None
        keys, children = page.decode_branch(data, count)
        return keys[1:], children

    def read(self, page_id: int) -> tuple[int, int, bytes, int]:
        if page_id not in self._written:
            return self.pages.read(page_id)
        # Rare: the next portion of a large batch, or a node left with one child that joins nodes just built.
        data = self._new.get(page_id) or self._database.read_written(page_id)
        _, kind, count, overflow = page.header.unpack_from(data)
        return kind, count, data, overflow

    def allocate(self, pages: int) -> int:
        start = self._free.allocate(pages, self._txid) or self._free.grow(pages, self._txid)
        self.pages.forget(start)
        return start

    def write(self, page_id: int, data: bytes) -> None:
        size = self.pages.page_size
        self._new[page_id] = data
        self._written.add(page_id)
        self.unwritten_bytes += len(data)
        self.page_count += len(data) // size
        if self._sums is not None:
            self._sums.set(page_id, sums_of(data, size))
        if self._noted is not None:
            self._noted.append((page_id, len(data) // size))

    def free(self, page_id: int, pages: int) -> None:
        self._free.free(page_id, pages)

    # Building

    def create_bucket(self, name: bytes) -> None:
        """Make an empty bucket where there is none of this name."""
        self._buckets.setdefault(name, EMPTY_BUCKET)

    def apply(
        self,
        name: bytes,
        keys: Sequence[bytes],
        values: Mapping[bytes, bytes | None],
        fill: float = SPLIT_FILL,
    ) -> Steps:
        """Put and delete (value None) in one bucket, which is made when missing. `keys`: those to change,
        ascending and distinct. `fill`: how full split pages are left."""
        self._buckets.setdefault(name, EMPTY_BUCKET)
        for first in range(0, len(keys), _PORTION):
            portion = keys[first : first + _PORTION]
            yield from self._apply(name, portion, [values[key] for key in portion], fill)

    def _apply(
        self, name: bytes, keys: Sequence[bytes], values: Sequence[bytes | None], fill: float
    ) -> Steps:
        bucket = self._buckets[name]
        if bucket.inline is not None:
            draft = merge_leaf(bucket.inline.keys, bucket.inline.values, None, keys, values)
        else:
            root = yield from rewrite_tree(self, bucket.root, keys, values, fill)
            if not isinstance(root, LeafDraft):
                page_id = root if isinstance(root, int) else (yield from write_root(self, root, fill))
                self._buckets[name] = Bucket(page_id, bucket.sequence)
                return
            draft = root
        if draft.flags is None and page.HEADER_SIZE + sum(draft.item_sizes()) <= self.pages.page_size // 4:
            # As bbolt: a bucket of at most a quarter page lies inline in its parent.
            self._buckets[name] = Bucket(0, bucket.sequence, Leaf(draft.keys, draft.values))
        else:
            page_id = yield from write_root(self, draft, fill)
            self._buckets[name] = Bucket(page_id, bucket.sequence)

    def finish(self) -> Steps:
        """Write the tree of buckets and make the meta page. Then the commit can be made durable."""
        for start, pages in self.state.above:
            self._free.free(start, pages)
        names = sorted(self._buckets)
        values = [_bucket_value(self._buckets[name]) for name in names]
        above: list[tuple[int, int]] = []
        self._noted = above
        root = yield from write_root(
            self, LeafDraft(names, values, [page.BUCKET] * len(names), False), SPLIT_FILL
        )
        meta = replace(
            self.state.meta,
            root=root,
            freelist=NO_FREELIST,
            high_water=len(self._free),
            txid=self._txid,
            seal=None,
        )
        if self._sums is not None:
            self.sum_writes = self._sums.commit(meta)
            meta = replace(meta, seal=self.sum_writes.seal)
        self.state = State(meta, self._buckets, above)

    def take(self) -> NewPages:
        """The pages built since the last call; the caller writes them."""
        pages, self._new = self._new, {}
        self.unwritten_bytes = 0
        return sorted(pages.items())


class Pin:
    """A state that stays readable until `close`. `read` gives the bytes of the file that holds just this
    state, as bbolt's Tx.WriteTo does; it may be called from any thread, by one at a time. What it gives has
    been compared to the checksums."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pages = database.pages
        self.state = database.state
        self._closed = False
        database.free.add_reader(self.state.meta.txid)
        first = replace(self.state.meta, seal=None)
        second = replace(first, txid=max(first.txid - 1, 0))
        self._metas = metas.encode(first, 0) + metas.encode(second, 1)
        self._used: bytearray | None = None  # one byte a page, where that had to be found out

    @property
    def txid(self) -> int:
        return self.state.meta.txid

    @property
    def size(self) -> int:
        """Bytes of the file image."""
        return self.state.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes of the file image, from a page's beginning; fewer at its end. DatabaseCorrupt where
        a page in use is not what was written."""
        assert not self._closed, "a closed pin cannot be read"
        assert offset % self._pages.page_size == 0, "pages are proved whole"
        end = min(offset + length, self.size)
        head = self._metas[offset:end]
        begin = offset + len(head)
        data = self._pages.map[begin:end]
        if self._pages.sums is not None:
            self._prove(begin, data)
        return head + data

    def _prove(self, begin: int, data: bytes) -> None:
        """Pages that are not in use may hold anything, and their checksums say nothing: which ones these are
        is found out when the first page differs, by a walk that proves all that are in use."""
        pages = self._pages
        size = pages.page_size
        sums = pages.sums
        assert sums is not None
        for at in range(0, len(data) - size + 1, size):
            page_id = (begin + at) // size
            if sums[page_id] == crc32c(data[at : at + size]):
                continue
            if self._used is None:
                walk = Walk(pages.path, pages.map, self.state.meta, sums)
                walk.run(self.state.meta)
                self._used = walk.used
            if self._used[page_id]:
                raise pages.corrupt(page_id, CHANGED)

    def buckets(self) -> list[bytes]:
        """Names, in order."""
        return sorted(self.state.buckets)

    def get(self, bucket: bytes, key: bytes) -> bytes | None:
        found = self.state.buckets.get(bucket)
        return None if found is None else self._pages.get(found, key)

    def scan(
        self, bucket: bytes, start: bytes = b"", end: bytes | None = None, limit: int = 0
    ) -> list[tuple[bytes, bytes]]:
        """As `Backend.scan`."""
        assert not self._closed, "a closed pin cannot be read"
        found = self.state.buckets.get(bucket)
        return [] if found is None else self._pages.scan(found, start, end, limit)

    def leaves(self, bucket: bytes, start: bytes = b"") -> Iterator[tuple[Sequence[bytes], Sequence[bytes]]]:
        """Keys and values of a bucket, leaf by leaf from the one on that would hold `start`; for long walks
        in slices."""
        found = self.state.buckets.get(bucket)
        return iter(()) if found is None else self._pages.leaves(found, start)

    def close(self) -> None:
        """Let the pages go; twice does no harm."""
        if not self._closed:
            self._closed = True
            self._database.unpin(self.txid)


def _bucket_value(bucket: Bucket) -> bytes:
    value = page.bucket_header.pack(bucket.root, bucket.sequence)
    if bucket.inline is None:
        return value
    return value + page.encode_leaf(0, bucket.inline.keys, bucket.inline.values, None, 0)


def _choose_meta(files: Files, fd: int, path: str, file_size: int) -> Meta:
    """The valid meta page with the higher transaction id."""
    first = metas.decode(files.pread(fd, metas.SIZE, 0))
    found: list[Meta] = [] if isinstance(first, str) else [first]
    if isinstance(first, str):
        # Where the second one lies depends on the page size, which then nobody has told: try them all, as
        # bbolt does.
        sizes = [1 << n for n in range(10, 25) if 1 << n < file_size]
    else:
        sizes = [first.page_size]
    for size in sizes:
        second = metas.decode(files.pread(fd, metas.SIZE, size))
        if not isinstance(second, str) and second.page_size == size:
            found.append(second)
    if not found:
        raise NotADatabase(path, first if isinstance(first, str) else "")
    best = max(found, key=lambda each: each.txid)
    needed = best.high_water * best.page_size
    if file_size < needed:
        missing = file_size // best.page_size
        reason = f"the file is truncated: it ends at byte {file_size}, but the database has {needed} bytes"
        raise DatabaseCorrupt(path, missing, best.page_size, reason)
    return best


def _first_pages() -> list[bytes]:
    """An empty database as bbolt makes one: metas, freelist, root."""
    empty = [page.header.pack(2, page.FREELIST, 0, 0), page.header.pack(3, page.LEAF, 0, 0)]
    first = [metas.encode(Meta(PAGE_SIZE, 3, 0, 2, _FIRST_PAGES, txid)) for txid in (0, 1)]
    return first + [each.ljust(PAGE_SIZE, b"\0") for each in empty]


def _create(files: Files, fd: int, path: str, sync: bool) -> None:
    """Meta pages last, so that a crash in between leaves a file that `_is_unborn` recognises."""
    pages = _first_pages()
    files.truncate(fd, _FIRST_PAGES * PAGE_SIZE)
    files.pwritev(fd, pages[2:], 2 * PAGE_SIZE)
    if sync:
        files.fsync(fd)
        files.fsync_dir(path.rpartition("/")[0] or ".")
    files.pwritev(fd, pages[:2], 0)
    if sync:
        files.fsync(fd)


_SECTOR = 512  # file systems cut no finer; the first bytes of a good database are zeros too


def _is_unborn(files: Files, fd: int) -> bool:
    """Whether the file is new, or its creation was cut short: nothing was ever stored in it."""
    size = files.size(fd)
    if size > _FIRST_PAGES * PAGE_SIZE or size % _SECTOR:
        return False
    head = files.pread(fd, 2 * PAGE_SIZE, 0)
    if not any(head):
        return True
    readable = any(not isinstance(metas.decode(head[at : at + metas.SIZE]), str) for at in (0, PAGE_SIZE))
    if readable or size != _FIRST_PAGES * PAGE_SIZE:
        return False
    return files.pread(fd, 2 * PAGE_SIZE, 2 * PAGE_SIZE) == b"".join(_first_pages()[2:])
