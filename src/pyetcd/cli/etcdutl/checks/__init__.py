"""What `etcdutl check` looks at, one module a part.

| module | looks at |
| --- | --- |
| `places` | directories: what is there, what was left behind |
| `pages` | the database as pages: meta pages, tree, checksums, freelist |
| `history` | the `key` bucket: revisions, versions, compaction, leases |
| `buckets` | the other buckets: whether their contents can be read and fit each other |
| `log` | all segments of the log, `.snap` files |
| `together` | whether database and log belong together |

Everything reads only. What is wrong becomes a `Finding`; nothing is raised but what keeps a part from being
looked at.
"""
