"""TLS with real handshakes, tokens in what servers get, and the rule that keeps tokens off the open network.

0.0.0.0 is called where an address must not be loopback: by the rule it is not, yet Linux takes it for this machine.
"""

from __future__ import annotations

import re
import socket
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from llamarpc import CallError, Client
from llamarpc.credentials import channel_credentials, is_loopback, token_metadata
from llamarpc.v1 import model_pb2
from llamarpc.v1 import text_generation_pb2 as pb
from llamarpc.v1.model_pb2_grpc import ModelServiceServicer
from llamarpc.v1.text_generation_pb2_grpc import TextGenerationServiceServicer

from .conftest import Serve

TOKEN = f"llamarpc_{'5e' * 32}"
ELSEWHERE = "0.0.0.0"
ANSWER_SECONDS = 20


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


def pem(authority: trustme.CA) -> bytes:
    return authority.cert_pem.bytes()


def pair(issued: trustme.LeafCert) -> dict[str, bytes]:
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
    return {"certificate": chain, "private_key": issued.private_key_pem.bytes()}


def server_credentials(
    authority: trustme.CA, *names: str, client_authority: trustme.CA | None = None
) -> grpc.ServerCredentials:
    own = pair(authority.issue_cert(*names))
    clients = None if client_authority is None else pem(client_authority)
    return grpc.ssl_server_credentials([(own["private_key"], own["certificate"])], clients, clients is not None)


class Gate(TextGenerationServiceServicer):
    """Answers those who show the token, and keeps what each call showed."""

    def __init__(self) -> None:
        self.shown: list[str | None] = []

    def Generate(self, request, context):
        self._check(context)
        return pb.GenerateResponse(response="Blue.")

    def StreamGenerate(self, request, context):
        self._check(context)
        yield pb.StreamGenerateResponse(response="Blue.")

    def CountTokens(self, request, context):
        self._check(context)
        return pb.CountTokensResponse(prompt_tokens=3)

    def _check(self, context):
        shown = dict(context.invocation_metadata()).get("authorization")
        self.shown.append(shown)
        if shown != f"Bearer {TOKEN}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token came with the call")


class ModelGate(ModelServiceServicer):
    def ListModels(self, request, context):
        assert ("authorization", f"Bearer {TOKEN}") in context.invocation_metadata()
        return model_pb2.ListModelsResponse()


@pytest.mark.parametrize(
    ("target", "here"),
    [
        ("127.0.0.1:50051", True),
        ("127.9.9.9:50051", True),
        ("127.0.0.1", True),
        ("localhost:50051", True),
        ("LocalHost:50051", True),
        ("[::1]:50051", True),
        ("[::1]", True),
        ("unix:relative.sock", True),
        ("unix:///run/llamarpc.sock", True),
        ("unix-abstract:llamarpc", True),
        ("dns:localhost:50051", True),
        ("dns:///localhost:50051", True),
        ("ipv4:127.0.0.1:50051", True),
        ("ipv4:127.0.0.1:50051,127.0.0.2:50051", True),
        ("ipv6:[::1]:50051", True),
        ("ipv4:127.0.0.1:50051,10.0.0.1:50051", False),
        ("dns://8.8.8.8/localhost:50051", False),
        ("xds:///localhost:50051", False),
        ("localhost.example.org:443", False),
        ("example.org:443", False),
        ("10.0.0.1:50051", False),
        (f"{ELSEWHERE}:50051", False),
        ("[::]:50051", False),
        ("[2001:db8::1]:50051", False),
        ("::1:50051", False),
        ("127.1:50051", False),
        ("127.0.0.1.example.org:50051", False),
        ("127.0.0.1:50051@example.org:443", False),
        ("127.0.0.1:50051/x", False),
        ("127.0.0.1:https", False),
        ("[::1]example.org:443", False),
        ("", False),
    ],
)
def test_what_counts_as_this_machine(target: str, here: bool) -> None:
    assert is_loopback(target) is here
    assert (channel_credentials(target) is None) is here
    assert channel_credentials(target, insecure=True) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
@pytest.mark.parametrize("as_file", [False, True])
def test_tls_with_the_authority_given(
    serve: Serve, authority: trustme.CA, tmp_path: Path, host: str, as_file: bool
) -> None:
    address = serve(Gate(), server_credentials(authority, host), host=host)
    file = tmp_path / "ca.pem"
    file.write_bytes(pem(authority))
    with Client(address, token=TOKEN, root_certificates=file if as_file else pem(authority)) as client:
        assert client.generate("Why?").response == "Blue."


def test_authorities_with_notes_between_them(serve: Serve, authority: trustme.CA) -> None:
    address = serve(Gate(), server_credentials(authority, "127.0.0.1"))
    with Client(address, token=TOKEN, root_certificates="# Főtanúsítvány\n".encode() + pem(authority)) as client:
        assert client.generate("Why?").response == "Blue."


def test_off_loopback_it_is_tls_with_the_systems_authorities(
    serve: Serve, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(pem(authority))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)  # gRPC's own comes first
    address = serve(Gate(), server_credentials(authority, ELSEWHERE), host=ELSEWHERE)
    with Client(address, token=TOKEN) as client:
        assert client.generate("Why?").response == "Blue."


@pytest.mark.parametrize(
    ("name", "trusted", "told"),
    [
        ("127.0.0.1", "stranger", "CERTIFICATE_VERIFY_FAILED"),
        ("example.org", "authority", "Hostname Verification Check failed"),
    ],
)
def test_a_server_that_may_be_another_gets_no_call(
    serve: Serve, request: pytest.FixtureRequest, name: str, trusted: str, told: str
) -> None:
    gate = Gate()
    address = serve(gate, server_credentials(request.getfixturevalue("authority"), name))
    roots = pem(request.getfixturevalue(trusted))
    with (
        Client(address, token=TOKEN, root_certificates=roots) as client,
        pytest.raises(CallError, match=told) as caught,
    ):
        client.generate("Why?")
    assert (caught.value.code, gate.shown) == (grpc.StatusCode.UNAVAILABLE, [])


def test_a_server_that_wants_a_certificate_gets_ours(serve: Serve, authority: trustme.CA, stranger: trustme.CA) -> None:
    address = serve(Gate(), server_credentials(authority, "127.0.0.1", client_authority=stranger))
    own = pair(stranger.issue_cert(common_name="gateway"))
    with Client(address, token=TOKEN, root_certificates=pem(authority), **own) as client:
        assert client.generate("Why?").response == "Blue."
    with Client(address, token=TOKEN, root_certificates=pem(authority)) as client, pytest.raises(CallError) as caught:
        client.generate("Why?")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("tls", [False, True])
def test_the_token_goes_with_every_call(serve: Serve, authority: trustme.CA, tls: bool) -> None:
    gate = Gate()
    credentials = server_credentials(authority, "127.0.0.1") if tls else None
    roots = pem(authority) if tls else None
    with Client(serve(gate, credentials), token=TOKEN, root_certificates=roots) as client:
        client.generate("Why?")
        list(client.stream("Why?", priority="low"))
        client.count_tokens("Why?")
    assert gate.shown == [f"Bearer {TOKEN}"] * 3
    with Client(serve(ModelGate(), credentials), token=TOKEN, root_certificates=roots) as client:
        assert client.models() == []


def test_without_a_token_none_is_sent_and_the_refusal_is_told(serve: Serve) -> None:
    gate = Gate()
    with Client(serve(gate)) as client, pytest.raises(CallError, match="UNAUTHENTICATED: no token came"):
        client.generate("Why?")
    assert gate.shown == [None]


def test_insecure_sends_the_token_in_plaintext_anywhere(serve: Serve) -> None:
    with Client(serve(Gate(), host=ELSEWHERE), token=TOKEN, insecure=True) as client:
        assert client.generate("Why?").response == "Blue."


@contextmanager
def listener() -> Iterator[tuple[int, bytearray]]:
    """A port where nobody speaks TLS, and all that callers send there before they are answered in plaintext."""
    got = bytearray()

    def listen() -> None:
        with suppress(OSError):  # it was shut down
            while True:
                connection, _ = server.accept()
                with connection, suppress(OSError):
                    got.extend(connection.recv(65_536))
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], got
        server.shutdown(socket.SHUT_RDWR)
        thread.join(ANSWER_SECONDS)


def test_off_loopback_a_server_without_tls_gets_neither_token_nor_prompt() -> None:
    with listener() as (port, got):
        with Client(f"{ELSEWHERE}:{port}", token=TOKEN) as client, pytest.raises(CallError) as caught:
            client.generate("Why is the sky blue?")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    assert got[:1] == b"\x16"  # a TLS handshake
    assert TOKEN.encode() not in got
    assert b"sky" not in got


def test_the_listener_would_have_noticed() -> None:
    with listener() as (port, got):
        with Client(f"{ELSEWHERE}:{port}", insecure=True) as client, pytest.raises(CallError):
            client.generate("Why is the sky blue?")
    assert got.startswith(b"PRI * HTTP/2.0")


def test_the_token_is_shown_nowhere(serve: Serve) -> None:
    class Refusing(TextGenerationServiceServicer):
        def Generate(self, request, context):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")

    with Client(serve(Refusing()), token=TOKEN) as client, pytest.raises(CallError) as caught:
        client.generate("Why?")
    error = caught.value
    shown = [repr(client), str(error), repr(error), repr(error.__cause__), *traceback.format_exception(error)]
    assert TOKEN not in "\n".join(shown)


@pytest.mark.parametrize(
    "token", ["", " ", "secret\n", " secret", "Bearer secret", "sec\x00ret", "sécret", '{"tokens": ["secret"]}']
)
def test_what_is_no_token_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match="tokens are letters, digits") as caught:
        Client(token=token)
    assert "secret" not in str(caught.value)


def test_tokens_of_others_are_tokens_too() -> None:
    assert token_metadata("eyJhbGciOi.JIUzI1_NiJ9-x+/==") == (("authorization", "Bearer eyJhbGciOi.JIUzI1_NiJ9-x+/=="),)


@pytest.mark.parametrize("part", ["root_certificates", "certificate", "private_key"])
def test_insecure_with_tls_is_a_contradiction(authority: trustme.CA, part: str) -> None:
    with pytest.raises(ValueError, match="insecure=True means no TLS"):
        Client(insecure=True, **{part: pem(authority)})


@pytest.mark.parametrize("part", ["certificate", "private_key"])
def test_certificate_and_key_go_together(authority: trustme.CA, part: str) -> None:
    own = {part: pair(authority.issue_cert("me.example.org"))[part]}
    with pytest.raises(ValueError, match="certificate and private_key go together"):
        Client(**own)


def encrypted(key: bytes) -> bytes:
    return serialization.load_pem_private_key(key, password=None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )


DAMAGED = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize(
    ("part", "content", "told"),
    [
        ("root_certificates", b"nonsense", "root_certificates{} holds no certificate in PEM, or a damaged one"),
        ("root_certificates", b"\xff", "root_certificates{} holds no certificate in PEM, or a damaged one"),
        ("root_certificates", DAMAGED, "root_certificates{} holds no certificate in PEM, or a damaged one"),
        ("certificate", b"nonsense", "certificate{} holds no certificate in PEM"),
        ("private_key", b"nonsense", "private_key{} holds no private key in PEM"),
        ("private_key", DAMAGED, "private_key{} holds no private key in PEM"),
        ("private_key", None, "private_key{} is encrypted; gRPC needs the key without a password"),
    ],
)
def test_what_is_not_pem_is_refused_by_its_name(
    authority: trustme.CA, tmp_path: Path, part: str, content: bytes | None, told: str, as_file: bool
) -> None:
    good = {"root_certificates": pem(authority), **pair(authority.issue_cert("me.example.org"))}
    content = encrypted(good["private_key"]) if content is None else content
    file = tmp_path / "wrong.pem"
    file.write_bytes(content)
    text = told.format(f" {file}" if as_file else "")
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Client(**{**good, part: file if as_file else content})


def test_text_is_neither_a_file_nor_pem_and_is_not_shown(authority: trustme.CA) -> None:
    own = pair(authority.issue_cert("me.example.org"))
    with pytest.raises(TypeError, match=r"private_key must be a pathlib\.Path of a PEM file, or its content") as caught:
        Client(certificate=own["certificate"], private_key=own["private_key"].decode())  # type: ignore[arg-type]
    assert "BEGIN" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ca\.pem"):
        Client(root_certificates=tmp_path / "ca.pem")
