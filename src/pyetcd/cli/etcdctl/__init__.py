"""The `etcdctl` executable: etcd's command-line client, flag for flag and line for line.

Scripts call it in loops, so it starts fast: no asyncio, no protobuf, no argparse, and of its own modules only
those of the command at hand.
"""

from pyetcd.cli.etcdctl.main import main

__all__ = ["main"]
