"""`python -m llamarpc "Why is the sky blue?"`: streams the answer to standard output, tells its cost on standard error.

Knows nothing of gRPC channels: `client.py` does. A token comes from a file or the environment, for everybody on the
machine can read the arguments of a command.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TextIO

from .client import DEFAULT_ADDRESS, PRIORITIES, Client
from .errors import CallError
from .explanations import explained
from .v1 import text_generation_pb2 as pb
from .v1.chat_pb2 import ROLE_SYSTEM, ROLE_USER, Message, ResponseFormat

FAILED, WRONG_USAGE, INTERRUPTED, READER_GONE = 1, 2, 130, 141
_EXIT_CODES = (
    "exit codes: 0 answered, 1 the call failed, 2 wrong usage, 130 Ctrl-C, 141 the reader of the pipe went away"
)

# Control characters as something to look at, so that what a model writes can't drive the terminal.
_HARMLESS = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
_HARMLESS |= {0x7F: "\N{SYMBOL FOR DELETE}", **{code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    _check_tls(parser, given)
    if given.prompt is None and (sys.stdin is None or sys.stdin.isatty()):
        parser.error("give a prompt, or pipe one to standard input")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a character that the locale lacks must not end the answer
    answer = _Answer(sys.stdout)
    try:
        return _run(given, answer)
    except BrokenPipeError:
        # As `| head` does. What is left in the buffer must go somewhere, or Python complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llamarpc",
        description="Ask a llamarpc server; the answer appears as it is generated.",
        epilog=_EXIT_CODES,
    )
    add = parser.add_argument
    add("prompt", nargs="?", help="the question; - or none: read it from standard input")
    add("--system", metavar="TEXT", help="instructions that come before the question")
    add("--max-tokens", type=int, metavar="N", help="most tokens to generate (default: the model's, mostly 256)")
    add("--temperature", type=float, metavar="T", help="randomness, 0 to 5; 0 picks the likeliest token each time")
    add("--top-p", type=float, metavar="P", help="sample from the likeliest tokens that sum to this probability")
    add("--seed", type=int, metavar="N", help="1 to 9999999999; the same seed gives the same answer")
    add("--stop", action="append", default=[], metavar="TEXT", help="end the answer before this text; may be repeated")
    add("--json-schema", type=argparse.FileType(encoding="utf-8"), metavar="FILE", help="answer in JSON of this schema")
    add("--lora", default="", metavar="NAME", help="LoRA adapter of the model to use")
    add("--time-limit", type=float, metavar="SECONDS", help="end the answer after so long with what there is")
    add(
        "--address",
        default=os.environ.get("LLAMARPC_SERVER") or DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help="where the server is (default: %(default)s; $LLAMARPC_SERVER sets it)",
    )
    _add_security(parser)
    add("--priority", choices=PRIORITIES, help="how soon, while the server is full (default: normal)")
    add("--timeout", type=float, metavar="SECONDS", help="longest wait for the whole answer (default: no limit)")
    return parser


def _add_security(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "security", "Addresses of this machine are called in plaintext, all others with TLS."
    ).add_argument
    add("--token-file", type=Path, metavar="FILE", help="the token to show (default: what is in $LLAMARPC_TOKEN)")
    add("--tls-ca", type=Path, metavar="FILE", help="certificates of who may sign the server's (default: the system's)")
    add("--tls-certificate", type=Path, metavar="FILE", help="your own certificate, for servers that want one")
    add("--tls-key", type=Path, metavar="FILE", help="the private key of your certificate")
    add("--insecure", action="store_true", help="no TLS: what is on the way can read all, the token too")


def _check_tls(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    if (given.tls_certificate is None) != (given.tls_key is None):
        parser.error("--tls-certificate and --tls-key go together: give both or neither")
    if given.insecure and (given.tls_ca or given.tls_certificate):
        parser.error("--insecure means no TLS; leave it out, or --tls-ca, --tls-certificate and --tls-key")


def _run(given: argparse.Namespace, answer: _Answer) -> int:
    try:
        _stream(given, answer)
    except KeyboardInterrupt:
        answer.end()
        _tell("[cancelled]")
        return INTERRUPTED
    except CallError as error:
        answer.end()
        _tell(f"llamarpc: {explained(error, given.address)}")
        return FAILED
    except (ValueError, OverflowError) as error:  # a number too large for its field, or bytes that are no text
        _tell(f"llamarpc: {error}")
        return WRONG_USAGE
    return 0


def _stream(given: argparse.Namespace, answer: _Answer) -> None:
    started, finished = pb.Started(), pb.Finished()
    schema = given.json_schema and given.json_schema.read()
    with _client(given) as client:
        events = client.stream(
            _conversation(given),
            priority=given.priority,
            max_tokens=given.max_tokens,
            temperature=given.temperature,
            top_p=given.top_p,
            seed=given.seed,
            stop=given.stop,
            lora=given.lora,
            time_limit=None if given.time_limit is None else timedelta(seconds=given.time_limit),
            response_format=None if schema is None else ResponseFormat(json_schema=schema),
        )
        with closing(events):
            for event in events:
                answer.write(event.response)
                started.MergeFrom(event.started)
                finished.MergeFrom(event.finished)
    answer.end()
    _tell(_summary(started, finished))


def _client(given: argparse.Namespace) -> Client:
    try:
        return Client(
            given.address,
            token=_token(given.token_file),
            root_certificates=given.tls_ca,
            certificate=given.tls_certificate,
            private_key=given.tls_key,
            insecure=given.insecure,
            timeout_seconds=given.timeout,
        )
    except OSError as error:
        raise ValueError(f"can't read {error.filename}: {error.strerror}") from None


def _token(file: Path | None) -> str | None:
    if file is not None:
        return file.read_text(encoding="utf-8").strip()
    return os.environ.get("LLAMARPC_TOKEN", "").strip() or None


def _conversation(given: argparse.Namespace) -> str | list[Message]:
    prompt = sys.stdin.buffer.read().decode() if given.prompt in (None, "-") else given.prompt
    if given.system is None:
        return prompt
    return [Message(role=ROLE_SYSTEM, content=given.system), Message(role=ROLE_USER, content=prompt)]


class _Answer:
    """Standard output: pieces appear at once, the last line is ended, a terminal gets no control characters."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._table = _HARMLESS if out.isatty() else {}
        self._in_line = False

    def write(self, text: str) -> None:
        if text:
            self._in_line = not text.endswith("\n")  # first, for Ctrl-C can come at any point
            self._out.write(text.translate(self._table))
            self._out.flush()

    def end(self) -> None:
        if self._in_line:
            self.write("\n")


def _tell(text: str) -> None:
    print(text.translate(_HARMLESS), file=sys.stderr)


def _summary(started: pb.Started, finished: pb.Finished) -> str:
    usage, timing = finished.usage, finished.timing
    parts = [_ending(finished), f"{usage.prompt_tokens} prompt + {usage.completion_tokens} answer tokens"]
    if timing.HasField("time_to_first_token"):
        first_seconds = timing.time_to_first_token.ToTimedelta().total_seconds()
        rest_seconds = timing.duration.ToTimedelta().total_seconds() - first_seconds
        if usage.completion_tokens > 1 and rest_seconds > 0:
            parts.append(f"{(usage.completion_tokens - 1) / rest_seconds:.1f} tokens/s")
        parts.append(f"first token {first_seconds:.2f} s")
    return f"[{' · '.join([*parts, f'seed {started.seed}'])}]"


def _ending(finished: pb.Finished) -> str:
    match finished.finish_reason:
        case pb.FINISH_REASON_STOP:
            return "stop"
        case pb.FINISH_REASON_STOP_SEQUENCE:
            return f"stopped at {finished.stop_sequence!r}"
        case pb.FINISH_REASON_MAX_TOKENS:
            return f"cut at max_tokens {finished.usage.completion_tokens}; use --max-tokens"
        case pb.FINISH_REASON_CONTEXT_LENGTH:
            return f"cut, the model's context of {finished.usage.total_tokens} tokens is full"
        case pb.FINISH_REASON_TIME_LIMIT:
            return "cut at the time limit"
        case pb.FINISH_REASON_TOOL_CALLS:
            return "tool calls"
        case other:  # a newer server's
            return f"finish reason {other}"


if __name__ == "__main__":
    sys.exit(main())
