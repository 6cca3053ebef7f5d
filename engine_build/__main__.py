"""The command line: `python -m engine_build {llama-cpp,inspect}`.

Turns arguments into a spec, runs it, and shows errors as one message. Exit status: 0 done, 1 `inspect` found changed
files, 2 an error, 130 interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .errors import EngineBuildError, SpecError
from .inspection import inspect
from .llama_cpp.build import build
from .llama_cpp.download import DEFAULT_WEIGHTS
from .progress import say
from .prompt_formats import PROMPT_FORMATS
from .spec import CACHE_VARIABLE, DEFAULT_PARALLEL_REQUESTS, DEFAULT_PREFILL_CHUNK, LlamaCppSpec, cache_dir_from

_PROGRAM = "engine_build"


class _Parser(argparse.ArgumentParser):
    """Errors in our words: `engine_build: error: ...`, also for wrong arguments of a subcommand."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise EngineBuildError(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    try:
        options = _parser().parse_args(arguments)
        if options.command == "inspect":
            return _inspect(options.bundle, as_json=options.json)
        return _build_llama_cpp(options)
    except EngineBuildError as error:
        say(f"{_PROGRAM}: error: {error}")
        return 2
    except KeyboardInterrupt:
        say(f"{_PROGRAM}: interrupted; nothing was left behind")
        return 130


def _build_llama_cpp(options: argparse.Namespace) -> int:
    spec = LlamaCppSpec(
        out=options.out.expanduser(),
        gguf=options.gguf,
        cache_dir=cache_dir_from(),
        model_id=options.model_id,
        prompt_format=options.prompt_format,
        context_length=options.context_length,
        parallel_requests=options.parallel_requests,
        threads=options.threads,
        prefill_chunk=options.prefill_chunk,
        adapters=_adapters(options.lora),
        force=options.force,
    )
    build(spec)
    say(f"Look at it with: {sys.executable} -m engine_build inspect {spec.out}")
    return 0


def _adapters(options: Sequence[str]) -> dict[str, Path]:
    """The files of `NAME=FILE` options, by name."""
    found: dict[str, Path] = {}
    for option in options:
        name, equals, file = option.partition("=")
        if not (equals and file):
            raise SpecError(f"--lora {option!r}: must be NAME=FILE, such as pirate=pirate-lora.gguf")
        if name in found:
            raise SpecError(f"--lora {name}: given twice; every adapter needs a name of its own")
        found[name] = Path(file).expanduser()
    return found


def _inspect(folder: Path, *, as_json: bool) -> int:
    inspection = inspect(folder.expanduser())
    print(inspection.to_json() if as_json else inspection.to_text())
    return 0 if inspection.intact else 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"python -m {_PROGRAM}", description="Makes bundles: what the server reads and what Triton serves."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{llama-cpp,inspect}")
    _add_llama_cpp(commands)
    inspecting = commands.add_parser(
        "inspect", help="show what a bundle is", description="Shows what a bundle is and checks its files."
    )
    inspecting.add_argument("bundle", type=Path, metavar="DIR", help="the bundle's folder")
    inspecting.add_argument("--json", action="store_true", help="for programs")
    return parser


def _add_llama_cpp(commands: argparse._SubParsersAction[_Parser]) -> None:
    building = commands.add_parser(
        "llama-cpp",
        help="make a bundle for the CPU engine",
        description="Makes a bundle for the CPU engine (llama.cpp in Triton's Python backend) out of a GGUF file.",
        epilog=f"The default model is kept in the user's cache folder; {CACHE_VARIABLE} names another one.",
    )
    add = building.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    default_model = f"{DEFAULT_WEIGHTS.title}, which is fetched and cached"
    add("--gguf", type=Path, metavar="FILE", help=f"weights; default: {default_model}")
    add("--model-id", metavar="ID", help="id that callers will name; default: made from the model's name")
    add("--prompt-format", choices=list(PROMPT_FORMATS), help="override the detection; not verified")
    add(
        "--context-length",
        type=int,
        metavar="TOKENS",
        help="prompt and reply together, per request; default: the model's",
    )
    _add_number(building, "--parallel-requests", DEFAULT_PARALLEL_REQUESTS, "requests that generate at the same time")
    _add_number(building, "--threads", 0, "threads that compute, 0 = all usable cores")
    _add_number(building, "--prefill-chunk", DEFAULT_PREFILL_CHUNK, "prompt tokens computed in one step, at most")
    add(
        "--lora",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="LoRA adapter (GGUF) that requests may name; may be given several times",
    )
    add("--force", action="store_true", help="replace another bundle that is there")


def _add_number(parser: argparse.ArgumentParser, option: str, default: int, text: str) -> None:
    parser.add_argument(option, type=int, default=default, metavar="N", help=f"{text} (default {default})")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # so that a stopped build cleans up after itself
    sys.exit(main())
