"""The feature gate SetMemberLocalAddr: from which address a member dials the others.

With it, that is the first address among `--initial-advertise-peer-urls` that is written as one and is neither
a loopback address nor an unspecified one; of one with a zone nothing is made. It matters on hosts with
several: peers that check the addresses in certificates see the one that is advertised.
"""

from __future__ import annotations

from ipaddress import ip_address

from pyetcd import logs
from pyetcd.member.config import ServerConfig

_log = logs.get("embed")


def local_address(config: ServerConfig) -> str | None:
    """None: the system chooses, as it does without the gate and where there is no such address."""
    if not config.feature("SetMemberLocalAddr"):
        return None
    advertised = {"advertise-peer-urls": [url.text for url in config.initial_advertise_peer_urls]}
    _log.info("searching for a suitable member local address in AdvertisePeerURLs", advertised)
    for url in config.initial_advertise_peer_urls:
        try:
            address = ip_address(url.hostname.strip("[]"))
        except ValueError:
            continue  # a name
        if "%" not in str(address) and not address.is_loopback and not address.is_unspecified:
            _log.info("setting member local address", {"LocalAddr": str(address)})
            return str(address)
    _log.warn("unable to set a member local address due to lack of suitable local addresses", advertised)
    return None
