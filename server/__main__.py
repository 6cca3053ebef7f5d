"""`python -m server`: settings in, a served model out. Tells people how to call it; knows no wiring."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import uvloop

from .bundle import Bundle, BundleError
from .chat.tokenizer import TokenizerError
from .config import SettingsError, read_settings, unknown_variables
from .grpc_server import ListenError
from .serve import serve
from .triton_installation import EmbeddedError

_HOW_TO_CALL = """\

{name} is served on {address}. Ways to call it:

  1. our client
       {python} -m llamarpc --address {address} "Why is the sky blue?"

  2. grpcurl, which asks the server for the schema
       grpcurl -plaintext -d '{{"prompt": "Why is the sky blue?"}}' {address} \\
           llamarpc.v1.TextGenerationService/StreamGenerate

  3. five lines of Python, for {python}
       from llamarpc import Client
       with Client("{address}") as client:
           for event in client.stream("Why is the sky blue?"):
               print(event.response, end="", flush=True)
           print()

Ctrl-C stops the server.
"""

log = logging.getLogger("server")


def main() -> int:
    """Runs the server; gives the exit status: 0 after a stop that was asked for, 2 where it could not start."""
    # Texts are encoded one by one, so threads would gain nothing, and forking (to start Triton) would give a warning.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        settings = read_settings(sys.argv[1:], os.environ)
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
        for name in unknown_variables(os.environ):
            log.warning("%s is not a setting of this server; 'python -m server --help' lists them", name)
        uvloop.run(serve(settings, on_serving=_tell_how_to_call if settings.embedded else _log_serving))
    except (SettingsError, BundleError, TokenizerError, ListenError, EmbeddedError) as error:
        print(f"server: error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped", file=sys.stderr)
    return 0


def _tell_how_to_call(address: str, bundle: Bundle) -> None:
    executable = Path(sys.executable)
    python = executable.relative_to(Path.cwd()) if executable.is_relative_to(Path.cwd()) else executable
    print(_HOW_TO_CALL.format(name=bundle.display_name, address=address, python=python), flush=True)


def _log_serving(address: str, bundle: Bundle) -> None:
    log.info("serving %s on %s", bundle.model_id, address)


if __name__ == "__main__":
    sys.exit(main())
