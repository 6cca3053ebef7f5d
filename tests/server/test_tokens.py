"""Tokens from a file: whose they are, when they are good, and that the file may change under a running server."""

from __future__ import annotations

import hmac
import logging
import os
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from server.errors import Unauthenticated
from server.token_entries import TokenEntry, TokenFileError, new_entry, new_token, text_of_entries
from server.tokens import TokenFile

EXPIRES = datetime(2030, 1, 1, tzinfo=timezone.utc)


def entry(token: str, name: str = "alice", **fields: Any) -> TokenEntry:
    made = new_entry(token, name=name, scopes=("inference",), expires=None, max_calls=0, priority="normal")
    return replace(made, **fields)


def write(path: Path, *entries: TokenEntry) -> Path:
    """As the command does it: the file is another one afterwards."""
    temporary = path.with_suffix(".new")
    temporary.write_text(text_of_entries(entries))
    temporary.chmod(0o600)
    return temporary.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def refusal(tokens: TokenFile, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        tokens.caller_of(token)
    assert token not in str(caught.value) or not token
    return str(caught.value)


def test_a_token_tells_its_caller(path: Path) -> None:
    one, two = new_token(), new_token()
    write(path, entry(one), entry(two, "bob", scopes=("introspection",), max_calls=3, priority="high"))
    tokens = TokenFile.load(path)
    assert tokens.caller_of(one).name == "alice"
    bob = tokens.caller_of(two)
    assert (bob.name, bob.scopes, bob.max_calls, bob.priority) == ("bob", {"introspection"}, 3, "high")


def test_both_tokens_of_a_name_are_good(path: Path) -> None:
    old, new = new_token(), new_token()
    write(path, entry(old), entry(new))
    tokens = TokenFile.load(path)
    assert tokens.caller_of(old) == tokens.caller_of(new)


def test_what_is_nearly_a_token_is_none(path: Path) -> None:
    token = new_token()
    write(path, entry(token))
    tokens = TokenFile.load(path)
    for wrong in ("", token[:-1], token + "0", token.upper(), token.removeprefix("llamarpc_"), "ü", new_token()):
        assert refusal(tokens, wrong).startswith("the token is not known to this server")


@pytest.mark.parametrize(("after_seconds", "good"), [(-1, True), (-0.001, True), (0, False), (1e9, False)])
def test_expiry(path: Path, after_seconds: float, good: bool) -> None:
    token = new_token()
    write(path, entry(token, expires=EXPIRES))
    tokens = TokenFile.load(path, clock=lambda: EXPIRES.timestamp() + after_seconds)
    if good:
        assert tokens.caller_of(token).name == "alice"
    else:
        assert refusal(tokens, token).startswith("the token has expired")


@pytest.mark.parametrize("position", [0, 4, 9, None], ids=["first", "middle", "last", "unknown"])
def test_all_entries_are_compared_wherever_the_right_one_is(
    path: Path, position: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [new_token() for _ in range(10)]
    write(path, *(entry(token, expires=EXPIRES) for token in held))
    tokens = TokenFile.load(path, clock=lambda: 0.0)
    compared: list[bool] = []
    compare = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(compare(one, other))
        return compared[-1]

    monkeypatch.setattr(hmac, "compare_digest", counted)
    if position is None:
        refusal(tokens, new_token())
    else:
        tokens.caller_of(held[position])
    assert compared == [index == position for index in range(10)]


def test_salts_of_every_length_give_the_same_hash_as_hmac(path: Path) -> None:
    token = new_token()
    salts = [os.urandom(length) for length in (16, 32, 63, 64)]
    write(
        path,
        *(
            entry(token, f"salt{len(salt)}", salt=salt, hash=hmac.digest(salt, token.encode(), "sha256"), id=str(index))
            for index, salt in enumerate(salts)
        ),
    )
    tokens = TokenFile.load(path)
    assert tokens.caller_of(token).name == "salt64"
    assert all(verifier.hash_of(token.encode()) == verifier.hash for verifier in tokens._verifiers)


# ---------------------------------------------------------------------------------- changes


def test_a_changed_file_is_read(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = new_token(), new_token()
    write(path, entry(old))
    tokens = TokenFile.load(path)
    write(path, entry(new))
    assert tokens.caller_of(old).name == "alice"
    with caplog.at_level(logging.INFO):
        tokens.reload_if_changed()
        tokens.reload_if_changed()
    assert [record.getMessage() for record in caplog.records] == [f"{path} has changed and was read: 1 tokens"]
    assert tokens.caller_of(new).name == "alice"
    refusal(tokens, old)


def test_a_link_that_points_elsewhere_is_a_change(path: Path, tmp_path: Path) -> None:
    old, new = new_token(), new_token()
    path.symlink_to(write(tmp_path / "1.json", entry(old)))
    tokens = TokenFile.load(path)
    (tmp_path / "link").symlink_to(write(tmp_path / "2.json", entry(new)))
    (tmp_path / "link").replace(path)
    tokens.reload_if_changed()
    assert tokens.caller_of(new).name == "alice"


@pytest.mark.parametrize("damage", ["cut", "gone", "folder"])
def test_a_broken_file_keeps_the_tokens_and_is_told_once(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    token, other = new_token(), new_token()
    text = write(path, entry(token)).read_text()
    tokens = TokenFile.load(path)
    path.unlink()
    if damage == "cut":
        path.write_text(text[:-20])
    elif damage == "folder":
        path.mkdir()
    for _ in range(5):
        tokens.reload_if_changed()
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert str(path) in record.getMessage()
    assert record.getMessage().endswith("; the tokens of before stay good")
    assert tokens.caller_of(token).name == "alice"
    if damage == "folder":
        path.rmdir()
    write(path, entry(other))
    tokens.reload_if_changed()
    assert tokens.caller_of(other).name == "alice"


def test_a_server_does_not_start_without_its_file(path: Path) -> None:
    with pytest.raises(TokenFileError, match="No such file"):
        TokenFile.load(path)


def test_warnings(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(path).chmod(0o620)
    tokens = TokenFile.load(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} has no tokens, so nobody can call",
        f"others can write to {path} and let themselves in; 'chmod go-w' takes that away",
    ]
    refusal(tokens, "")
    caplog.clear()
    write(path, entry(new_token())).chmod(0o644)  # hashes only: it may be read
    TokenFile.load(path)
    assert caplog.records == []
