"""How a connection is protected and who calls over it: the rule of plaintext and TLS, PEM files, the token.

Beyond this machine a connection is TLS unless the caller says `insecure`, so no token goes out for others to read by
mistake. Knows neither calls nor channels. Of files it tells the name, of tokens and keys nothing, in no error.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import grpc

# No str: PEM text in place of a path would turn up in the error that the file can't be opened.
Pem: TypeAlias = "PathLike[str] | bytes"
"""A file of PEM, or what is in one."""

# The forms that are known to go where they say. gRPC takes more, such as dns://8.8.8.8/localhost.
_PREFIX = re.compile(r"^(dns:///|dns:|ipv4:|ipv6:)")
_ENDPOINT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:/\[\]]+))(?::[0-9]+)?")
# RFC 6750, 2.1: what a Bearer token is made of.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_GRPC_ROOTS_VARIABLE = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"


def is_loopback(target: str) -> bool:
    """Whether only this machine can be at the other end of a gRPC target. Looks up no name; one in doubt is not."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    return all(_is_loopback_endpoint(each) for each in _PREFIX.sub("", target).split(","))


def _is_loopback_endpoint(endpoint: str) -> bool:
    parts = _ENDPOINT.fullmatch(endpoint)
    if parts is None:
        return False
    host = parts["ipv6"] or parts["name"]
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def channel_credentials(
    target: str,
    *,
    root_certificates: Pem | None = None,
    certificate: Pem | None = None,
    private_key: Pem | None = None,
    insecure: bool = False,
) -> grpc.ChannelCredentials | None:
    """What to open a channel with; None: plaintext, on loopback where nothing of TLS is given or where `insecure` is.

    Raises ValueError for a combination or a content that can't be, OSError for a file that can't be read.
    """
    asked_for = any(each is not None for each in (root_certificates, certificate, private_key))
    if insecure and asked_for:
        raise ValueError(
            "insecure=True means no TLS, but certificates or a key for it are given; leave out one of both"
        )
    if (certificate is None) != (private_key is None):
        raise ValueError("certificate and private_key go together: give both or neither")
    if insecure or (is_loopback(target) and not asked_for):
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_system_roots() if root_certificates is None else _roots(root_certificates),
        private_key=None if private_key is None else _private_key(private_key),
        certificate_chain=None if certificate is None else _certificate(certificate),
    )


def token_metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """The metadata that shows a token with a call. Raises ValueError, which does not show it."""
    if token is None:
        return ()
    if not _TOKEN.fullmatch(token):
        raise ValueError(
            "the token is empty or not one: tokens are letters, digits and -._~+/ in one piece, "
            "without 'Bearer', spaces or an end of line"
        )
    return (("authorization", f"Bearer {token}"),)


def _system_roots() -> bytes | None:
    """The authorities that this machine trusts, those of its company with them; None: those that come with gRPC."""
    if os.environ.get(_GRPC_ROOTS_VARIABLE):  # gRPC reads it by itself
        return None
    if (named := os.environ.get("SSL_CERT_FILE")) and not Path(named).is_file():
        raise FileNotFoundError(f"SSL_CERT_FILE names {named}, which is no file")
    file = ssl.get_default_verify_paths().cafile  # where $SSL_CERT_FILE says, else where OpenSSL looks
    return None if file is None else Path(file).read_bytes()


def _roots(given: Pem) -> bytes:
    content, name = _content(given, "root_certificates")
    text = content.decode("ascii", errors="ignore")  # names of authorities stand between them, in all their letters
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{name} holds no certificate in PEM, or a damaged one") from None
    return content


def _certificate(given: Pem) -> bytes:
    content, name = _content(given, "certificate")
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise ValueError(f"{name} holds no certificate in PEM")
    return content


def _private_key(given: Pem) -> bytes:
    content, name = _content(given, "private_key")
    if b"ENCRYPTED" in content:
        raise ValueError(f"{name} is encrypted; gRPC needs the key without a password")
    if b"PRIVATE KEY-----" not in content:
        raise ValueError(f"{name} holds no private key in PEM")
    return content


def _content(given: Pem, parameter: str) -> tuple[bytes, str]:
    """The bytes, and what to call them in errors."""
    if isinstance(given, bytes):
        return given, parameter
    if isinstance(given, PathLike):
        return Path(given).read_bytes(), f"{parameter} {os.fspath(given)}"
    raise TypeError(f"{parameter} must be a pathlib.Path of a PEM file, or its content as bytes")
