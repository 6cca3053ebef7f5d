"""The server's certificate, its key and the callers' authorities: read, checked, and read anew when the files change.

Knows files and gRPC's credentials, not who is let in. What gRPC does with `dynamic_ssl_server_credentials` (1.85): it
asks for a certificate before each handshake, on a thread of its own, and takes None for "as before". Connections that
are open keep the certificate they began with. So files are read by a task (`file_watch.py`), never during a handshake.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typing_extensions import Self

from .file_watch import FileStamp, stamp_of

_WARN_BEFORE = timedelta(days=14)
_CURVES = ("secp256r1", "secp384r1")

log = logging.getLogger(__name__)


class TlsError(Exception):
    """The files can't be served with; the text names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPaths:
    """PEM files. With `client_ca`, callers must show a certificate that one of its authorities signed."""

    certificate: Path
    """The server's, then the intermediate ones."""
    key: Path
    client_ca: Path | None = None

    def stamps(self) -> tuple[FileStamp, ...]:
        """What changes with the files."""
        paths = (self.certificate, self.key, self.client_ca)
        return tuple(stamp_of(path) for path in paths if path is not None)


class TlsCredentials:
    """What gRPC serves TLS with. Belongs to one port: each change is handed out once."""

    def __init__(self, paths: TlsPaths, *, clock: Callable[[], float] = time.time) -> None:
        self._paths = paths
        self._clock = clock
        self._stamps = paths.stamps()
        self._told = ""
        self._certificate, configuration = _read(paths, now=self._now())
        self._changed: Any = None
        self._next_warning = self._now()
        self._warn_of_expiry()
        self.credentials = grpc.dynamic_ssl_server_credentials(
            configuration, self._take_changed, require_client_authentication=paths.client_ca is not None
        )

    @classmethod
    def load(cls, paths: TlsPaths, *, clock: Callable[[], float] = time.time) -> Self:
        """Reads and checks the files; `clock` gives the seconds since the epoch. Raises TlsError."""
        return cls(paths, clock=clock)

    def reload_if_changed(self) -> None:
        """Reads the files anew where one changed. While they don't fit together, the certificate of before is served.

        Also tells, once a day, of a certificate that expires soon.
        """
        stamps = self._paths.stamps()
        if stamps != self._stamps and self._reload():
            self._stamps = stamps
        self._warn_of_expiry()

    def _reload(self) -> bool:
        """Whether it worked. Where not, it is tried again: a certificate may just not be valid yet."""
        try:
            self._certificate, self._changed = _read(self._paths, now=self._now())
        except TlsError as error:
            if str(error) != self._told:
                log.error("%s; the certificate of before is served", error)
            self._told = str(error)
            return False
        self._told = ""
        self._next_warning = self._now()
        log.info("new connections get the changed certificate in %s", self._paths.certificate)
        return True

    def _take_changed(self) -> Any:
        changed, self._changed = self._changed, None
        return changed

    def _warn_of_expiry(self) -> None:
        now, expires = self._now(), self._certificate.not_valid_after_utc
        # Of those that live for days only, two weeks would be always.
        lifetime = expires - self._certificate.not_valid_before_utc
        if expires - now > min(_WARN_BEFORE, lifetime / 3) or now < self._next_warning:
            return
        self._next_warning = now + timedelta(days=1)
        if now < expires:
            log.warning("the certificate in %s expires on %s", self._paths.certificate, _text(expires))
        else:
            log.error("the certificate in %s expired on %s", self._paths.certificate, _text(expires))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), timezone.utc)


def _read(paths: TlsPaths, *, now: datetime) -> tuple[x509.Certificate, Any]:
    """The server's certificate, and all of it as gRPC wants it. Raises TlsError."""
    certificate_pem, key_pem = _content(paths.certificate), _content(paths.key)
    certificate = _certificates(paths.certificate, certificate_pem)[0]
    _check_validity(paths.certificate, certificate, now)
    if not _belongs(_private_key(paths.key, key_pem), certificate):
        raise TlsError(f"the key in {paths.key} is not the key of the certificate in {paths.certificate}")
    client_ca_pem = None
    if paths.client_ca is not None:
        client_ca_pem = _content(paths.client_ca)
        authorities = _certificates(paths.client_ca, client_ca_pem)
        # An old authority beside a new one is how one changes them.
        _check_validity(paths.client_ca, max(authorities, key=lambda each: each.not_valid_after_utc), now)
    return certificate, grpc.ssl_server_certificate_configuration([(key_pem, certificate_pem)], client_ca_pem)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"can't read {path}: {error.strerror}") from None


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise TlsError(f"{path} holds no certificate in PEM, or a damaged one") from None


def _check_validity(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    if now >= certificate.not_valid_after_utc:
        raise TlsError(f"the certificate in {path} expired on {_text(certificate.not_valid_after_utc)}")
    if now < certificate.not_valid_before_utc:
        raise TlsError(f"the certificate in {path} is not valid before {_text(certificate.not_valid_before_utc)}")


def _private_key(path: Path, pem: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        # The validation that is skipped is for strangers' keys. It would stop all streams for 55 ms at each change.
        key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise TlsError(f"the key in {path} is encrypted; gRPC needs it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsError(f"{path} holds no private key in PEM, or a damaged one") from None
    # With others, gRPC does not start, or starts and fails in every handshake.
    if isinstance(key, rsa.RSAPrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    raise TlsError(f"the key in {path} is of a kind that gRPC can't serve with; use RSA, or ECDSA with P-256 or P-384")


def _belongs(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> bool:
    """Whether what the key signs is good by the certificate: also finds a key that is damaged in its secret part."""
    try:
        public_key = certificate.public_key()
        if isinstance(key, rsa.RSAPrivateKey) and isinstance(public_key, rsa.RSAPublicKey):
            public_key.verify(key.sign(b"", PKCS1v15(), SHA256()), b"", PKCS1v15(), SHA256())
            return True
        if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(public_key, ec.EllipticCurvePublicKey):
            public_key.verify(key.sign(b"", ec.ECDSA(SHA256())), b"", ec.ECDSA(SHA256()))
            return True
    except (InvalidSignature, ValueError, UnsupportedAlgorithm):
        pass
    return False


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
