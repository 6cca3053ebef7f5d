"""Who calls and whether they may: from a call's method, metadata and connection to a Caller.

Knows tokens and scopes, no files, no TLS settings and no requests. Tokens are never logged and never shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .errors import PermissionDenied, Unauthenticated
from .token_entries import Caller
from .tokens import TokenFile

# What is called of each service's methods needs one of these scopes; health needs none, so that probes need no token.
_SCOPES: dict[str, tuple[str, ...]] = {
    "/llamarpc.v1.TextGenerationService/": ("inference",),
    "/llamarpc.v1.ModelService/": ("introspection", "inference"),
    "/grpc.reflection.v1.ServerReflection/": ("introspection",),
    "/grpc.reflection.v1alpha.ServerReflection/": ("introspection",),
}
_OPEN = "/grpc.health.v1.Health/"
# Of services that are not in the table. No token has it: who adds a service must say who may call it.
_NOBODYS = ("unlisted",)

_LONGEST_TOKEN = 256
_SCHEME = "bearer "
# gRPC's names of what it read from the client's certificate: the subject's common name, then the alternative ones.
_NAMES = ("x509_common_name", "x509_subject_alternative_name")
_LONGEST_NAME = 256


class Authenticator:
    """Decides by tokens where there is a file of them, else by client certificates, else lets everybody in."""

    def __init__(self, *, tokens: TokenFile | None, client_certificates: bool) -> None:
        """`client_certificates`: TLS has verified one on every connection."""
        self._tokens = tokens
        self._client_certificates = client_certificates

    def authenticate(
        self,
        method: str,
        metadata: Iterable[tuple[str, str | bytes]],
        auth_context: Mapping[str, Iterable[bytes]],
    ) -> Caller | None:
        """Who calls `/package.Service/Method`; None: nobody in particular.

        `auth_context` is gRPC's, of the connection. Raises Unauthenticated or PermissionDenied.
        """
        service = method[: method.rfind("/") + 1]
        if service == _OPEN:
            return None
        if self._tokens is not None:
            caller = self._tokens.caller_of(_token_in(metadata))
        elif self._client_certificates:
            caller = Caller(name=_certificate_name(auth_context), priority="high")
        else:
            return None
        _check_scope(caller, _SCOPES.get(service, _NOBODYS))
        return caller


def _check_scope(caller: Caller, scopes: tuple[str, ...]) -> None:
    if not any(scope in caller.scopes for scope in scopes):
        raise PermissionDenied(caller=caller.name, scope=scopes[0])


def _token_in(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    headers = [value for key, value in metadata if key == "authorization"]
    if not headers:
        raise Unauthenticated("no token came with the call")
    if len(headers) > 1:
        raise Unauthenticated("more than one authorization header came with the call")
    header = headers[0] if isinstance(headers[0], str) else headers[0].decode(errors="replace")
    token = header[len(_SCHEME) :].strip()
    if header[: len(_SCHEME)].lower() != _SCHEME or not token:
        raise Unauthenticated("the call's authorization header is not of the scheme Bearer")
    if len(token) > _LONGEST_TOKEN:
        raise Unauthenticated(f"the call's token is longer than the {_LONGEST_TOKEN} characters that any token has")
    return token


def _certificate_name(auth_context: Mapping[str, Iterable[bytes]]) -> str:
    """The first name in the client's certificate."""
    for kind in _NAMES:
        for name in auth_context.get(kind, ()):
            if text := name.decode(errors="replace").strip():
                return _fit_for_a_log(text[:_LONGEST_NAME])
    raise Unauthenticated(
        "the client certificate names nobody, neither as common name nor as alternative name",
        advice="show one that does",
    )


def _fit_for_a_log(name: str) -> str:
    if name.isprintable():
        return name
    return "".join(each if each.isprintable() else "?" for each in name)
