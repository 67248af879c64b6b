"""URLs as etcd takes them: `http://host:port`, `https://host:port`, `unix://path`, `unixs://path`.

A URL given to etcd is a scheme and a place to listen at or to dial, nothing more. The accepted forms, the
canonical text and the wording of the refusals are etcd's (client/pkg/types/urls.go over Go's net/url), since
scripts and people meet them in error lines. For Unix sockets host and path together name the socket file,
relative to the working directory where there is no leading slash.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pyetcd.logs.gotext import quote


class UrlError(ValueError):
    """A URL, or a list of them, that etcd would refuse; the text is etcd's."""


@dataclass(frozen=True, slots=True)
class Url:
    """One URL. `text` is canonical; `host` is the part with the port; `path` is not empty for Unix sockets
    only.
    """

    text: str
    scheme: str
    host: str
    path: str

    def __str__(self) -> str:
        return self.text

    @property
    def is_unix(self) -> bool:
        return self.scheme in ("unix", "unixs")

    @property
    def is_secure(self) -> bool:
        return self.scheme in ("https", "unixs")

    @property
    def socket_path(self) -> str:
        """The file name of a Unix socket."""
        assert self.is_unix, self.text
        return self.host + self.path

    @property
    def hostname(self) -> str:
        """Host without port and without the brackets of IPv6."""
        return split_host_port(self.host)[0] if not self.is_unix else self.host

    @property
    def port(self) -> str:
        """The port as given: digits, or empty."""
        return split_host_port(self.host)[1] if not self.is_unix else ""


def parse_urls(texts: Iterable[str]) -> tuple[Url, ...]:
    """Parse and check; sorted by text as etcd sorts them. UrlError with etcd's wording."""
    urls = [parse_url(text) for text in texts]
    if not urls:
        raise UrlError("no valid URLs given")
    return tuple(sorted(urls, key=lambda url: url.text))


def parse_url(text: str) -> Url:
    """Parse and check one URL. UrlError with etcd's wording."""
    text = text.strip()
    url = _split(text)
    if url.scheme in ("http", "https"):
        try:
            split_host_port(url.host)
        except UrlError:
            raise UrlError(f'URL address does not have the form "host:port": {text}') from None
        if url.path:
            raise UrlError(f"URL must not contain a path: {text}")
    elif not url.is_unix:
        raise UrlError(f"URL scheme must be http, https, unix, or unixs: {text}")
    return url


def join_urls(urls: Iterable[Url]) -> str:
    """The comma-separated form in which lists of URLs appear in flags and log lines."""
    return ",".join(url.text for url in urls)


def parse_cluster(text: str) -> Mapping[str, tuple[Url, ...]]:
    """`name=url,name=url2,other=url3` as `--initial-cluster` gives it: the URLs of each name, in order of
    names seen.
    """
    found: dict[str, list[str]] = {}
    for pair in text.split(","):
        if pair:
            name, _, url = pair.partition("=")
            found.setdefault(name, []).append(url)
    return {name: parse_urls(urls) for name, urls in found.items()}


def cluster_text(cluster: Mapping[str, Iterable[Url]]) -> str:
    """The canonical text of a parsed `--initial-cluster`, pairs sorted."""
    return ",".join(sorted(f"{name}={url.text}" for name, urls in cluster.items() for url in urls))


def join_host_port(host: str, port: int | str) -> str:
    """The form that `split_host_port` takes apart."""
    return f"[{host}]:{port}" if ":" in host or "%" in host else f"{host}:{port}"


def split_host_port(host: str) -> tuple[str, str]:
    """Host and port of `host:port` or `[v6]:port`, either may be empty. UrlError as Go's net.SplitHostPort
    says it.
    """
    colon = host.rfind(":")
    if colon < 0:
        raise UrlError(f"address {host}: missing port in address")
    if host.startswith("["):
        end = host.find("]")
        if end < 0:
            raise UrlError(f"address {host}: missing ']' in address")
        if end + 1 == len(host):
            raise UrlError(f"address {host}: missing port in address")
        if end + 1 != colon:
            why = "too many colons in address" if host[end + 1] == ":" else "missing port in address"
            raise UrlError(f"address {host}: {why}")
        return host[1:end], host[colon + 1 :]
    name = host[:colon]
    if ":" in name:
        raise UrlError(f"address {host}: too many colons in address")
    return name, host[colon + 1 :]


def check_bindable(urls: Iterable[Url]) -> None:
    """Listening needs an address, not a name that some resolver may turn into anything; `localhost` is
    allowed.
    """
    for url in urls:
        if url.is_unix:
            continue
        name, _ = split_host_port(url.host)
        if name != "localhost" and not _is_ip(name):
            raise UrlError(f"expected IP in URL for binding ({url.text})")


def check_has_host(urls: Iterable[Url]) -> None:
    """Advertised URLs are for others to dial, so they name a host."""
    for url in urls:
        if not url.is_unix and split_host_port(url.host)[0] == "":
            raise UrlError(f"unexpected empty host ({url.text})")


def _is_ip(name: str) -> bool:
    if "%" in name:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(//([^/?#]*))?([^?#]*)(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NOT_IN_HOST = re.compile(r"[ \\^`{|}#?]")
_PORT = re.compile(r":[0-9]*")


def _split(text: str) -> Url:
    """What Go's url.Parse does with the forms that matter here, and its refusals."""
    refuse = f"parse {quote(text)}: "
    if _CONTROL.search(text):
        raise UrlError(refuse + "net/url: invalid control character in URL")
    parts = _PARTS.fullmatch(text)
    if parts is None:
        if text.startswith(":"):
            raise UrlError(refuse + "missing protocol scheme")
        if ":" in text and "/" not in text.partition(":")[0]:
            raise UrlError(refuse + "first path segment in URL cannot contain colon")
        return Url(text, "", "", text)
    scheme, slashes, authority, path, tail = parts.groups()
    scheme = scheme.lower()
    if slashes is None and not path.startswith("/"):
        return Url(f"{scheme}:{path}{tail}", scheme, "", "")  # opaque to Go: no host, no path
    host = (authority or "").rpartition("@")[2]
    bad = _BAD_ESCAPE.search(host + path)
    if bad is not None:
        escape = quote((host + path)[bad.start() : bad.start() + 3])
        raise UrlError(f"{refuse}invalid URL escape {escape}")
    odd = _NOT_IN_HOST.search(host)
    if odd is not None:
        raise UrlError(f'{refuse}invalid character "{odd.group()}" in host name')
    if host.startswith("[") and "]" not in host:
        raise UrlError(refuse + "missing ']' in host")
    after = host.partition("]")[2] if host.startswith("[") else host[host.find(":") :]
    if ":" in host and after and _PORT.fullmatch(after) is None:
        raise UrlError(f"{refuse}invalid port {quote(after)} after host")
    return Url(f"{scheme}:{slashes or '//'}{path}{tail}", scheme, host, path)
