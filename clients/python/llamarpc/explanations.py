"""A failed call in words for somebody at a command line: what was wrong, and which option helps.

Knows the options of `__main__.py` by name, and by their texts the ways in which gRPC fails to connect.
"""

from __future__ import annotations

import grpc

from .errors import CallError

# gRPC tells these apart in its text only (seen with 1.81 and 1.85). What has none of them is told as no server there.
_CONNECTIONS = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate can't be trusted; --tls-ca names the file of who signed it"),
    ("Hostname Verification", "its certificate is for other names than the one in --address"),
    (
        "WRONG_VERSION_NUMBER",
        "it does not speak TLS; --insecure does without, and then others can read all, tokens too",
    ),
    ("security handshaker", "a certificate here is damaged, or --tls-key is not the key of --tls-certificate"),
    ("Socket closed", "it hung up; maybe it wants TLS (--tls-ca), or a certificate of yours (--tls-certificate)"),
    ("Connection reset", "it hung up; maybe it wants TLS (--tls-ca), or a certificate of yours (--tls-certificate)"),
)
_NEVER_CONNECTED = "failed to connect"
_ADVICE = {
    "UNAUTHENTICATED": "give your token with --token-file, or in $LLAMARPC_TOKEN",
    "PERMISSION_DENIED": "ask who gave you the token for one that may",
    "CALLER_LIMIT_REACHED": "all calls with your token count, wherever they come from",
    "SLOW_READER": "what reads the output must keep up; write the answer to a file first",
}


def explained(error: CallError, address: str) -> str:
    """Lines for people. `address` is what was called."""
    if error.code is grpc.StatusCode.UNAVAILABLE and not error.request_id:  # no server of ours said that
        return f"{_connection(error.message, address)}\n  {error.message}"
    advice = _ADVICE.get(error.reason or error.code.name)  # proxies give no reasons
    return f"{error}\n  {advice}" if advice else str(error)


def _connection(message: str, address: str) -> str:
    if _NEVER_CONNECTED in message:
        for part, explanation in _CONNECTIONS:
            if part in message:
                return f"no connection to {address}: {explanation}"
    return f"no server answers at {address}; start one with `make serve`, or say where it is with --address"
