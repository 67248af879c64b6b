"""Whether an installed pyetcd works: its executables, a server, a put, a get, a check and a restore.

Run with the Python it is installed in, from a directory that may be written. The argument says whether the
hot rooms are to be `compiled` or `interpreted`. Nothing but the standard library and pyetcd is needed.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
READY = "ready to serve client requests"
SECONDS = 60


def run(program: str, *arguments: str) -> str:
    command = [str(BIN / program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}"
    return done.stdout


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def serving(data_dir: str) -> Iterator[str]:
    """A member on free ports; its client URL."""
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    command = [str(BIN / "etcd"), f"--data-dir={data_dir}", f"--listen-client-urls={client}"]
    command += [f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        seen: list[str] = []
        for line in process.stderr:
            seen.append(line)
            if READY in line:
                break
        else:
            raise AssertionError("".join(seen))
        yield client
        process.terminate()
        process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.communicate()


def main(expected: str) -> None:
    import pyetcd.mvcc.store as hot

    found = "interpreted" if str(hot.__file__).endswith(".py") else "compiled"
    assert found == expected, f"{hot.__file__} is {found}, not {expected}"
    for program in ("etcd", "etcdctl", "etcdutl"):
        assert "3.7.1" in run(program, "--version" if program == "etcd" else "version")
    with serving("first") as url:
        assert run("etcdctl", f"--endpoints={url}", "put", "greeting", "hello") == "OK\n"
        assert run("etcdctl", f"--endpoints={url}", "get", "greeting") == "greeting\nhello\n"
        status = json.loads(run("etcdctl", f"--endpoints={url}", "endpoint", "status", "-w", "json"))
        assert status[0]["Status"]["version"] == "3.7.1"
    database = "first/member/snap/db"
    run("etcdutl", "check", "--data-dir=first")
    run("etcdutl", "snapshot", "restore", database, "--data-dir=second", "--skip-hash-check")
    assert run("etcdutl", "hashkv", database) == run("etcdutl", "hashkv", "second/member/snap/db")
    print(f"  installed, {found}: serves, saves and restores", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
