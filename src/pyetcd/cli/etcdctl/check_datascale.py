"""`check datascale`: how much memory a member takes for a given amount of data, from its metrics before and
after."""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl.check import compact, defragment, delete_all, load_of, refuse_if_used, tell_errors
from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.load import Crew, Work
from pyetcd.cli.etcdctl.metrics import Unknown, fetch
from pyetcd.cli.etcdctl.output import emit, flush
from pyetcd.cli.etcdctl.settings import Settings
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.cli.progress_bar import ProgressBar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyetcd.cli.command import Invocation
    from pyetcd.cli.etcdctl.settings import Tls

# Keys and clients.
LOADS = {"s": (10_000, 50), "m": (100_000, 200), "l": (1_000_000, 500), "xl": (3_000_000, 1000)}
KEY_BYTES = VALUE_BYTES = 512
MEMORY = "process_resident_memory_bytes"
UNREADABLE = "FAIL: Could not read process_resident_memory_bytes {} the put operations.\n"
FETCH_SECONDS = 60.0


def datascale(call: Invocation) -> None:
    keys, clients = LOADS[load_of(call)]
    run(call, keys, clients)


def run(call: Invocation, keys: int, clients: int) -> None:
    """The check with so many keys and clients. Exit when it comes to nothing."""
    settings = Settings(call)
    prefix = call.text("prefix")
    crew = Crew(settings, Work(prefix, clients, KEY_BYTES, VALUE_BYTES, count=keys))
    try:
        crew.prepare()
        client = Client(settings)
        refuse_if_used(client, prefix, Deadline(), "")
        before = _memory(settings, "before")
        pairs = f"{keys} key-value pairs, {KEY_BYTES + VALUE_BYTES} bytes per key-value"
        emit(f"Start data scale check for work load [{pairs}, {clients} concurrent clients].\n")
        flush()
        bar = ProgressBar(keys)
        try:
            tally = crew.work(bar.advance, lambda: False)
        finally:
            bar.close()
    finally:
        crew.close()
    after = _memory(settings, "after")
    try:
        revision = delete_all(client, prefix, Deadline())
    except CallError as error:
        raise Exit(ERROR, str(error)) from None
    if call.on("auto-compact"):
        compact(client, revision)
    if call.on("auto-defrag"):
        defragment(settings)
    if tally.errors:
        tell_errors(tally)
        raise Exit(ERROR)
    emit(f"PASS: Approximate system memory used : {(after - before) / (1024 * 1024):.2f} MB.\n")


def _memory(settings: Settings, when: str) -> float:
    """Bytes, as the first endpoint's metrics say. Exit when they do not."""
    try:
        found = memory_of(settings.endpoints[0], settings.tls)
    except Unknown as why:
        emit(f"{why}\n")
        found = 0.0
    if not found:
        emit(UNREADABLE.format(when))
        raise Exit(ERROR)
    return found


def memory_of(endpoint: str, tls: Tls | None) -> float:
    """How many bytes of memory the member behind the endpoint has. Unknown."""
    url = endpoint if endpoint.startswith(("http://", "https://")) else f"http://{endpoint}"
    for text in fetch(f"{url}/metrics", tls, FETCH_SECONDS).splitlines():
        if text.startswith(MEMORY):
            value = text.removeprefix(MEMORY).strip()
            try:
                return float(value)
            except ValueError:
                quoted = gotext.quote(value)
                raise Unknown(f"parse error: strconv.ParseFloat: parsing {quoted}: invalid syntax") from None
    raise Unknown(f"could not find: {MEMORY}")
