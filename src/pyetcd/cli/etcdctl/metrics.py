"""A member's metrics, which it serves by plain HTTP beside gRPC, with the same certificates."""

from __future__ import annotations

from pyetcd.cli import gotext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLContext

    from pyetcd.cli.etcdctl.settings import Tls

BYTES_MAX = 16 * 1024 * 1024  # etcd's are a quarter of a MiB


class Unknown(Exception):
    """The metrics could not be fetched, or do not say what was asked."""


def fetch(url: str, tls: Tls | None, seconds: float) -> str:
    """The text at a URL. Unknown."""
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import HTTPSHandler, ProxyHandler, build_opener

    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=_context(tls)))
    try:
        with opener.open(url, timeout=seconds) as answer:
            return str(answer.read(BYTES_MAX).decode("utf-8", "replace"))
    except HTTPError as error:
        # An answer of any status has metrics or has not.
        return str(error.read(BYTES_MAX).decode("utf-8", "replace"))
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


def values(text: str, names: frozenset[str]) -> dict[str, float]:
    """The values of those metrics, of the ones without labels, that the text has."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in names:
            try:
                found[name] = float(value)
            except ValueError:
                continue
    return found
