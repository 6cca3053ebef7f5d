"""The rule of what may be open to whom: beyond this machine, nothing without TLS and authentication.

Knows addresses only, no sockets. The address of the metrics is not under this rule: Prometheus comes from outside,
metrics hold no prompts and no answers, and they are off loopback only where somebody asked for that address by name.
"""

from __future__ import annotations

import ipaddress
import logging

from .config import SettingsError

log = logging.getLogger(__name__)


def is_loopback(address: str) -> bool:
    """Whether only this machine's programs reach `HOST:PORT` or `unix:PATH`. No names are looked up but localhost."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].lower()
    if host == "localhost":
        return True
    try:
        if host.startswith("[") and host.endswith("]"):
            return ipaddress.IPv6Address(host[1:-1]).is_loopback
        # IPv6 without brackets is no address for gRPC: it takes what follows the last colon for a part of it.
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def check_exposure(address: str, *, tls: bool, authenticated: bool, insecure: bool) -> None:
    """Raises SettingsError where others could read along or call without saying who they are, and nobody asked for it.

    `authenticated`: callers must show a token or a client certificate. `insecure`: what --insecure says.
    """
    if is_loopback(address) or (tls and authenticated):
        return
    lacking = " and ".join(name for name, there in (("TLS", tls), ("authentication", authenticated)) if not there)
    if insecure:
        log.warning("listening on %s without %s, as --insecure allows", address, lacking)
        return
    raise SettingsError(
        f"--address is {address}, which others than this machine can reach, without {lacking}; either set "
        "--tls-certificate and --tls-key together with --token-file or --tls-client-ca, or listen on this machine "
        "only, such as on 127.0.0.1:50051, or say --insecure, where a proxy or a network you trust does what is lacking"
    )
