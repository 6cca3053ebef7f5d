"""Log lines: one per call, complete, and never broken by what callers send."""

from __future__ import annotations

import io
import json
import logging
import re
from dataclasses import fields, replace
from typing import Any

import pytest

from server import call_log
from server.call_log import LOG_FORMATS, JsonFormatter, TextFormatter, log_call, log_handler
from server.call_record import CallRecord

ANSWERED = CallRecord(
    method="/llamarpc.v1.TextGenerationService/Generate",
    request_id="r-1",
    status="OK",
    caller="alice",
    model="llama",
    adapter="pirate",
    prompt_tokens=10,
    completion_tokens=5,
    finish_reason="STOP",
    queue_seconds=0.0204,
    first_token_seconds=0.5,
    duration_seconds=2.50004,
)
BAD_TEXTS = [
    "two\nlines",
    "two\r\nlines",
    'quo"te',
    "back\\slash",
    "nul\0",
    "esc\x1b[2Jape",
    "next\x85line",
    "line\u2028separator",
    "lone \ud800 surrogate",
    "\udc00\ud800",
    "pair 😀",
    "ünïcode",
]


class Lines:
    """A logger of its own that writes to memory."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(formatter)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.split("\n") if line]


@pytest.fixture
def calls_logger(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """In no hierarchy: what pytest captures it would send to another process, which lone surrogates break."""
    logger = logging.Logger(call_log.log.name, logging.INFO)
    monkeypatch.setattr(call_log, "log", logger)
    return logger


@pytest.fixture
def in_json(calls_logger: logging.Logger) -> Lines:
    lines = Lines(JsonFormatter())
    calls_logger.addHandler(lines.handler)
    return lines


@pytest.fixture
def in_text(calls_logger: logging.Logger) -> Lines:
    lines = Lines(TextFormatter())
    calls_logger.addHandler(lines.handler)
    return lines


def test_an_answer_in_json(in_json: Lines) -> None:
    log_call(ANSWERED)
    (line,) = in_json.json
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "llamarpc.calls",
        "message": "call",
        "method": "/llamarpc.v1.TextGenerationService/Generate",
        "status": "OK",
        "request_id": "r-1",
        "caller": "alice",
        "model": "llama",
        "adapter": "pirate",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "finish_reason": "STOP",
        "queue_ms": 20.4,
        "first_token_ms": 500.0,
        "duration_ms": 2500.0,
    }


def test_what_is_not_known_is_left_out(in_json: Lines) -> None:
    log_call(
        CallRecord(method="/m", request_id="r", status="UNAUTHENTICATED", reason="UNAUTHENTICATED", duration_seconds=0)
    )
    (line,) = in_json.json
    assert set(line) == {
        *("time", "level", "logger", "message"),
        "method",
        "status",
        "reason",
        "request_id",
        "duration_ms",
    }


def test_every_field_of_the_record_has_its_place(in_json: Lines) -> None:
    log_call(replace(ANSWERED, reason="X"))
    renamed = {name.name.replace("_seconds", "_ms") for name in fields(CallRecord)}
    assert renamed <= set(in_json.json[0])


@pytest.mark.parametrize(
    ("status", "level"),
    [
        ("OK", "info"),
        ("CANCELLED", "info"),
        ("INVALID_ARGUMENT", "info"),
        ("INTERNAL", "warning"),
        ("UNAVAILABLE", "warning"),
    ],
)
def test_levels(in_json: Lines, status: str, level: str) -> None:
    log_call(replace(ANSWERED, status=status))
    assert in_json.json[0]["level"] == level


def test_an_answer_in_text(in_text: Lines) -> None:
    log_call(ANSWERED)
    expected = (
        "INFO call /llamarpc.v1.TextGenerationService/Generate OK request_id=r-1 caller=alice model=llama "
        "adapter=pirate prompt_tokens=10 completion_tokens=5 finish_reason=STOP queue_ms=20.4 first_token_ms=500.0 "
        "duration_ms=2500.0\n"
    )
    assert in_text.text.endswith(expected)


def test_nothing_is_made_where_nothing_is_logged(in_json: Lines, calls_logger: logging.Logger) -> None:
    calls_logger.setLevel(logging.WARNING)
    log_call(ANSWERED)
    assert in_json.text == ""


@pytest.mark.parametrize("text", BAD_TEXTS, ids=range(len(BAD_TEXTS)))
def test_no_text_breaks_a_json_line(in_json: Lines, calls_logger: logging.Logger, text: str) -> None:
    log_call(replace(ANSWERED, request_id=text, adapter=text))
    calls_logger.info("about %s", text)
    kept = text.replace("\ud800", "\N{REPLACEMENT CHARACTER}").replace("\udc00", "\N{REPLACEMENT CHARACTER}")
    assert [len(in_json.json), in_json.text.count("\n"), in_json.text.isascii()] == [2, 2, True]
    assert in_json.json[0]["request_id"] == kept
    assert in_json.json[1]["message"] == f"about {kept}"


@pytest.mark.parametrize("text", BAD_TEXTS, ids=range(len(BAD_TEXTS)))
def test_no_text_breaks_a_text_line(in_text: Lines, calls_logger: logging.Logger, text: str) -> None:
    log_call(replace(ANSWERED, request_id=text))
    calls_logger.info("about %s", text)
    assert len(in_text.text.splitlines()) == in_text.text.count("\n") == 2
    assert in_text.text.replace("\n", "").isprintable()


def test_escaped_surrogates_stay_apart_from_real_pairs(in_json: Lines, calls_logger: logging.Logger) -> None:
    calls_logger.info("😀")
    assert r"\ud83d\ude00" in in_json.text
    assert in_json.json[0]["message"] == "😀"


def failure(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_a_traceback_is_one_field_in_json(in_json: Lines, calls_logger: logging.Logger) -> None:
    calls_logger.error("it broke", exc_info=failure("two\nlines"), stack_info=True)
    (line,) = in_json.json
    assert line["message"] == "it broke"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: two\nlines")
    assert line["stack"].startswith("Stack (most recent call last):")


def test_a_traceback_follows_the_line_in_text(in_text: Lines, calls_logger: logging.Logger) -> None:
    calls_logger.error("it broke", exc_info=failure("esc\x1b[2Jape"))
    first, second, *_, last = in_text.text.splitlines()
    assert first.endswith("ERROR it broke")
    assert second == "Traceback (most recent call last):"
    assert last == r"ValueError: esc\x1b[2Jape"


def test_a_traceback_is_the_same_for_two_handlers(in_json: Lines, in_text: Lines, calls_logger: logging.Logger) -> None:
    calls_logger.error("it broke", exc_info=failure("x"))
    assert in_json.json[0]["exception"] in in_text.text


@pytest.mark.parametrize("log_format", LOG_FORMATS)
def test_a_handler_for_each_format(log_format: str) -> None:
    handler = log_handler(log_format)
    assert type(handler.formatter) is LOG_FORMATS[log_format]
