"""Files of tokens: what is legal, what is refused and with which words, and that no text ever shows a secret."""

from __future__ import annotations

import hmac
import json
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from server.token_entries import (
    TokenEntry,
    TokenFileError,
    entries_from_text,
    new_entry,
    new_token,
    read_entries,
    text_of_entries,
)

SALT, HASH = "5a" * 16, "c3" * 32
GOOD: dict[str, Any] = {"id": "a1", "name": "alice", "salt": SALT, "hash": HASH, "scopes": ["inference"]}
TOKEN = "llamarpc_" + "0f" * 32


def entries(*values: Any) -> list[TokenEntry]:
    return entries_from_text(json.dumps({"tokens": values}), source="FILE")


def test_a_token_is_256_random_bits_that_scanners_recognise() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"llamarpc_[0-9a-f]{64}", token) for token in tokens)


def test_an_entry_keeps_a_salted_hmac_and_not_the_token() -> None:
    token = new_token()
    one, two = (
        new_entry(token, name="alice", scopes=("inference",), expires=None, max_calls=0, priority="normal")
        for _ in range(2)
    )
    assert one.hash == hmac.digest(one.salt, token.encode(), "sha256")
    assert (one.salt, one.hash, one.id) != (two.salt, two.hash, two.id)
    assert token not in text_of_entries([one])


def test_what_is_written_is_read() -> None:
    expires = datetime(2027, 1, 31, 12, 0, 1, tzinfo=timezone.utc)
    written = [
        new_entry("t", name="a.b_c@d-1", scopes=("inference",), expires=expires, max_calls=7, priority="high"),
        new_entry("u", name="a", scopes=("introspection", "inference"), expires=None, max_calls=0, priority="low"),
    ]
    assert entries_from_text(text_of_entries(written), source="FILE") == written
    assert entries_from_text(text_of_entries([]), source="FILE") == []


def test_defaults() -> None:
    (entry,) = entries(GOOD)
    assert (entry.expires, entry.max_calls, entry.priority) == (None, 0, "normal")
    assert entry.caller.scopes == {"inference"}
    assert SALT not in repr(entry)
    assert repr(entry.hash) not in repr(entry)


WRONG_ENTRIES = [
    ({"id": "a 1"}, "entry 1 (alice): id must be up to 32 letters, digits and '-'"),
    ({"id": 5}, "entry 1 (alice): id must be"),
    ({"name": ""}, "entry 1: name must be up to 64 letters"),
    ({"name": "a\nb"}, "entry 1: name must be"),
    ({"name": TOKEN}, "entry 1: name must be"),
    ({"name": None}, "entry 1: name must be"),
    ({"salt": "5a"}, "entry 1 (alice): salt must be 16 to 64 bytes in hexadecimal digits"),
    ({"salt": "zz" * 16}, "salt must be"),
    ({"salt": "5a" * 65}, "salt must be"),
    ({"hash": TOKEN}, "entry 1 (alice): hash must be 32 bytes in hexadecimal digits"),
    ({"hash": "c3" * 31}, "hash must be"),
    ({"hash": 1}, "hash must be"),
    ({"scopes": []}, "scopes must be a list of one or more of inference, introspection"),
    ({"scopes": "inference"}, "scopes must be"),
    ({"scopes": ["inference", "all"]}, "scopes must be"),
    ({"scopes": [{}]}, "scopes must be"),
    ({"expires": "tomorrow"}, "expires must be a time in UTC, such as 2027-01-31T00:00:00Z"),
    ({"expires": 1_800_000_000}, "expires must be"),
    ({"expires": None}, "expires must be"),
    ({"max_calls": -1}, "max_calls must be a whole number from 0 to 1,000,000"),
    ({"max_calls": True}, "max_calls must be"),
    ({"max_calls": 1.5}, "max_calls must be"),
    ({"priority": "urgent"}, "priority must be one of high, normal, low"),
    ({"priority": []}, "priority must be"),
    ({"max_call": 5}, "it has a key that is none of id, name, salt,"),
    ({TOKEN: "alice"}, "it has a key that is none of"),
]


@pytest.mark.parametrize(("change", "text"), WRONG_ENTRIES, ids=[str(index) for index in range(len(WRONG_ENTRIES))])
def test_wrong_entries(change: dict[str, Any], text: str) -> None:
    with pytest.raises(TokenFileError) as caught:
        entries({**GOOD, **change})
    assert text in str(caught.value)
    assert str(caught.value).startswith("FILE, entry 1")
    assert not any(secret in str(caught.value) for secret in (TOKEN, SALT, HASH))


@pytest.mark.parametrize("key", ["id", "name", "salt", "hash", "scopes"])
def test_missing_keys(key: str) -> None:
    with pytest.raises(TokenFileError, match=f"entry 1.*: it has no {key}$"):
        entries({name: value for name, value in GOOD.items() if name != key})


def test_ids_are_there_once() -> None:
    with pytest.raises(TokenFileError, match=re.escape("entry 2 (bob): its id is another entry's as well")):
        entries(GOOD, {**GOOD, "name": "bob"})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "FILE is not JSON: Expecting value in line 1"),
        (f'{{"tokens": [\n{{"{TOKEN}"', "FILE is not JSON: Expecting ':' delimiter in line 2"),
        ("[]", 'FILE must hold an object with one list, {"tokens": [...]}'),
        ("{}", "FILE must hold"),
        ('{"tokens": {}}', "FILE must hold"),
        (f'{{"tokens": [], "{TOKEN}": "alice"}}', "FILE must hold"),
        ("[" * 100_000, "FILE must hold"),
        (f'{{"tokens": [{"9" * 5_000}]}}', "FILE"),
        ('{"tokens": ["alice"]}', "FILE, entry 1: an entry must be an object"),
    ],
    ids=["empty", "cut", "list", "no list", "no list in it", "more keys", "deep", "digits", "no object"],
)
def test_wrong_files(text: str, wanted: str) -> None:
    with pytest.raises(TokenFileError) as caught:
        entries_from_text(text, source="FILE")
    assert str(caught.value).startswith(wanted)
    assert TOKEN not in str(caught.value)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(TokenFileError, match="No such file"):
        read_entries(tmp_path / "none.json")
    with pytest.raises(TokenFileError, match="Is a directory"):
        read_entries(tmp_path)
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(TokenFileError, match="not UTF-8"):
        read_entries(tmp_path / "latin.json")
