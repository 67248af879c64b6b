"""`version`, `completion` and `help`."""

from __future__ import annotations

import sys

from pyetcd.cli.command import Invocation
from pyetcd.cli.completion_scripts import script
from pyetcd.cli.usage import explain, usage_text
from pyetcd.version import API_VERSION, SERVER_VERSION


def version(call: Invocation) -> None:
    sys.stdout.write(f"etcdutl version: {SERVER_VERSION}\nAPI version: {API_VERSION}\n")


def completion(call: Invocation) -> None:
    sys.stdout.write(script(call.command.root, call.args[0]))


def help_on(call: Invocation) -> None:
    explain(call, usage_text)
