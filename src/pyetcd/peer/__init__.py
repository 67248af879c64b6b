"""Member-to-member HTTP, both sides, as etcd 3.7 speaks it (its package `rafthttp`)."""
