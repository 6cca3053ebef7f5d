"""Settings: flags, then variables, then defaults; every error names its source and what is allowed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from server.config import (
    Settings,
    SettingsError,
    environment_of,
    flag_of,
    read_settings,
    unknown_variables,
    variable_of,
)

BUNDLE = ["--bundle", "b"]


def test_defaults() -> None:
    settings = read_settings(BUNDLE, {})
    assert settings.bundle == Path("b")
    assert (settings.address, settings.triton_address) == ("127.0.0.1:50051", "127.0.0.1:8001")
    assert (settings.embedded, settings.reflection, settings.log_level) == (False, True, "info")
    assert (settings.drain_seconds, settings.max_field_characters, settings.buffer_tokens) == (30.0, 131_072, 1_024)


# Setting, text, value.
TEXTS: list[tuple[str, str, Any]] = [
    ("address", "[::]:0", "[::]:0"),
    ("bundle", "/x/y", Path("/x/y")),
    ("embedded", "yes", True),
    ("embedded", "FALSE", False),
    ("triton_address", " dns:///t:8001 ", "dns:///t:8001"),
    ("triton_model", "other", "other"),
    ("drain_seconds", "0", 0.0),
    ("drain_seconds", "1.5", 1.5),
    ("token_file", "/t.json", Path("/t.json")),
    ("tls_certificate", "/c.pem", Path("/c.pem")),
    ("tls_key", "/k.pem", Path("/k.pem")),
    ("tls_client_ca", "/a.pem", Path("/a.pem")),
    ("insecure", "true", True),
    ("log_format", "json", "json"),
    ("metrics_address", "127.0.0.1:0", "127.0.0.1:0"),
    ("metrics_callers", "1", True),
    ("workers", "2", 2),
    ("drain_delay_seconds", "2.5", 2.5),
    ("max_call_seconds", "1", 1.0),
    ("max_connection_age_seconds", "60", 60),
    ("stall_seconds", "0.5", 0.5),
    ("engine_stall_seconds", "5", 5.0),
    ("max_running", "3", 3),
    ("max_waiting", "0", 0),
    ("max_calls_per_caller", "4", 4),
    ("max_metadata_bytes", "1024", 1_024),
    ("max_streams_per_connection", "1", 1),
    ("max_field_characters", "1", 1),
    ("max_prompt_characters", "7", 7),
    ("max_message_bytes", "1024", 1_024),
    ("buffer_tokens", "1", 1),
    ("reflection", "0", False),
    ("cache_dir", "/c", Path("/c")),
    ("log_level", "debug", "debug"),
]


# Settings that are an error without these.
COMPANIONS = {
    "tls_certificate": ("--tls-key", "k"),
    "tls_key": ("--tls-certificate", "c"),
    "tls_client_ca": ("--tls-certificate", "c", "--tls-key", "k"),
}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--triton-address", "a:1,b:1"], "write ipv4:A:PORT,B:PORT"),
        (["--tls-key", "k"], "--tls-certificate and --tls-key go together"),
        (["--tls-certificate", "c"], "--tls-certificate and --tls-key go together"),
        (["--tls-client-ca", "a"], "--tls-client-ca needs --tls-certificate and --tls-key"),
    ],
)
def test_settings_that_need_others(flags: list[str], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        read_settings([*BUNDLE, *flags], {})


def test_every_setting_is_tested() -> None:
    assert {name for name, _, _ in TEXTS} == {setting.name for setting in fields(Settings)}


@pytest.mark.parametrize(("name", "text", "value"), TEXTS)
def test_flags_and_variables(name: str, text: str, value: Any) -> None:
    base = [*([] if name == "bundle" else BUNDLE), *COMPANIONS.get(name, ())]
    assert getattr(read_settings([*base, flag_of(name), text], {}), name) == value
    assert getattr(read_settings(base, {variable_of(name): text}), name) == value


@pytest.mark.parametrize("arguments", [[], [flag for name, text, _ in TEXTS for flag in (flag_of(name), text)]])
def test_settings_can_be_handed_on_through_the_environment(arguments: list[str]) -> None:
    settings = read_settings([*BUNDLE, *arguments], {})
    assert read_settings([], environment_of(settings)) == settings


def test_flag_wins_over_variable() -> None:
    environment = {"LLAMARPC_TRITON_MODEL": "variable", "LLAMARPC_BUNDLE": "v", "LLAMARPC_EMBEDDED": "true"}
    settings = read_settings(["--triton-model", "flag", "--embedded", "false"], environment)
    assert (settings.triton_model, settings.bundle, settings.embedded) == ("flag", Path("v"), False)


def test_wrong_variable_does_not_matter_where_a_flag_wins() -> None:
    assert read_settings([*BUNDLE, "--drain-seconds", "1"], {"LLAMARPC_DRAIN_SECONDS": "x"}).drain_seconds == 1


@pytest.mark.parametrize(("flag", "value"), [("--embedded", "embedded"), ("--reflection", "reflection")])
def test_switch_without_a_value_is_true(flag: str, value: str) -> None:
    assert getattr(read_settings([*BUNDLE, flag], {}), value) is True


# Setting, text, what the error says after its source.
WRONG = [
    ("drain_seconds", "soon", "is 'soon', must be a number"),
    ("drain_seconds", "-1", "is -1, must be a number from 0 to 2147483647"),
    ("drain_seconds", "nan", "is nan, must be a number from 0 to 2147483647"),
    ("drain_seconds", "inf", "is inf, must be"),
    ("max_field_characters", "0", "is 0, must be a number from 1 to 2147483647"),
    ("max_field_characters", "1.5", "is '1.5', must be a whole number"),
    ("max_message_bytes", "1023", "is 1023, must be a number from 1024 to 2147483647"),
    ("buffer_tokens", "", "is '', must be a whole number"),
    ("reflection", "maybe", "is 'maybe', must be true or false"),
    ("max_message_bytes", "2147483648", "is 2147483648, must be"),
    ("address", " ", "is ' ', must be HOST:PORT"),
    ("address", "localhost", "is 'localhost', must be HOST:PORT"),
    ("address", ":50051", "is ':50051', must be HOST:PORT"),
    ("address", "localhost:70000", "is 'localhost:70000', must be HOST:PORT"),
    ("triton_model", " ", "is ' ', must be some text"),
    ("bundle", "", "is '', must be a path"),
    ("log_level", "loud", "is 'loud', must be one of debug, info, warning, error"),
]


@pytest.mark.parametrize(("name", "text", "message"), WRONG)
def test_errors_name_their_source(name: str, text: str, message: str) -> None:
    for arguments, environment, source in [
        ([f"{flag_of(name)}={text}"], {}, flag_of(name)),
        ([], {variable_of(name): text}, variable_of(name)),
    ]:
        with pytest.raises(SettingsError) as caught:
            read_settings(arguments, environment)
        assert str(caught.value).startswith(f"{source} {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"--bundle DIR \(LLAMARPC_BUNDLE\), or use --embedded"),
        (["--drain", "1"], "unrecognized arguments: --drain 1; .*--help"),
        (["--drain-seconds"], "--drain-seconds: expected one argument; .*--help"),
        (["bundle"], "unrecognized arguments: bundle"),
    ],
)
def test_wrong_command_lines(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(arguments, {})


def test_embedded_needs_no_bundle() -> None:
    assert read_settings(["--embedded"], {}).bundle is None


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ([], {"XDG_CACHE_HOME": "/x"}, Path("/x/llamarpc")),
        ([], {"XDG_CACHE_HOME": "/x", "LLAMARPC_CACHE_DIR": "/v"}, Path("/v")),
        (["--cache-dir", "/f"], {"XDG_CACHE_HOME": "/x", "LLAMARPC_CACHE_DIR": "/v"}, Path("/f")),
        ([], {"XDG_CACHE_HOME": ""}, Path.home() / ".cache" / "llamarpc"),
        ([], {}, Path.home() / ".cache" / "llamarpc"),
        (["--cache-dir", "~/c"], {}, Path.home() / "c"),
    ],
)
def test_cache_folder(arguments: list[str], environment: dict[str, str], expected: Path) -> None:
    assert read_settings([*BUNDLE, *arguments], environment).cache_dir == expected


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_settings(["--help"], {})
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(flag_of(setting.name) in text for setting in fields(Settings))
    assert "LLAMARPC_DRAIN_SECONDS" in text


def test_unknown_variables() -> None:
    environment = {"LLAMARPC_ADRESS": "", "LLAMARPC_ADDRESS": "", "LLAMARPC_ENGINE_LOG": "", "OTHER": ""}
    assert unknown_variables(environment) == ["LLAMARPC_ADRESS"]
