"""Formats of strings: what they let through, and that checkers of the formats agree."""

from __future__ import annotations

import datetime
import ipaddress
import uuid
from urllib.parse import urlsplit

import jsonschema
import pytest

from server.chat.grammar.expressions import Grammar
from server.chat.grammar.formats import FORMATS, format_expression
from server.chat.grammar.json_text import write_json
from tests.grammar_tools import accepts, sample

CASES = {
    "date": (
        ["2024-02-29", "2000-02-29", "1999-12-31"],
        ["2023-02-29", "1900-02-29", "2024-04-31", "2024-1-1", "0000-01-01"],
    ),
    "time": (["12:30:00Z", "23:59:59.123+05:30"], ["24:00:00Z", "12:30Z", "12:30:60Z", "12:30:00"]),
    "date-time": (["2024-02-29T12:30:00Z"], ["2024-02-29", "2024-02-29 12:30:00Z", "2023-02-29T12:30:00Z"]),
    "duration": (["P1Y2M3D", "PT1H30M", "P2W", "P1DT12H"], ["P", "PT", "1D", "P1D2Y", "P1W1D"]),
    "email": (["ada.lovelace+x@mail.example.org"], ["ada", "@example.org", "a@b@example.org", "a..b@example.org"]),
    "hostname": (["example.org", "a1-b2.example", "localhost"], ["-a.org", "a..b", "a_b.org", "10.0.0.1"]),
    "ipv4": (["0.0.0.0", "192.168.1.255"], ["256.1.1.1", "1.2.3", "01.2.3.4"]),
    "ipv6": (["2001:db8:0:0:0:0:0:1"], ["::1", "2001:db8", "g:0:0:0:0:0:0:1"]),
    "uri": (
        ["https://example.org:8080/a/b?x=1#top", "x://host/%C3%A4"],
        ["example.org", "http:/a", "http://a b/", "http://h/%zz"],
    ),
    "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000", "123"]),
}


def test_all_formats_are_tested() -> None:
    assert CASES.keys() == FORMATS


@pytest.mark.parametrize("name", CASES)
def test_lets_through(name: str) -> None:
    grammar = Grammar({"root": format_expression(name)})
    good, bad = CASES[name]
    assert [text for text in good if not accepts(grammar, text)] == []
    assert [text for text in bad if accepts(grammar, text)] == []


@pytest.mark.parametrize("name", CASES)
def test_bounded(name: str) -> None:
    content = format_expression(name, bounded=True)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    for seed in range(50):
        text = sample(Grammar({"root": content}), seed, repeats=1_000)
        assert len(text) <= 1_000
        checker.check(text, name)


@pytest.mark.parametrize("name", CASES)
def test_samples(name: str) -> None:
    grammar = Grammar({"root": format_expression(name)})
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    for seed in range(200):
        text = sample(grammar, seed, repeats=60)
        checker.check(text, name)
        assert write_json(text) == f'"{text}"'
        _check(name, text)


def _check(name: str, text: str) -> None:
    match name:
        case "date":
            datetime.date.fromisoformat(text)
        case "date-time":
            datetime.datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")
        case "ipv4" | "ipv6":
            ipaddress.ip_address(text)
        case "uuid":
            uuid.UUID(text)
        case "uri":
            parts = urlsplit(text)
            assert parts.scheme
            assert parts.hostname
            assert parts.port is None or 0 < parts.port < 65_536
        case "hostname":
            assert len(text) <= 253
        case "email":
            assert len(text.partition("@")[0]) <= 64
        case _:
            pass
