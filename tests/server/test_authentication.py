"""Who is let in: the table of methods and scopes, headers of every shape, certificates' names; then over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection
from llamarpc.v1 import model_pb2, text_generation_pb2

from server.authentication import Authenticator
from server.errors import PermissionDenied, ServiceError, Unauthenticated
from server.file_watch import watch
from server.status import MAPPINGS
from server.token_entries import new_entry, new_token, text_of_entries
from server.tokens import TokenFile
from tests.fakes import PATIENCE_SECONDS
from tests.waiting import until

GENERATE = "/llamarpc.v1.TextGenerationService/Generate"
LIST_MODELS = "/llamarpc.v1.ModelService/ListModels"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
HEALTH = "/grpc.health.v1.Health/Check"

TOKENS = {name: new_token() for name in ("writer", "reader", "both")}
SCOPES = {"writer": ("inference",), "reader": ("introspection",), "both": ("inference", "introspection")}


def write_tokens(path: Path, *names: str) -> Path:
    entries = [
        new_entry(TOKENS[name], name=name, scopes=SCOPES[name], expires=None, max_calls=0, priority="normal")
        for name in names
    ]
    temporary = path.with_suffix(".new")
    temporary.write_text(text_of_entries(entries))
    temporary.chmod(0o600)
    return temporary.replace(path)


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile.load(write_tokens(tmp_path / "tokens.json", *TOKENS))


@pytest.fixture
def by_token(tokens: TokenFile) -> Authenticator:
    return Authenticator(tokens=tokens, client_certificates=False)


BY_CERTIFICATE = Authenticator(tokens=None, client_certificates=True)
ANYBODY = Authenticator(tokens=None, client_certificates=False)


def bearer(token: str) -> tuple[tuple[str, str | bytes], ...]:
    return (("user-agent", "test"), ("authorization", f"Bearer {token}"))


@pytest.mark.parametrize(
    ("method", "allowed", "scope"),
    [
        (GENERATE, {"writer", "both"}, "inference"),
        ("/llamarpc.v1.TextGenerationService/CountTokens", {"writer", "both"}, "inference"),
        (LIST_MODELS, {"writer", "reader", "both"}, ""),
        (REFLECTION, {"reader", "both"}, "introspection"),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", {"reader", "both"}, "introspection"),
        ("/grpc.channelz.v1.Channelz/GetServers", set(), "unlisted"),
        ("/llamarpc.v1.TextGenerationServiceX/Generate", set(), "unlisted"),
        ("/llamarpc.v2.TextGenerationService/Generate", set(), "unlisted"),
        ("/grpc.health.v1.Health/Check/x", set(), "unlisted"),
        ("", set(), "unlisted"),
    ],
)
def test_methods_and_scopes(by_token: Authenticator, method: str, allowed: set[str], scope: str) -> None:
    for name, token in TOKENS.items():
        if name in allowed:
            caller = by_token.authenticate(method, bearer(token), {})
            assert caller is not None
            assert caller.name == name
        else:
            with pytest.raises(PermissionDenied) as caught:
                by_token.authenticate(method, bearer(token), {})
            assert (caught.value.caller, caught.value.scope) == (name, scope)


def test_every_service_that_the_server_has_is_in_the_table(by_token: Authenticator) -> None:
    services = [
        *text_generation_pb2.DESCRIPTOR.services_by_name.values(),
        *model_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    names = [service.full_name for service in services] + [reflection.SERVICE_NAME]
    for name in names:
        assert by_token.authenticate(f"/{name}/Any", bearer(TOKENS["both"]), {}) is not None
    (health,) = health_pb2.DESCRIPTOR.services_by_name.values()
    assert by_token.authenticate(f"/{health.full_name}/Check", (), {}) is None


WRONG_METADATA: list[tuple[str, tuple[tuple[str, str | bytes], ...], str]] = [
    ("none", (), "no token came with the call"),
    ("other keys", (("x-token", TOKENS["both"]),), "no token came with the call"),
    ("empty", (("authorization", ""),), "not of the scheme Bearer"),
    ("scheme only", (("authorization", "Bearer "),), "not of the scheme Bearer"),
    ("no scheme", (("authorization", TOKENS["both"]),), "not of the scheme Bearer"),
    ("other scheme", (("authorization", f"Basic {TOKENS['both']}"),), "not of the scheme Bearer"),
    ("two", bearer(TOKENS["both"]) + bearer(TOKENS["both"]), "more than one authorization header"),
    ("good and bad", bearer(TOKENS["both"]) + bearer("x"), "more than one authorization header"),
    ("long", bearer("x" * 257), "longer than the 256 characters"),
    ("unknown", bearer("x" * 256), "the token is not known"),
    ("two words", bearer(f"{TOKENS['both']} {TOKENS['both']}"), "the token is not known"),
    ("not text", (("authorization", b"Bearer \xff\xfe"),), "the token is not known"),
]


@pytest.mark.parametrize(
    ("metadata", "text"), [each[1:] for each in WRONG_METADATA], ids=[w[0] for w in WRONG_METADATA]
)
def test_wrong_metadata(by_token: Authenticator, metadata: Any, text: str, caplog: pytest.LogCaptureFixture) -> None:
    for method in (GENERATE, LIST_MODELS, REFLECTION, "/unlisted/Method"):
        with pytest.raises(Unauthenticated) as caught:
            by_token.authenticate(method, metadata, {})
        assert text in str(caught.value)
        assert not any(token in str(caught.value) for token in TOKENS.values())
    assert caplog.records == []


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {} "])
def test_spellings_of_the_scheme(by_token: Authenticator, header: str) -> None:
    for value in (header.format(TOKENS["both"]), header.format(TOKENS["both"]).encode()):
        assert by_token.authenticate(GENERATE, (("authorization", value),), {}) is not None


@pytest.mark.parametrize(
    ("common", "alternative", "name"),
    [
        ([b"alice"], [b"alice.test"], "alice"),
        ([b""], [b"alice.test", b"bob.test"], "alice.test"),
        ([], [b" ", b"spiffe://test/alice"], "spiffe://test/alice"),
        (["Zoë".encode()], [], "Zoë"),
        ([b"a\nlevel=error b\x1b[0m"], [], "a?level=error b?[0m"),
        ([b"\xff"], [], "\N{REPLACEMENT CHARACTER}"),
        ([b"x" * 300], [], "x" * 256),
    ],
)
def test_names_of_certificates(common: list[bytes], alternative: list[bytes], name: str) -> None:
    context = {"x509_common_name": common, "x509_subject_alternative_name": alternative}
    for method in (GENERATE, LIST_MODELS, REFLECTION):
        caller = BY_CERTIFICATE.authenticate(method, (), context)
        assert caller is not None
        assert (caller.name, caller.max_calls, caller.priority) == (name, 0, "high")


@pytest.mark.parametrize("context", [{}, {"x509_common_name": [b""], "x509_subject": [b"OU=x"]}])
def test_a_certificate_that_names_nobody_lets_nobody_in(context: dict[str, list[bytes]]) -> None:
    with pytest.raises(Unauthenticated, match="the client certificate names nobody"):
        BY_CERTIFICATE.authenticate(GENERATE, bearer(TOKENS["both"]), context)


def test_certificates_do_not_open_unlisted_methods() -> None:
    with pytest.raises(PermissionDenied):
        BY_CERTIFICATE.authenticate("/unlisted/Method", (), {"x509_common_name": [b"alice"]})


def test_with_both_the_token_tells_the_caller(tokens: TokenFile) -> None:
    both = Authenticator(tokens=tokens, client_certificates=True)
    context = {"x509_common_name": [b"alice"]}
    caller = both.authenticate(GENERATE, bearer(TOKENS["writer"]), context)
    assert caller is not None
    assert caller.name == "writer"
    with pytest.raises(Unauthenticated):
        both.authenticate(GENERATE, (), context)


def test_without_either_everybody_is_nobody_in_particular() -> None:
    for metadata in ((), bearer("x"), bearer("x") + bearer("y")):
        assert ANYBODY.authenticate(GENERATE, metadata, {}) is None


def test_health_is_open_to_all(by_token: Authenticator) -> None:
    for authenticator in (by_token, BY_CERTIFICATE, ANYBODY):
        assert authenticator.authenticate(HEALTH, (), {}) is None
        assert authenticator.authenticate("/grpc.health.v1.Health/Watch", bearer("x"), {}) is None


# ------------------------------------------------------------------------------ over the wire


@asynccontextmanager
async def echo_server(authenticator: Authenticator) -> AsyncIterator[grpc.aio.Channel]:
    """Every method says who called it, under a stream's or a call's own name."""

    class Echo(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
            async def tell(request: bytes, context: Any) -> bytes:
                method, metadata = handler_call_details.method, context.invocation_metadata()
                try:
                    caller = authenticator.authenticate(method, metadata, context.auth_context())
                except ServiceError as error:
                    await context.abort(MAPPINGS[type(error)].code, str(error))
                return b"nobody" if caller is None else caller.name.encode()

            return grpc.unary_unary_rpc_method_handler(tell)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


async def asked(channel: grpc.aio.Channel, method: str, *headers: str) -> Any:
    metadata = tuple(("authorization", header) for header in headers)
    try:
        return await channel.unary_unary(method)(b"", metadata=metadata, timeout=PATIENCE_SECONDS)
    except grpc.aio.AioRpcError as error:
        return error.code()


async def test_each_refusal_has_its_status(by_token: Authenticator) -> None:
    writer = f"Bearer {TOKENS['writer']}"
    async with echo_server(by_token) as channel:
        assert await asked(channel, GENERATE, writer) == b"writer"
        assert await asked(channel, HEALTH) == b"nobody"
        assert await asked(channel, REFLECTION, writer) is grpc.StatusCode.PERMISSION_DENIED
        assert await asked(channel, GENERATE) is grpc.StatusCode.UNAUTHENTICATED
        assert await asked(channel, GENERATE, writer[:-1]) is grpc.StatusCode.UNAUTHENTICATED
        assert await asked(channel, GENERATE, writer, writer) is grpc.StatusCode.UNAUTHENTICATED


async def test_tokens_come_and_go_within_two_seconds(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "tokens.json", "writer")
    tokens = TokenFile.load(path)
    watching = asyncio.create_task(watch([tokens]))
    async with echo_server(Authenticator(tokens=tokens, client_certificates=False)) as channel:

        async def changed() -> bool:
            answers = [await asked(channel, GENERATE, f"Bearer {TOKENS[name]}") for name in ("writer", "both")]
            return answers == [grpc.StatusCode.UNAUTHENTICATED, b"both"]

        assert not await changed()
        write_tokens(path, "both")
        assert await until(changed, seconds=PATIENCE_SECONDS, what="the new tokens are in force") < 2
    watching.cancel()
