"""TLS with real handshakes: who gets through, which files are refused, and certificates that change under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from server.file_watch import watch
from server.tls import TlsCredentials, TlsError, TlsPaths
from tests.fakes import PATIENCE_SECONDS
from tests.waiting import until

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
HOST = "127.0.0.1"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def stranger() -> trustme.CA:
    return trustme.CA()


def put(path: Path, content: bytes) -> Path:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(content)
    return temporary.replace(path)


def put_pair(folder: Path, issued: trustme.LeafCert) -> TlsPaths:
    put(folder / "certificate.pem", b"".join(each.bytes() for each in issued.cert_chain_pems))
    put(folder / "key.pem", issued.private_key_pem.bytes())
    return TlsPaths(certificate=folder / "certificate.pem", key=folder / "key.pem")


def with_client_ca(paths: TlsPaths, *authorities: trustme.CA) -> TlsPaths:
    ca = put(paths.certificate.parent / "client_ca.pem", b"".join(each.cert_pem.bytes() for each in authorities))
    return TlsPaths(certificate=paths.certificate, key=paths.key, client_ca=ca)


@asynccontextmanager
async def echo_server(credentials: grpc.ServerCredentials | None) -> AsyncIterator[str]:
    class Echo(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
            async def echo(requests: Any, context: Any) -> Any:
                async for request in requests:
                    yield b",".join(context.auth_context().get(request.decode(), ()))

            return grpc.stream_stream_rpc_method_handler(echo)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    address = f"{HOST}:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    yield f"{HOST}:{port}"
    await server.stop(None)


def trusting(authority: trustme.CA, own: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    key, chain = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes()) if own else (None, None)
    return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)


def channel_to(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own for each
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


async def asked(address: str, credentials: grpc.ChannelCredentials | None, what: str = "security_level") -> Any:
    """One call's answer over a connection of its own, or its status."""
    async with channel_to(address, credentials) as channel:
        call = channel.stream_stream("/test.Echo/Echo")(timeout=PATIENCE_SECONDS)
        try:
            await call.write(what.encode())
            answer = await call.read()
            return answer if isinstance(answer, bytes) else await call.code()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return await call.code()


# -------------------------------------------------------------------------------- who gets in


async def test_tls_clients_get_in_and_others_do_not(
    tmp_path: Path, authority: trustme.CA, stranger: trustme.CA
) -> None:
    paths = put_pair(tmp_path, authority.issue_cert(HOST))
    async with echo_server(TlsCredentials.load(paths).credentials) as address:
        assert await asked(address, trusting(authority)) == b"TSI_PRIVACY_AND_INTEGRITY"
        assert await asked(address, trusting(stranger)) is UNAVAILABLE
        assert await asked(address, None) is UNAVAILABLE


async def test_a_tls_client_on_a_plaintext_port(authority: trustme.CA) -> None:
    async with echo_server(None) as address:
        assert await asked(address, trusting(authority)) is UNAVAILABLE


async def test_clients_refuse_an_expired_certificate_and_one_of_another_name(
    tmp_path: Path, authority: trustme.CA
) -> None:
    past = datetime(2020, 6, 1, tzinfo=timezone.utc)
    old = authority.issue_cert(HOST, not_before=past, not_after=past + timedelta(days=30))
    expired = TlsCredentials.load(put_pair(tmp_path, old), clock=lambda: past.timestamp() + 1)
    async with echo_server(expired.credentials) as address:
        assert await asked(address, trusting(authority)) is UNAVAILABLE
    elsewhere = TlsCredentials.load(put_pair(tmp_path, authority.issue_cert("elsewhere.test")))
    async with echo_server(elsewhere.credentials) as address:
        assert await asked(address, trusting(authority)) is UNAVAILABLE


async def test_client_certificates(tmp_path: Path, authority: trustme.CA, stranger: trustme.CA) -> None:
    past = datetime(2020, 6, 1, tzinfo=timezone.utc)
    paths = with_client_ca(put_pair(tmp_path, authority.issue_cert(HOST)), authority)
    good = authority.issue_cert("alice.test", common_name="alice")
    expired = authority.issue_cert("alice.test", not_before=past, not_after=past + timedelta(days=1))
    async with echo_server(TlsCredentials.load(paths).credentials) as address:
        assert await asked(address, trusting(authority, good), "x509_common_name") == b"alice"
        assert await asked(address, trusting(authority, good), "x509_subject_alternative_name") == b"alice.test"
        for refused in (None, stranger.issue_cert("alice.test", common_name="alice"), expired):
            assert await asked(address, trusting(authority, refused)) is UNAVAILABLE


@pytest.mark.parametrize("kind", [trustme.KeyType.RSA, trustme.KeyType.ECDSA])
async def test_kinds_of_keys(tmp_path: Path, kind: trustme.KeyType, authority: trustme.CA) -> None:
    paths = put_pair(tmp_path, authority.issue_cert(HOST, key_type=kind))
    async with echo_server(TlsCredentials.load(paths).credentials) as address:
        assert await asked(address, trusting(authority)) == b"TSI_PRIVACY_AND_INTEGRITY"


# ------------------------------------------------------------------------------- files' errors


@dataclass(frozen=True)
class Files:
    """What is wrong with one file, beside two good ones."""

    file: str
    content: bytes | None
    text: str


def other_key(key: Any, password: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem: bytes = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    return pem


def valid(start: str, end: str) -> bytes:
    days = [datetime.fromisoformat(day) for day in (start, end)]
    issued = trustme.CA().issue_cert(HOST, not_before=days[0], not_after=days[1])
    return issued.cert_chain_pems[0].bytes()


RSA_KEY = rsa.generate_private_key(65_537, 2_048)
NO_KIND = "is of a kind that gRPC can't serve with; use RSA, or ECDSA with P-256 or P-384"
WRONG_FILES = {
    "no certificate": Files("certificate.pem", None, "can't read {}: No such file or directory"),
    "no key": Files("key.pem", None, "can't read {}: No such file or directory"),
    "no client ca": Files("client_ca.pem", None, "can't read {}: No such file or directory"),
    "empty certificate": Files("certificate.pem", b"", "{} holds no certificate in PEM"),
    "key as certificate": Files("certificate.pem", other_key(ec.generate_private_key(ec.SECP256R1())), "{} holds no"),
    "damaged": Files(
        "certificate.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "{} holds no certificate"
    ),
    "empty client ca": Files("client_ca.pem", b"", "{} holds no certificate in PEM"),
    "empty key": Files("key.pem", b"", "{} holds no private key in PEM"),
    "encrypted key": Files(
        "key.pem", other_key(ec.generate_private_key(ec.SECP256R1()), b"secret"), "the key in {} is encrypted"
    ),
    "another key": Files(
        "key.pem", other_key(ec.generate_private_key(ec.SECP256R1())), "the key in {} is not the key of the certificate"
    ),
    "an rsa key": Files("key.pem", other_key(RSA_KEY), "the key in {} is not the key of the certificate"),
    "ed25519": Files("key.pem", other_key(ed25519.Ed25519PrivateKey.generate()), "the key in {} " + NO_KIND),
    "p-521": Files("key.pem", other_key(ec.generate_private_key(ec.SECP521R1())), "the key in {} " + NO_KIND),
    "expired": Files(
        "certificate.pem", valid("2020-01-01", "2021-02-03"), "the certificate in {} expired on 2021-02-03"
    ),
    "to come": Files(
        "certificate.pem", valid("2090-01-01", "2091-01-01"), "the certificate in {} is not valid before 2090-01-01"
    ),
    "expired client ca": Files(
        "client_ca.pem", valid("2020-01-01", "2021-02-03"), "the certificate in {} expired on 2021-02-03"
    ),
}


def put_wrong(folder: Path, wrong: Files) -> None:
    if wrong.content is None:
        (folder / wrong.file).unlink()
    else:
        put(folder / wrong.file, wrong.content)


@pytest.mark.parametrize("wrong", WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_files_that_can_not_be_served_with(tmp_path: Path, wrong: Files, authority: trustme.CA) -> None:
    paths = with_client_ca(put_pair(tmp_path, authority.issue_cert(HOST)), authority)
    put_wrong(tmp_path, wrong)
    with pytest.raises(TlsError) as caught:
        TlsCredentials.load(paths)
    assert str(caught.value).startswith(wrong.text.format(tmp_path / wrong.file))
    assert "PRIVATE" not in str(caught.value)


def test_an_rsa_key_that_is_damaged_in_its_secret_part(tmp_path: Path, authority: trustme.CA) -> None:
    paths = put_pair(tmp_path, authority.issue_cert(HOST, key_type=trustme.KeyType.RSA))
    whole = serialization.load_pem_private_key(paths.key.read_bytes(), None)
    assert isinstance(whole, rsa.RSAPrivateKey)
    numbers = whole.private_numbers()
    damaged = rsa.RSAPrivateNumbers(
        p=numbers.p,
        q=numbers.q,
        d=numbers.d ^ 4,
        dmp1=numbers.dmp1 ^ 4,
        dmq1=numbers.dmq1,
        iqmp=numbers.iqmp,
        public_numbers=numbers.public_numbers,
    )
    put(paths.key, other_key(damaged.private_key(unsafe_skip_rsa_key_validation=True)))
    with pytest.raises(TlsError, match="is not the key of the certificate"):
        TlsCredentials.load(paths)


def test_an_old_authority_may_stay_beside_a_new_one(tmp_path: Path, authority: trustme.CA) -> None:
    paths = with_client_ca(put_pair(tmp_path, authority.issue_cert(HOST)), authority)
    assert paths.client_ca is not None
    put(paths.client_ca, valid("2020-01-01", "2021-02-03") + authority.cert_pem.bytes())
    TlsCredentials.load(paths)


# ------------------------------------------------------------------------------------- changes


async def test_a_changed_certificate_is_served_within_two_seconds_and_open_connections_live_on(
    tmp_path: Path, authority: trustme.CA, stranger: trustme.CA
) -> None:
    credentials = TlsCredentials.load(put_pair(tmp_path, authority.issue_cert(HOST)))
    watching = asyncio.create_task(watch([credentials]))
    async with echo_server(credentials.credentials) as address, channel_to(address, trusting(authority)) as channel:
        stream = channel.stream_stream("/test.Echo/Echo")(timeout=PATIENCE_SECONDS)
        await stream.write(b"security_level")
        assert await stream.read() == b"TSI_PRIVACY_AND_INTEGRITY"
        assert await asked(address, trusting(stranger)) is UNAVAILABLE

        put_pair(tmp_path, stranger.issue_cert(HOST))

        async def new_one_served() -> bool:
            return isinstance(await asked(address, trusting(stranger)), bytes)

        assert await until(new_one_served, seconds=PATIENCE_SECONDS, what="the new certificate is served") < 2
        assert await asked(address, trusting(authority)) is UNAVAILABLE
        await stream.write(b"security_level")
        assert await stream.read() == b"TSI_PRIVACY_AND_INTEGRITY"
        again = channel.stream_stream("/test.Echo/Echo")(timeout=PATIENCE_SECONDS)
        await again.write(b"security_level")
        assert await again.read() == b"TSI_PRIVACY_AND_INTEGRITY"
    watching.cancel()


async def test_a_changed_authority_of_the_callers(tmp_path: Path, authority: trustme.CA, stranger: trustme.CA) -> None:
    paths = with_client_ca(put_pair(tmp_path, authority.issue_cert(HOST)), authority)
    credentials = TlsCredentials.load(paths)
    async with echo_server(credentials.credentials) as address:
        for now, before in ((authority, stranger), (stranger, authority), (authority, stranger)):
            with_client_ca(paths, now)
            credentials.reload_if_changed()
            assert isinstance(await asked(address, trusting(authority, now.issue_cert("a.test"))), bytes)
            assert await asked(address, trusting(authority, before.issue_cert("a.test"))) is UNAVAILABLE


@pytest.mark.parametrize("wrong", WRONG_FILES.values(), ids=WRONG_FILES.keys())
async def test_wrong_changes_keep_the_old_certificate_and_are_told_once(
    tmp_path: Path, wrong: Files, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    issued = authority.issue_cert(HOST)
    paths = with_client_ca(put_pair(tmp_path, issued), authority)
    credentials = TlsCredentials.load(paths)
    put_wrong(tmp_path, wrong)
    for _ in range(5):
        credentials.reload_if_changed()
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith(wrong.text.format(tmp_path / wrong.file))
    assert record.getMessage().endswith("; the certificate of before is served")
    async with echo_server(credentials.credentials) as address:
        assert isinstance(await asked(address, trusting(authority, issued)), bytes)


async def test_a_pair_written_one_file_after_the_other(
    tmp_path: Path, authority: trustme.CA, stranger: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    paths = put_pair(tmp_path, authority.issue_cert(HOST))
    credentials = TlsCredentials.load(paths)
    async with echo_server(credentials.credentials) as address:
        new = stranger.issue_cert(HOST)
        put(paths.certificate, new.cert_chain_pems[0].bytes())
        credentials.reload_if_changed()
        assert isinstance(await asked(address, trusting(authority)), bytes)
        put(paths.key, new.private_key_pem.bytes())
        credentials.reload_if_changed()
        assert isinstance(await asked(address, trusting(stranger)), bytes)
    assert [record.levelname for record in caplog.records if record.name == "server.tls"] == ["ERROR"]


# -------------------------------------------------------------------------------------- expiry

START = datetime(2030, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("lifetime_days", "quiet_days", "warned_days"),
    [(90, 75.9, 76.1), (365, 350.9, 351.1), (30, 19.9, 20.1), (3, 1.9, 2.1)],
)
def test_a_certificate_that_expires_soon_is_told_daily(
    tmp_path: Path,
    authority: trustme.CA,
    lifetime_days: int,
    quiet_days: float,
    warned_days: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    end = START + timedelta(days=lifetime_days)
    day = [0.0]
    paths = put_pair(tmp_path, authority.issue_cert(HOST, not_before=START, not_after=end))
    credentials = TlsCredentials.load(paths, clock=lambda: (START + timedelta(days=day[0])).timestamp())

    def told(*days: float) -> list[str]:
        caplog.clear()
        for day[0] in days:
            credentials.reload_if_changed()
        return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]

    when = f"{end:%Y-%m-%d} 00:00 UTC"
    warning = f"WARNING the certificate in {paths.certificate} expires on {when}"
    assert told(0, quiet_days) == []
    assert told(warned_days, warned_days + 0.1, warned_days + 0.2) == [warning]
    expired = f"ERROR the certificate in {paths.certificate} expired on {when}"
    assert told(lifetime_days + 1, lifetime_days + 1.5, lifetime_days + 2) == [expired] * 2
    day[0] = lifetime_days + 2
    put_pair(tmp_path, authority.issue_cert(HOST, not_before=START, not_after=end + timedelta(days=400)))
    assert told(day[0], day[0] + 1) == []


def test_one_that_expires_soon_is_told_at_the_start(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    paths = put_pair(tmp_path, authority.issue_cert(HOST, not_before=START, not_after=START + timedelta(days=90)))
    TlsCredentials.load(paths, clock=lambda: (START + timedelta(days=80)).timestamp())
    (record,) = caplog.records
    assert "expires on 2030-04-01 00:00 UTC" in record.getMessage()
