"""`bbolt`: a database file page by page and key by key, as in etcdutl 3.8, which has bbolt's own tool in it.

* `commands` says what there is; `opened` opens files and prints, `texts` is how keys and values look.
* `content` (check, buckets, keys, get, info, inspect, stats) and `compact` go by the tree from the newer meta
  page.
* `pages` (page, page-item, dump) and `surgery` go by numbers and believe little: they work on damaged files,
  and on those that a member has open.
* `bench` measures our engine with bbolt's patterns.

No command writes to the file that it reads.
"""
