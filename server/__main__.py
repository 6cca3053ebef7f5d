"""`python -m server`: settings in, a served model out. Tells people how to call it; knows no wiring."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from functools import partial
from pathlib import Path

import uvloop

from .bundle import Bundle, BundleError
from .call_log import log_handler
from .chat.tokenizer import TokenizerError
from .config import Settings, SettingsError, read_settings, unknown_variables
from .grpc_server import ListenError
from .metrics_endpoint import MetricsListenError
from .serve import serve
from .tls import TlsError
from .token_entries import TokenFileError
from .tracing import TracingError
from .triton_installation import EmbeddedError
from .workers import WORKER_VARIABLE, WorkerError, supervise, tell_supervisor

_HOW_TO_CALL = """\

{name} is served on {address}. Ways to call it:

  1. our client
       {python} -m llamarpc --address {address}{client_flags} "Why is the sky blue?"

  2. grpcurl, which asks the server for the schema
       grpcurl {grpcurl_flags}-d '{{"prompt": "Why is the sky blue?"}}' {address} \\
           llamarpc.v1.TextGenerationService/StreamGenerate

  3. five lines of Python, for {python}
{client_imports}       from llamarpc import Client
       with Client("{address}"{client_arguments}) as client:
           for event in client.stream("Why is the sky blue?"):
               print(event.response, end="", flush=True)
           print()

Ctrl-C stops the server.
"""

# What keeps a server from starting: each of their texts says what to do.
_CANNOT_START = (
    SettingsError,
    BundleError,
    TokenizerError,
    TokenFileError,
    TlsError,
    ListenError,
    MetricsListenError,
    TracingError,
    EmbeddedError,
    WorkerError,
)

log = logging.getLogger("server")


def main() -> int:
    """Runs the server; gives the exit status: 0 after a stop that was asked for, 2 where it could not start."""
    # Texts are encoded one by one, so threads would gain nothing, and forking (to start Triton) would give a warning.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        settings = read_settings(sys.argv[1:], os.environ)
        logging.basicConfig(level=settings.log_level.upper(), handlers=[log_handler(settings.log_format)])
        for name in unknown_variables(os.environ):
            log.warning("%s is not a setting of this server; 'python -m server --help' lists them", name)
        uvloop.run(_serving(settings))
    except _CANNOT_START as error:
        print(f"server: error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped", file=sys.stderr)
    return 0


def _serving(settings: Settings) -> Coroutine[None, None, None]:
    """The whole run of this process: a server, a worker of several, or the supervisor of them."""
    if WORKER_VARIABLE in os.environ:
        return serve(settings, on_serving=lambda address, bundle: tell_supervisor(os.environ), shares_port=True)
    on_serving = partial(_tell_how_to_call, settings) if settings.embedded else _log_serving
    return (supervise if settings.workers > 1 else serve)(settings, on_serving=on_serving)


def _tell_how_to_call(settings: Settings, address: str, bundle: Bundle) -> None:
    executable = Path(sys.executable)
    python = executable.relative_to(Path.cwd()) if executable.is_relative_to(Path.cwd()) else executable
    shown = {"name": bundle.display_name, "address": address, "python": python, **_what_callers_show(settings)}
    print(_HOW_TO_CALL.format(**shown), flush=True)


def _what_callers_show(settings: Settings) -> dict[str, str]:
    """The options that callers need for TLS and tokens, in each of the three ways."""
    flags, arguments, grpcurl = "", "", "-plaintext "
    if settings.tls_certificate is not None:
        flags, arguments, grpcurl = " --tls-ca CA.pem", ', root_certificates=Path("CA.pem")', "-cacert CA.pem "
    elif settings.insecure:
        flags, arguments = " --insecure", ", insecure=True"
    if settings.tls_client_ca is not None:
        flags += " --tls-certificate CERT.pem --tls-key KEY.pem"
        arguments += ', certificate=Path("CERT.pem"), private_key=Path("KEY.pem")'
        grpcurl += "-cert CERT.pem -key KEY.pem "
    if settings.token_file is not None:
        flags += " --token-file TOKEN"
        arguments += ', token=Path("TOKEN").read_text().strip()'
        grpcurl += '-H "authorization: Bearer $(cat TOKEN)" '
    imports = "       from pathlib import Path\n" if "Path" in arguments else ""
    return {"client_imports": imports, "client_flags": flags, "client_arguments": arguments, "grpcurl_flags": grpcurl}


def _log_serving(address: str, bundle: Bundle) -> None:
    log.info("serving %s on %s", bundle.model_id, address)


if __name__ == "__main__":
    sys.exit(main())
