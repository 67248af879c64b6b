"""Logging in zap's shape: one JSON object a line, with etcd's keys and messages.

`log = logs.get("mvcc")`, then `log.info("restored last compact revision", {"restored-compact-revision": 7})`. Levels are etcd's:
debug, info, warn, error, fatal. Where lines go, and from which level on, is set once by the executable.
"""
