"""Settings, tokens, TLS and metrics together, in a whole server over a real socket."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from llamarpc.v1.model_pb2 import ListModelsRequest
from llamarpc.v1.text_generation_pb2 import GenerateRequest

from server.bundle import read_bundle
from server.config import Settings, SettingsError
from server.grpc_server import Server
from server.metrics import Metrics
from server.security import load_security
from server.tls import TlsError
from server.token_command import main as token_command
from server.token_entries import TokenFileError
from tests.fakes import RunningServer, ScriptedEngine, error_details, eventually, running_server, write_bundle

PROMPT = GenerateRequest(prompt="Hi", request_id="r-1")


def new_token(file: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[tuple[str, str], ...]:
    """Makes a token in the file; gives the metadata that shows it."""
    assert token_command(["add", str(file), *arguments]) == 0
    return (("authorization", f"Bearer {capsys.readouterr().out.strip()}"),)


async def reflected(running: RunningServer, metadata: Any = ()) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(running.channel)  # type: ignore[arg-type]
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    return await stub.ServerReflectionInfo(iter([request]), metadata=metadata).read()


async def failure_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), error_details(caught.value)["ErrorInfo"].reason


async def test_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "tokens.json"
    gateway = new_token(file, capsys, "gateway", "--scopes", "inference")
    looker = new_token(file, capsys, "looker", "--scopes", "introspection")
    settings = Settings(address="127.0.0.1:0", bundle=tmp_path, token_file=file)
    metrics = Metrics(model="bytes-1", version="1", label_callers=True)
    server_options = {"security": load_security(settings), "metrics": metrics}
    async with running_server(tmp_path, ScriptedEngine([b"ok"]), server_options=server_options) as running:
        assert await failure_of(running.text.Generate(PROMPT)) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "UNAUTHENTICATED",
        )
        wrong = (("authorization", "Bearer llamarpc_" + "0" * 64),)
        assert (await failure_of(running.text.Generate(PROMPT, metadata=wrong)))[1] == "UNAUTHENTICATED"
        assert (await failure_of(running.text.Generate(PROMPT, metadata=looker)))[1] == "PERMISSION_DENIED"
        assert (await running.text.Generate(PROMPT, metadata=gateway)).response == "ok"
        for metadata in (gateway, looker):
            assert len((await running.models.ListModels(ListModelsRequest(), metadata=metadata)).models) == 1
        assert (await failure_of(reflected(running)))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert (await failure_of(reflected(running, gateway)))[0] is grpc.StatusCode.PERMISSION_DENIED
        assert len((await reflected(running, looker)).list_services_response.service) == 4
        assert await running.health.Check(health_pb2.HealthCheckRequest())

        # A token that is taken away stops working, without a restart.
        assert token_command(["remove", str(file), "gateway"]) == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await eventually(lambda: _answers(running, gateway), what="the token is refused")

    lines = [each.getMessage() for each in caplog.records if each.name == "llamarpc.calls"]
    assert lines
    assert not [
        each for each in caplog.records if "Bearer" in str(each.__dict__) or gateway[0][1][7:] in str(each.__dict__)
    ]
    value = metrics.registry.get_sample_value
    assert (value("llamarpc_caller_tokens_total", {"caller": "gateway", "type": "output"}) or 0) >= 2
    assert (value("llamarpc_refusals_total", {"reason": "PERMISSION_DENIED"}) or 0) >= 1


async def _answers(running: RunningServer, metadata: Any) -> bool:
    """False as long as the token is good; raises when it is not."""
    await running.text.Generate(PROMPT, metadata=metadata)
    return False


async def test_tls_and_client_certificates(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    client = authority.issue_cert("10.0.0.1", common_name="billing")
    paths = {name: tmp_path / f"{name}.pem" for name in ("certificate", "key", "ca")}
    certificate.cert_chain_pems[0].write_to_path(paths["certificate"])
    certificate.private_key_pem.write_to_path(paths["key"])
    authority.cert_pem.write_to_path(paths["ca"])
    settings = Settings(
        address="127.0.0.1:0",
        bundle=tmp_path,
        tls_certificate=paths["certificate"],
        tls_key=paths["key"],
        tls_client_ca=paths["ca"],
    )
    metrics = Metrics(model="bytes-1", version="1", label_callers=True)
    write_bundle(tmp_path)
    server = Server(
        settings, read_bundle(tmp_path), ScriptedEngine([b"ok"]), security=load_security(settings), metrics=metrics
    )
    address = await server.start()
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()
    )
    try:
        async with grpc.aio.secure_channel(address, credentials) as channel:
            assert (await RunningServer(server, address, channel).text.Generate(PROMPT)).response == "ok"
        for other in (
            grpc.aio.insecure_channel(address),
            grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(authority.cert_pem.bytes())),
        ):
            async with other as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await RunningServer(server, address, channel).text.Generate(PROMPT)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        await server.drain(0)
    labels = {"caller": "billing", "type": "output"}
    assert metrics.registry.get_sample_value("llamarpc_caller_tokens_total", labels) == 2


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"address": "0.0.0.0:0"}, SettingsError, "--insecure"),
        ({"address": "0.0.0.0:0", "token_file": "t.json"}, SettingsError, "--insecure"),
        ({"token_file": Path("/nowhere/t.json")}, TokenFileError, "/nowhere/t.json"),
        ({"tls_certificate": Path("/nowhere/c"), "tls_key": Path("/nowhere/k")}, TlsError, "/nowhere/"),
    ],
)
def test_what_keeps_a_server_from_starting(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        load_security(Settings(**settings))


def test_other_machines_are_let_in_when_asked_to() -> None:
    assert load_security(Settings(address="0.0.0.0:0", insecure=True)).credentials is None
