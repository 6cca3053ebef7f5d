"""`python -m llamarpc` as a subprocess: what is read, what is printed where, exit codes, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import llamarpc
import pytest
import trustme
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from llamarpc.__main__ import _summary
from llamarpc.v1 import chat_pb2
from llamarpc.v1 import text_generation_pb2 as pb
from llamarpc.v1.text_generation_pb2_grpc import TextGenerationServiceServicer

from .conftest import Serve

pytestmark = pytest.mark.real_parts

ANSWER_SECONDS = 60
COMMAND = [sys.executable, "-m", "llamarpc"]
FINISHED = pb.Finished(
    finish_reason=pb.FINISH_REASON_STOP,
    usage=pb.Usage(prompt_tokens=12, completion_tokens=87, total_tokens=99),
    timing=pb.Timing(time_to_first_token=Duration(nanos=210_000_000), duration=Duration(seconds=2, nanos=710_000_000)),
)
SUMMARY = "[stop · 12 prompt + 87 answer tokens · 34.4 tokens/s · first token 0.21 s · seed 123]\n"


class Scripted(TextGenerationServiceServicer):
    """Answers with the given pieces and keeps the last request."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = pieces
        self.request = None
        self.metadata = {}

    def StreamGenerate(self, request, context):
        self.request = request
        self.metadata = dict(context.invocation_metadata())
        yield pb.StreamGenerateResponse(started=pb.Started(seed=123))
        for piece in self.pieces:
            yield pb.StreamGenerateResponse(response=piece)
        yield pb.StreamGenerateResponse(finished=FINISHED)


def environment(**changes: str) -> dict[str, str]:
    read = ("LLAMARPC_SERVER", "LLAMARPC_TOKEN", "SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH")
    kept = {name: value for name, value in os.environ.items() if name not in read}
    package_folder = str(Path(llamarpc.__file__).parent.parent)
    return {**kept, "PYTHONPATH": package_folder, "PYTHONIOENCODING": "utf-8", **changes}


def ask(*arguments: str, stdin: bytes = b"", **changes: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *arguments], input=stdin, capture_output=True, env=environment(**changes), timeout=ANSWER_SECONDS
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_answer_goes_to_stdout_and_its_cost_to_stderr(serve: Serve) -> None:
    done = ask("Why?", "--address", serve(Scripted("Bl", "ue ", "🌊.")))
    assert (done.returncode, done.stdout, done.stderr) == (0, "Blue 🌊.\n", SUMMARY)


def test_every_option_reaches_the_server(serve: Serve, tmp_path: Path) -> None:
    scripted = Scripted("Blue.\n")
    schema = tmp_path / "schema.json"
    schema.write_text('{"const": "é"}', encoding="utf-8")
    options = "--max-tokens 5 --temperature 0 --top-p 0.5 --seed 7 --stop END --stop X --system Brief. --timeout 60"
    more = ["--lora", "poet", "--time-limit", "1.5", "--json-schema", str(schema)]
    done = ask("Why?", *options.split(), *more, LLAMARPC_SERVER=serve(scripted))
    assert (done.returncode, done.stdout) == (0, "Blue.\n")
    messages = [
        chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, content="Brief."),
        chat_pb2.Message(role=chat_pb2.ROLE_USER, content="Why?"),
    ]
    assert scripted.request == pb.GenerateRequest(
        messages=messages,
        max_tokens=5,
        temperature=0,
        top_p=0.5,
        seed=7,
        stop=["END", "X"],
        lora="poet",
        time_limit=Duration(seconds=1, nanos=500_000_000),
        response_format=chat_pb2.ResponseFormat(json_schema='{"const": "é"}'),
    )


@pytest.mark.parametrize("arguments", [["-"], []])
def test_prompt_from_standard_input(serve: Serve, arguments: list[str]) -> None:
    scripted = Scripted("Blue.")
    done = ask(*arguments, "--address", serve(scripted), stdin="Warum?\nÜber…\n".encode())
    assert done.returncode == 0
    assert scripted.request == pb.GenerateRequest(prompt="Warum?\nÜber…\n")


def test_no_prompt_and_nobody_piping_is_wrong_usage() -> None:
    with terminal() as (master, slave):
        done = subprocess.run(
            COMMAND, stdin=slave, capture_output=True, text=True, env=environment(), timeout=ANSWER_SECONDS
        )
        os.close(slave)
        assert read_all(master) == b""
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("error: give a prompt, or pipe one to standard input\n")


@pytest.mark.parametrize(
    ("arguments", "stdin", "told"),
    [
        (["Why?", "--max-tokens", str(2**40)], b"", "llamarpc: Value out of range: 1099511627776\n"),
        (["-"], b"\xff", "llamarpc: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte\n"),
    ],
)
def test_values_that_fit_no_field_are_wrong_usage(arguments: list[str], stdin: bytes, told: str) -> None:
    done = ask(*arguments, stdin=stdin)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)


def test_control_characters_pass_where_no_terminal_is(serve: Serve) -> None:
    done = ask("Why?", "--address", serve(Scripted("a\x1b[31m\x07\u009b\n")))
    assert done.stdout == "a\x1b[31m\x07\u009b\n"


def test_a_terminal_gets_no_control_characters(serve: Serve) -> None:
    address = serve(Scripted("a\x1b", "[31m\x07\u009b\x7f\rb\tc\nd"))
    with terminal() as (master, slave):
        command = subprocess.Popen(
            [*COMMAND, "Why?", "--address", address], stdout=slave, stderr=subprocess.DEVNULL, env=environment()
        )
        os.close(slave)
        shown = read_all(master).decode().replace("\r\n", "\n")
        assert command.wait(ANSWER_SECONDS) == 0
    assert shown == "a␛[31m␇\\x9b␡␍b\tc\nd\n"


def test_wrong_fields_are_told_one_per_line(serve: Serve) -> None:
    class Refusing(TextGenerationServiceServicer):
        def StreamGenerate(self, request, context):
            detail = error_details_pb2.BadRequest()
            detail.field_violations.add(field="max_tokens", description="must be at least 1, is 0")
            detail.field_violations.add(field="seed", description="must be at least 1, is \x1b0")
            packed = AnyMessage()
            packed.Pack(detail)
            wrong = rpc_status.to_status(status_pb2.Status(code=3, message="wrong", details=[packed]))
            context.abort_with_status(wrong)
            yield

    done = ask("Why?", "--address", serve(Refusing()))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "llamarpc: INVALID_ARGUMENT",
        "  max_tokens: must be at least 1, is 0",
        "  seed: must be at least 1, is ␛0",
    ]


def test_a_failure_in_mid_stream_keeps_the_text(serve: Serve) -> None:
    class Breaking(TextGenerationServiceServicer):
        def StreamGenerate(self, request, context):
            yield pb.StreamGenerateResponse(response="Bl")
            context.set_trailing_metadata((("x-request-id", "r1"),))
            context.abort(grpc.StatusCode.UNAVAILABLE, "the engine is gone")

    done = ask("Why?", "--address", serve(Breaking()))
    assert (done.returncode, done.stdout) == (1, "Bl\n")
    assert done.stderr == "llamarpc: UNAVAILABLE: the engine is gone\n  request id r1\n"


def test_without_a_server_it_says_how_to_start_one() -> None:
    done = ask("Why?", "--address", "127.0.0.1:1")
    first_line = done.stderr.splitlines()[0]
    assert (done.returncode, done.stdout) == (1, "")
    assert "127.0.0.1:1;" in first_line
    assert "`make serve`" in first_line


@pytest.mark.parametrize(
    ("file", "variable", "shown"),
    [
        (None, None, None),
        ("from-file\n", None, "Bearer from-file"),
        (None, "from-variable", "Bearer from-variable"),
        ("from-file\n", "from-variable", "Bearer from-file"),
        (None, "", None),
    ],
)
def test_the_token_is_the_files_or_the_variables(
    serve: Serve, tmp_path: Path, file: str | None, variable: str | None, shown: str | None
) -> None:
    scripted = Scripted("Blue.")
    arguments = ["Why?", "--address", serve(scripted), "--priority", "high"]
    if file is not None:
        token_file = tmp_path / "token"
        token_file.write_text(file)
        arguments += ["--token-file", str(token_file)]
    done = ask(*arguments, **({} if variable is None else {"LLAMARPC_TOKEN": variable}))
    assert (done.returncode, scripted.metadata.get("authorization")) == (0, shown)
    assert scripted.metadata["x-priority"] == "high"


def test_a_refusal_says_how_to_give_a_token(serve: Serve) -> None:
    class Gate(TextGenerationServiceServicer):
        def StreamGenerate(self, request, context):
            context.set_trailing_metadata((("x-request-id", "r1"),))
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not known to this server")
            yield

    done = ask("Why?", "--address", serve(Gate()), LLAMARPC_TOKEN="secret")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "llamarpc: UNAUTHENTICATED: the token is not known to this server",
        "  request id r1",
        "  give your token with --token-file, or in $LLAMARPC_TOKEN",
    ]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls(authority: trustme.CA, name: str, *, clients: trustme.CA | None = None) -> grpc.ServerCredentials:
    issued = authority.issue_cert(name)
    own = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    return grpc.ssl_server_credentials([own], clients and clients.cert_pem.bytes(), clients is not None)


def test_tls_with_certificates_of_both_sides(serve: Serve, authority: trustme.CA, tmp_path: Path) -> None:
    address = serve(Scripted("Blue."), tls(authority, "127.0.0.1", clients=authority))
    own = authority.issue_cert("me.example.org")
    ca, certificate, key = (tmp_path / name for name in ("ca.pem", "certificate.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    own.cert_chain_pems[0].write_to_path(certificate)
    own.private_key_pem.write_to_path(key)
    files = ["--tls-ca", str(ca), "--tls-certificate", str(certificate), "--tls-key", str(key)]
    done = ask("Why?", "--address", address, *files)
    assert (done.returncode, done.stdout) == (0, "Blue.\n")


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"])
def test_other_machines_are_called_with_tls_and_the_authorities_of_the_environment(
    serve: Serve, authority: trustme.CA, tmp_path: Path, variable: str
) -> None:
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    # Not loopback by the rule, yet Linux takes it for this machine.
    address = serve(Scripted("Blue."), tls(authority, "0.0.0.0"), host="0.0.0.0")
    done = ask("Why?", "--address", address, **{variable: str(ca)})
    assert (done.returncode, done.stdout) == (0, "Blue.\n")


def test_a_certificate_that_is_not_trusted_is_told(serve: Serve, authority: trustme.CA) -> None:
    address = serve(Scripted("Blue."), tls(authority, "0.0.0.0"), host="0.0.0.0")
    done = ask("Why?", "--address", address, GRPC_VERBOSITY="NONE")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == (
        f"llamarpc: no connection to {address}: its certificate can't be trusted; "
        "--tls-ca names the file of who signed it"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tls-key", "k"], "error: --tls-certificate and --tls-key go together: give both or neither"),
        (["--tls-certificate", "c"], "error: --tls-certificate and --tls-key go together: give both or neither"),
        (
            ["--insecure", "--tls-ca", "a"],
            "error: --insecure means no TLS; leave it out, or --tls-ca, --tls-certificate and --tls-key",
        ),
        (["--tls-ca", "/nowhere/ca.pem"], "llamarpc: can't read /nowhere/ca.pem: No such file or directory"),
        (["--token-file", "/nowhere/token"], "llamarpc: can't read /nowhere/token: No such file or directory"),
    ],
)
def test_wrong_options_of_security_are_wrong_usage(arguments: list[str], told: str) -> None:
    done = ask("Why?", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith(told)


class Endless(TextGenerationServiceServicer):
    """Gives a piece of text whenever it is told to, until the call is cancelled."""

    def __init__(self) -> None:
        self.go_on, self.cancelled = threading.Semaphore(1), threading.Event()

    def StreamGenerate(self, request, context):
        context.add_callback(lambda: (self.cancelled.set(), self.go_on.release()))
        while self.go_on.acquire(timeout=ANSWER_SECONDS) and not self.cancelled.is_set():
            yield pb.StreamGenerateResponse(response="blue ")


@pytest.fixture
def _heeded_ctrl_c() -> Iterator[None]:
    """A shell that runs the tests in the background ignores SIGINT for them, which children would inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeded_ctrl_c")
def test_ctrl_c_cancels_on_the_server(serve: Serve) -> None:
    endless = Endless()
    with running("Why?", "--address", serve(endless)) as command:
        assert command.stdout.read(5) == b"blue "
        command.send_signal(signal.SIGINT)
        rest, told = command.communicate(timeout=ANSWER_SECONDS)
    assert (command.returncode, rest, told) == (130, b"\n", b"[cancelled]\n")
    assert endless.cancelled.wait(ANSWER_SECONDS)


def test_ends_quietly_when_its_reader_goes_away(serve: Serve) -> None:
    endless = Endless()
    with running("Why?", "--address", serve(endless)) as command:
        assert command.stdout.read(5) == b"blue "
        command.stdout.close()
        endless.go_on.release()
        assert command.wait(ANSWER_SECONDS) == 141
        assert command.stderr.read() == b""
    assert endless.cancelled.wait(ANSWER_SECONDS)


def test_help_tells_the_exit_codes() -> None:
    assert "exit codes: 0 answered" in ask("--help").stdout


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, SUMMARY.strip()[1:-1]),
        ({"finish_reason": pb.FINISH_REASON_MAX_TOKENS}, "cut at max_tokens 87; use --max-tokens"),
        ({"finish_reason": pb.FINISH_REASON_STOP_SEQUENCE, "stop_sequence": "\n"}, r"stopped at '\n'"),
        ({"finish_reason": pb.FINISH_REASON_CONTEXT_LENGTH}, "cut, the model's context of 99 tokens is full"),
        ({"finish_reason": pb.FINISH_REASON_TIME_LIMIT}, "cut at the time limit"),
        ({"finish_reason": pb.FINISH_REASON_TOOL_CALLS}, "tool calls"),
        ({"finish_reason": 99}, "finish reason 99"),
    ],
)
def test_summary_says_why_the_answer_ended(changes: dict, told: str) -> None:
    finished = pb.Finished(usage=FINISHED.usage, timing=FINISHED.timing, **{"finish_reason": 1, **changes})
    assert _summary(pb.Started(seed=123), finished).startswith(f"[{told}")


def test_summary_leaves_out_what_was_not_measured() -> None:
    finished = pb.Finished(finish_reason=pb.FINISH_REASON_STOP, usage=pb.Usage(prompt_tokens=12))
    assert _summary(pb.Started(seed=1), finished) == "[stop · 12 prompt + 0 answer tokens · seed 1]"


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as command:
        try:
            yield command
        finally:
            command.kill()


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal. The caller closes the second, which programs see, when its program has it."""
    master, slave = os.openpty()
    yield master, slave
    os.close(master)


def read_all(master: int) -> bytes:
    """What was written to a terminal until its last writer went."""
    read = b""
    while True:
        try:
            read += os.read(master, 4096)
        except OSError:  # EIO: Linux's end of file of a terminal
            return read
