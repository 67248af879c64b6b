"""pyetcd's `etcd`, but with short segments of the log, so that a test need not write 64 MB to fill one.

python small_segments.py BYTES FLAG…
"""

from __future__ import annotations

import functools
import sys

from pyetcd.cli.etcd import main
from pyetcd.member import opening

if __name__ == "__main__":
    opening.open_member = functools.partial(opening.open_member, segment_bytes=int(sys.argv[1]))
    sys.exit(main(["etcd", *sys.argv[2:]]))
