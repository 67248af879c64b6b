"""The `etcdutl` executable: works on etcd's files where no server runs, flag for flag and line for line.

| command | what it does | writes |
| --- | --- | --- |
| `snapshot status` | hash, revision, number of keys of a database file | nothing |
| `snapshot restore` | a data directory for a new member from a database file | a new directory |
| `hashkv` | HashKV of a database file | nothing (etcd's own opens the file for writing) |
| `defrag` | the database of a stopped member without its free pages | a copy, then renames it |
| `check` | whether a stopped member's directory is sound, with advice | nothing |
| `bbolt` | pages, buckets and keys of a database file, and copies that are mended by hand | new files |
| `migrate` | the storage version of a stopped member's database | the database |

Everything is done with the server's own rooms: `storage`, `mvcc`, `cluster`. Log lines go to stderr in zap's
console form, as etcdutl's do; `hashkv` writes none.
"""

from pyetcd.cli.etcdutl.main import main

__all__ = ["main"]
