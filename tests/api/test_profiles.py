"""What a running member tells of where its time and its memory go."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import Etcd


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    etcd = Etcd(tmp_path_factory.mktemp("profiled"), enable_pprof="true")
    yield etcd
    etcd.close()


def get(member: Etcd, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{member.client_url}/debug/pprof{path}", timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def busy(member: Etcd) -> Iterator[None]:
    """Somebody puts all the while, each time a key of its own."""
    stop = threading.Event()

    def put() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            member.put(b"key %d" % number, bytes(100))

    with ThreadPoolExecutor(1) as executor:
        putting = executor.submit(put)
        yield
        stop.set()
        putting.result()


@pytest.mark.usefixtures("busy")
def test_a_profile_shows_the_stacks_of_a_busy_member(member: Etcd) -> None:
    status, text = get(member, "/profile?seconds=1")
    assert status == 200
    seen = {stack: int(times) for stack, _, times in (line.rpartition(" ") for line in text.splitlines())}
    loop = {stack: times for stack, times in seen.items() if "pyetcd.cli.etcd.main" in stack}
    assert 5 <= sum(loop.values()) == sum(seen.values()), "only the thread of the loop"
    assert any("pyetcd.api.server._turn:" in stack for stack in loop), "it was seen at work"


def test_only_one_profile_is_taken_at_a_time(member: Etcd) -> None:
    with ThreadPoolExecutor(2) as executor:
        both = [executor.submit(get, member, "/profile?seconds=1") for _ in range(2)]
        answers = sorted(each.result() for each in both)
    assert answers[0][0] == 200
    assert answers[1] == (500, "Could not enable CPU profiling: cpu profiling already in use\n")
    assert get(member, "/profile?seconds=1")[0] == 200, "and later another"


@pytest.mark.usefixtures("busy")
def test_the_heap_shows_what_was_allocated_meanwhile_and_by_whom(member: Etcd) -> None:
    status, text = get(member, "/heap?seconds=1")
    assert status == 200
    total = int(text.split(" bytes in ", 1)[0])
    rows = [line for line in text.splitlines() if " bytes in " in line][1:]
    sizes = [int(row.split()[0]) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < sum(sizes) <= total
    assert "pyetcd" in text
    assert get(member, "/heap?seconds=1")[0] == 200, "traced anew"


def test_the_stacks_of_tasks_and_threads_are_told(member: Etcd) -> None:
    status, text = get(member, "/goroutine?debug=2")
    assert status == 200
    assert text.startswith("tasks: ")
    assert "_serve" in text, "the task that serves"
    assert "\nthreads: " in text
    assert "http_profiles.py" in text, "the very one that tells"


def test_the_command_line_and_the_index_are_told(member: Etcd) -> None:
    words = get(member, "/cmdline")[1].split("\0")
    assert words[-len(member.flags) :] == [f"--{name}={value}" for name, value in member.flags.items()]
    status, text = get(member, "/")
    assert status == 200
    assert all(f'<a href="{name}">' in text for name in ("profile", "heap", "goroutine", "cmdline"))
    assert get(member, "")[1] == text, "redirected"
    assert get(member, "/nothing") == (404, "404 page not found\n")
    assert '"msg":"pprof is enabled","path":"/debug/pprof"' in member.printed.text()


def test_without_the_flag_there_are_no_profiles(etcd: Etcd) -> None:
    assert get(etcd, "/") == get(etcd, "/profile") == (404, "404 page not found\n")
