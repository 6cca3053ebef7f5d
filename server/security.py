"""From settings to who may call: what is loaded, checked and followed before the first connection.

Knows settings and the parts they concern (tokens, TLS, authentication); knows no requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from .authentication import Authenticator
from .config import Settings
from .exposure import check_exposure
from .file_watch import Reloadable
from .tls import TlsCredentials, TlsPaths
from .tokens import TokenFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Who may call. `credentials` None: without TLS. `files` are to be followed by `file_watch.watch`."""

    authenticator: Authenticator
    credentials: grpc.ServerCredentials | None = None
    files: Sequence[Reloadable] = ()


OPEN = Security(authenticator=Authenticator(tokens=None, client_certificates=False))
"""Everybody may call, without TLS."""


def load_security(settings: Settings) -> Security:
    """Reads tokens and certificates. Raises SettingsError where others could call unasked, TokenFileError, TlsError."""
    check_exposure(
        settings.address,
        tls=settings.tls_certificate is not None,
        authenticated=bool(settings.token_file or settings.tls_client_ca),
        insecure=settings.insecure,
    )
    tokens = None if settings.token_file is None else TokenFile.load(settings.token_file)
    tls = None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        paths = TlsPaths(certificate=settings.tls_certificate, key=settings.tls_key, client_ca=settings.tls_client_ca)
        tls = TlsCredentials.load(paths)
    return Security(
        authenticator=Authenticator(tokens=tokens, client_certificates=settings.tls_client_ca is not None),
        credentials=None if tls is None else tls.credentials,
        files=[each for each in (tokens, tls) if each is not None],
    )
