"""Failed calls in words for a command line, from the statuses of our server and the texts of gRPC (1.85)."""

from __future__ import annotations

import grpc
import pytest
from llamarpc import CallError
from llamarpc.explanations import explained

ADDRESS = "host:443"
TO_ALL = "failed to connect to all addresses; last error: "
HANDSHAKE = f"{TO_ALL}UNKNOWN: ipv4:10.0.0.1:443: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: "


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            f"{HANDSHAKE}error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed: OK",
            "no connection to host:443: its certificate can't be trusted; --tls-ca names the file of who signed it",
        ),
        (
            f"{TO_ALL}UNKNOWN: ipv4:10.0.0.1:443: Custom verification check failed with error: UNAUTHENTICATED: "
            "Hostname Verification Check failed.",
            "no connection to host:443: its certificate is for other names than the one in --address",
        ),
        (
            f"{HANDSHAKE}error:100000f7:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid: OK",
            "no connection to host:443: it does not speak TLS; "
            "--insecure does without, and then others can read all, tokens too",
        ),
        (
            f"{TO_ALL}UNKNOWN: ipv4:10.0.0.1:443: Failed to create security handshaker.",
            "no connection to host:443: a certificate here is damaged, "
            "or --tls-key is not the key of --tls-certificate",
        ),
        (
            f"{TO_ALL}UNAVAILABLE: ipv4:10.0.0.1:443: Socket closed",
            "no connection to host:443: it hung up; maybe it wants TLS (--tls-ca), "
            "or a certificate of yours (--tls-certificate)",
        ),
        (
            f"{TO_ALL}UNKNOWN: ipv4:10.0.0.1:443: Failed to connect to remote host: Connection refused",
            "no server answers at host:443; start one with `make serve`, or say where it is with --address",
        ),
        (
            "Socket closed",
            "no server answers at host:443; start one with `make serve`, or say where it is with --address",
        ),
    ],
)
def test_why_there_is_no_connection(message: str, told: str) -> None:
    error = CallError(grpc.StatusCode.UNAVAILABLE, message)
    assert explained(error, ADDRESS).splitlines() == [told, f"  {message}"]


def test_our_server_is_believed_when_it_is_not_available() -> None:
    error = CallError(grpc.StatusCode.UNAVAILABLE, "the engine is away", retry_after_seconds=1, request_id="r1")
    assert explained(error, ADDRESS) == str(error)


@pytest.mark.parametrize(
    ("code", "reason", "advice"),
    [
        ("UNAUTHENTICATED", "UNAUTHENTICATED", "give your token with --token-file, or in $LLAMARPC_TOKEN"),
        ("UNAUTHENTICATED", "", "give your token with --token-file, or in $LLAMARPC_TOKEN"),
        ("PERMISSION_DENIED", "PERMISSION_DENIED", "ask who gave you the token for one that may"),
        (
            "RESOURCE_EXHAUSTED",
            "CALLER_LIMIT_REACHED",
            "all calls with your token count, wherever they come from",
        ),
        ("ABORTED", "SLOW_READER", "what reads the output must keep up; write the answer to a file first"),
    ],
)
def test_what_to_do_comes_last(code: str, reason: str, advice: str) -> None:
    error = CallError(grpc.StatusCode[code], "no", reason=reason, request_id="r1", retry_after_seconds=2)
    assert explained(error, ADDRESS).splitlines() == [
        f"{code}: no",
        "  try again in 2 s",
        "  request id r1",
        f"  {advice}",
    ]


def test_other_errors_speak_for_themselves() -> None:
    error = CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", reason="OVERLOADED", retry_after_seconds=2.5)
    assert explained(error, ADDRESS) == "RESOURCE_EXHAUSTED: full\n  try again in 2.5 s"
