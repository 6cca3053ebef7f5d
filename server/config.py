"""The server's settings: one frozen value, read once from the command line and the environment.

Each setting is a field of `Settings`, a flag (`--drain-seconds`) and a variable (`LLAMARPC_DRAIN_SECONDS`); the flag
wins. Nothing else in the server takes settings from the environment. Knows what is legal, not what it is for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

PREFIX = "LLAMARPC_"
_CACHE_DIR = Path("~/.cache/llamarpc")
Address: TypeAlias = str
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


class SettingsError(Exception):
    """A setting is wrong; the text names the flag or variable, the value and what is allowed."""


def _setting(default: Any, help_: str, *, minimum: float = 0, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": help_, "minimum": minimum, "choices": choices})


# What gRPC's core and the engine can hold: a C int.
_MAXIMUM = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to serve. Times are in seconds, sizes in the unit that the name says."""

    address: Address = _setting("127.0.0.1:50051", "where to listen; port 0 picks a free one")
    bundle: Path | None = _setting(None, "folder made by engine_build; required unless embedded")
    embedded: bool = _setting(False, "start and watch a Triton of its own, on this machine's CPU")
    triton_address: str = _setting("127.0.0.1:8001", "gRPC target of Triton, or of several; not used when embedded")
    triton_model: str = _setting("tensorrt_llm", "name of the model that Triton serves")
    token_file: Path | None = _setting(None, "file of tokens that callers must show; python -m server.tokens edits it")
    tls_certificate: Path | None = _setting(None, "PEM file: the server's certificate and the intermediate ones")
    tls_key: Path | None = _setting(None, "PEM file: its key, without a password")
    tls_client_ca: Path | None = _setting(None, "PEM file: authorities; callers must show a certificate of theirs")
    insecure: bool = _setting(False, "let other machines call without TLS and authentication")
    workers: int = _setting(1, "server processes that share the address, one for each core to use", minimum=1)
    drain_seconds: float = _setting(30.0, "longest wait for running calls after SIGTERM")
    drain_delay_seconds: float = _setting(0.0, "of it: still take calls for so long, until balancers have noticed")
    max_call_seconds: float = _setting(600.0, "longest call, where the caller's own deadline is not sooner", minimum=1)
    max_connection_age_seconds: int = _setting(0, "close connections of this age gently, to rebalance; 0: never")
    stall_seconds: float = _setting(30.0, "a stream that is not read for so long is ended", minimum=0.1)
    engine_stall_seconds: float = _setting(
        30.0, "an answer whose engine falls silent goes on at another Triton", minimum=1
    )
    max_running: int = _setting(0, "requests at the engine at a time, per worker; 0: as many as it computes together")
    max_waiting: int = _setting(64, "requests that may wait for that; more are refused")
    max_calls_per_caller: int = _setting(0, "calls of one caller at a time, running or waiting; 0: no limit")
    max_field_characters: int = _setting(131_072, "longest text of one field of a request", minimum=1)
    max_prompt_characters: int = _setting(524_288, "longest prompt, all messages together", minimum=1)
    max_message_bytes: int = _setting(16 * 1024 * 1024, "largest request message", minimum=1024)
    max_metadata_bytes: int = _setting(16 * 1024, "largest metadata of a call", minimum=1024)
    max_streams_per_connection: int = _setting(1_000, "calls of one connection at a time", minimum=1)
    buffer_tokens: int = _setting(1_024, "tokens kept for a caller that reads slowly, per stream", minimum=1)
    reflection: bool = _setting(True, "let tools such as grpcurl ask for the schema")
    cache_dir: Path = _setting(_CACHE_DIR, "where the default model and the embedded Triton are kept")
    log_level: str = _setting("info", "least severe messages to log", choices=LOG_LEVELS)
    log_format: str = _setting("text", "how log lines look: text or json", choices=LOG_FORMATS)
    metrics_address: Address | None = _setting(None, "where Prometheus may fetch /metrics over HTTP; none: nowhere")
    metrics_callers: bool = _setting(False, "count tokens by caller in the metrics")


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def flag_of(name: str) -> str:
    """The command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from flags, then variables, then defaults. Raises SettingsError; `--help` prints and exits."""
    given = vars(_parser().parse_args(arguments))
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        if given[setting.name] is not None:
            values[setting.name] = _parsed(setting, given[setting.name], flag_of(setting.name))
        elif variable_of(setting.name) in environment:
            variable = variable_of(setting.name)
            values[setting.name] = _parsed(setting, environment[variable], variable)
    values.setdefault("cache_dir", _default_cache_dir(environment))
    settings = Settings(**values)
    if settings.bundle is None and not settings.embedded:
        raise SettingsError(f"say which model to serve with --bundle DIR ({variable_of('bundle')}), or use --embedded")
    if "," in settings.triton_address and not settings.triton_address.startswith(("ipv4:", "ipv6:")):
        raise SettingsError(
            f"--triton-address is {settings.triton_address!r}; write ipv4:A:PORT,B:PORT for several Tritons, or dns:///NAME:PORT"
        )
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise SettingsError("--tls-certificate and --tls-key go together: give both or neither")
    if settings.tls_client_ca is not None and settings.tls_certificate is None:
        raise SettingsError("--tls-client-ca needs --tls-certificate and --tls-key")
    return settings


def _default_cache_dir(environment: Mapping[str, str]) -> Path:
    if base := environment.get("XDG_CACHE_HOME"):
        return Path(base) / "llamarpc"
    return _CACHE_DIR.expanduser()


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Variables with our prefix that nothing reads. No error: Kubernetes adds some for a Service called llamarpc."""
    known = {variable_of(setting.name) for setting in fields(Settings)} | _READ_BY_OTHERS
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


# Variables with our prefix that are no settings: the CPU engine's, the client's, what a supervisor tells its workers.
_READ_BY_OTHERS = frozenset(
    {"LLAMARPC_ENGINE_LOG", "LLAMARPC_SERVER", "LLAMARPC_TOKEN", "LLAMARPC_WORKER", "LLAMARPC_READY_FD"}
)


def environment_of(settings: Settings) -> dict[str, str]:
    """The variables that give the same settings to another process."""
    values = {setting.name: getattr(settings, setting.name) for setting in fields(Settings)}
    return {variable_of(name): _text(value) for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; 'python -m server --help' lists all settings")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m server",
        description="Serve a Llama model over gRPC. Each flag is also an environment variable, "
        f"such as {variable_of('drain_seconds')} for {flag_of('drain_seconds')}.",
        allow_abbrev=False,
    )
    for setting in fields(Settings):
        default = "none" if setting.default is None else str(setting.default).lower()
        parser.add_argument(
            flag_of(setting.name),
            help=f"{setting.metadata['help']} (default: {default})",
            metavar="true|false" if _kind(setting) == "bool" else "VALUE",
            nargs="?" if _kind(setting) == "bool" else None,
            const="true" if _kind(setting) == "bool" else None,
        )
    return parser


def _kind(setting: Field[Any]) -> str:
    return str(setting.type).removesuffix(" | None")


def _parsed(setting: Field[Any], text: str, source: str) -> Any:
    try:
        value = _PARSERS[_kind(setting)](text)
    except ValueError:
        raise SettingsError(f"{source} is {text!r}, must be {_WANTED[_kind(setting)]}") from None
    minimum, choices = setting.metadata["minimum"], setting.metadata["choices"]
    if _kind(setting) in ("int", "float") and not minimum <= value <= _MAXIMUM:
        raise SettingsError(f"{source} is {text}, must be a number from {minimum} to {_MAXIMUM}")
    if choices and value not in choices:
        raise SettingsError(f"{source} is {text!r}, must be one of {', '.join(choices)}")
    return value


def _bool(text: str) -> bool:
    try:
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _address(text: str) -> str:
    host, _, port = text.strip().rpartition(":")
    if not text.startswith("unix:") and not (host and port.isdecimal() and int(port) < 65_536):
        raise ValueError(text)
    return text.strip()


def _non_empty(text: str) -> str:
    if not text.strip():
        raise ValueError(text)
    return text.strip()


_PARSERS: dict[str, Callable[[str], Any]] = {
    "str": _non_empty,
    "Address": _address,
    "int": int,
    "float": float,
    "bool": _bool,
    "Path": lambda text: Path(_non_empty(text)).expanduser(),
}
_WANTED = {
    "str": "some text",
    "Address": "HOST:PORT, or unix:PATH",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "Path": "a path",
}
