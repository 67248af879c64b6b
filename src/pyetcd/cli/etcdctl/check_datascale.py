"""`check datascale`: how much memory a member takes for a given amount of data, from its metrics before and
after."""

from __future__ import annotations

from pyetcd.cli import gotext
from pyetcd.cli.etcdctl.check import compact, defragment, delete_all, load_of, refuse_if_used, tell_errors
from pyetcd.cli.etcdctl.client import CallError, Client, Deadline
from pyetcd.cli.etcdctl.load import Crew, Work
from pyetcd.cli.etcdctl.output import emit, flush
from pyetcd.cli.etcdctl.settings import Settings
from pyetcd.cli.exits import ERROR, Exit
from pyetcd.cli.progress_bar import ProgressBar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLContext

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


class Unknown(Exception):
    """The memory could not be found out."""


def memory_of(endpoint: str, tls: Tls | None) -> float:
    """How many bytes of memory the member behind the endpoint has. Unknown."""
    url = endpoint if endpoint.startswith(("http://", "https://")) else f"http://{endpoint}"
    for text in _fetch(f"{url}/metrics", tls).splitlines():
        if text.startswith(MEMORY):
            value = text.removeprefix(MEMORY).strip()
            try:
                return float(value)
            except ValueError:
                quoted = gotext.quote(value)
                raise Unknown(f"parse error: strconv.ParseFloat: parsing {quoted}: invalid syntax") from None
    raise Unknown(f"could not find: {MEMORY}")


def _fetch(url: str, tls: Tls | None) -> str:
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPSHandler, ProxyHandler, build_opener

    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=_context(tls)))
    try:
        with opener.open(url, timeout=FETCH_SECONDS) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except HTTPError as error:
        return str(error.read().decode("utf-8", "replace"))  # an answer of any status has metrics or has not
    except URLError as error:
        raise Unknown(f"fetch error: Get {gotext.quote(url)}: {_reason(url, error.reason)}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise Unknown(f"fetch error: Get {gotext.quote(url)}: {error}") from None


def _reason(url: str, reason: object) -> str:
    """Why there is no connection, as Go says it where that is easy."""
    if isinstance(reason, ConnectionRefusedError):
        host = url.partition("://")[2].partition("/")[0]
        return f"dial tcp {host}: connect: connection refused"
    return str(reason)


def _context(tls: Tls | None) -> SSLContext:
    """With the client's certificate and its CAs. Unknown."""
    import ssl
    from tempfile import NamedTemporaryFile

    context = ssl.create_default_context(cadata=tls.ca.decode() if tls is not None and tls.ca else None)
    if tls is None:
        return context
    if tls.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert and tls.key:
        with NamedTemporaryFile() as pair:  # ssl takes certificates from files only
            pair.write(tls.cert + b"\n" + tls.key)
            pair.flush()
            try:
                context.load_cert_chain(pair.name)
            except ssl.SSLError as error:
                raise Unknown(f"client certificate error: {error}") from None
    return context
