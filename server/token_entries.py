"""What is in a file of tokens: its entries, how a new one is made, and the file's text.

The file is JSON. Of each token it keeps a salt and HMAC-SHA256(salt, token), never the token itself:

    {"tokens": [{"id": "5f1c09aa", "name": "gateway", "salt": "hex", "hash": "hex", "scopes": ["inference"],
                 "expires": "2027-01-31T00:00:00Z", "max_calls": 8, "priority": "high"}]}

`expires`, `max_calls` and `priority` may be left out. Slow hashes such as Argon2 are for passwords, which can be
guessed. A token is 256 random bits: nobody guesses those, however fast the hash is. And a fast hash checks a call in
microseconds, so that strangers with made-up tokens can't keep the server busy.

Knows no clock and no server.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

TOKEN_PREFIX = "llamarpc_"
"""Every token begins with it, so that scanners for secrets find them: `llamarpc_[0-9a-f]{64}`."""
SCOPES = ("inference", "introspection")
PRIORITIES = ("high", "normal", "low")

_TOKEN_BYTES = 32
_SALT_BYTES = 16
_HASH_BYTES = 32
_ID_BYTES = 4
# Too short for a token, so a token in the wrong place is never taken for a name and shown to anybody.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_ID = re.compile(r"[A-Za-z0-9-]{1,32}")
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
_MAX_CALLS = 1_000_000


class TokenFileError(Exception):
    """A file of tokens can't be used; the text names the file, the entry and what is wrong, and shows no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls. One name may have several tokens, so that they can be changed without a gap."""

    name: str
    scopes: frozenset[str] = frozenset(SCOPES)
    max_calls: int = 0
    """Calls of this name at a time; 0: as many as the server lets any caller have."""
    priority: str = "normal"
    """The highest that it may ask for: high, normal or low."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntry:
    """One token, as the file keeps it. Its id tells it from other tokens of the same name."""

    id: str
    name: str
    salt: bytes = field(repr=False)
    hash: bytes = field(repr=False)
    scopes: tuple[str, ...]
    expires: datetime | None = None
    max_calls: int = 0
    priority: str = "normal"

    @property
    def caller(self) -> Caller:
        """Whose token it is."""
        return Caller(name=self.name, scopes=frozenset(self.scopes), max_calls=self.max_calls, priority=self.priority)


def new_token() -> str:
    """A token that nobody has seen yet."""
    return TOKEN_PREFIX + secrets.token_hex(_TOKEN_BYTES)


def new_entry(
    token: str, *, name: str, scopes: tuple[str, ...], expires: datetime | None, max_calls: int, priority: str
) -> TokenEntry:
    """The entry of a token. Raises ValueError, whose text says which value is wrong."""
    salt = secrets.token_bytes(_SALT_BYTES)
    entry = TokenEntry(
        id=secrets.token_hex(_ID_BYTES),
        name=name,
        salt=salt,
        hash=hmac.digest(salt, token.encode(), "sha256"),
        scopes=scopes,
        expires=expires,
        max_calls=max_calls,
        priority=priority,
    )
    return _entry_from_json(_entry_to_json(entry))


def read_entries(path: Path) -> list[TokenEntry]:
    """All entries of a file. Raises TokenFileError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TokenFileError(f"can't read the tokens in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TokenFileError(f"{path} is not a file of tokens: it is not UTF-8 text") from None
    return entries_from_text(text, source=str(path))


def entries_from_text(text: str, *, source: str) -> list[TokenEntry]:
    """All entries of a file's text; `source` is its name for errors. Raises TokenFileError."""
    entries: list[TokenEntry] = []
    for number, value in enumerate(_listed(text, source), start=1):
        try:
            entry = _entry_from_json(value)
            if any(entry.id == other.id for other in entries):
                raise ValueError("its id is another entry's as well")
        except ValueError as error:
            raise TokenFileError(f"{source}, entry {number}{_name_for_errors(value)}: {error}") from None
        entries.append(entry)
    return entries


def text_of_entries(entries: Sequence[TokenEntry]) -> str:
    """The file's text."""
    return json.dumps({"tokens": [_entry_to_json(entry) for entry in entries]}, indent=2) + "\n"


def _listed(text: str, source: str) -> list[Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise TokenFileError(f"{source} is not JSON: {error.msg} in line {error.lineno}") from None
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        content = None
    if not isinstance(content, dict) or list(content) != ["tokens"] or not isinstance(content["tokens"], list):
        raise TokenFileError(f'{source} must hold an object with one list, {{"tokens": [...]}}')
    return content["tokens"]


def _entry_to_json(entry: TokenEntry) -> dict[str, Any]:
    value: dict[str, Any] = {"id": entry.id, "name": entry.name, "salt": entry.salt.hex(), "hash": entry.hash.hex()}
    value["scopes"] = list(entry.scopes)
    if entry.expires is not None:
        value["expires"] = entry.expires.strftime(_TIME_FORMAT)
    return {**value, "max_calls": entry.max_calls, "priority": entry.priority}


def _entry_from_json(value: Any) -> TokenEntry:
    """Raises ValueError, whose text repeats nothing of what was given: it may be a secret in the wrong place."""
    if not isinstance(value, dict):
        raise ValueError("an entry must be an object")
    if value.keys() - _PARSERS.keys():
        raise ValueError(f"it has a key that is none of {', '.join(_PARSERS)}")
    if missing := [key for key in _REQUIRED if key not in value]:
        raise ValueError(f"it has no {' and no '.join(missing)}")
    return TokenEntry(**{key: _parsed(key, each) for key, each in value.items()})


def _parsed(key: str, value: Any) -> Any:
    parse, wanted = _PARSERS[key]
    try:
        return parse(value)
    except (ValueError, TypeError):
        raise ValueError(f"{key} must be {wanted}") from None


def _name_for_errors(value: Any) -> str:
    name = value.get("name") if isinstance(value, dict) else None
    return f" ({name})" if isinstance(name, str) and _NAME.fullmatch(name) else ""


def _refuse() -> NoReturn:
    raise ValueError


def _matching(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    return lambda value: value if pattern.fullmatch(value) else _refuse()


def _hex_of(least_bytes: int, most_bytes: int) -> Callable[[Any], bytes]:
    def parse(value: Any) -> bytes:
        parsed = bytes.fromhex(value)
        return parsed if least_bytes <= len(parsed) <= most_bytes else _refuse()

    return parse


def _scopes(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) and value and all(each in SCOPES for each in value) else _refuse()


def _time(value: Any) -> datetime:
    return datetime.strptime(value, _TIME_FORMAT).replace(tzinfo=timezone.utc)


def _max_calls(value: Any) -> int:
    return value if type(value) is int and 0 <= value <= _MAX_CALLS else _refuse()


# Of each key, how its value is read and what it must be.
_PARSERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "id": (_matching(_ID), "up to 32 letters, digits and '-'"),
    "name": (_matching(_NAME), "up to 64 letters, digits and '.', '_', '@', '-', the first a letter or digit"),
    "salt": (_hex_of(_SALT_BYTES, 64), f"{_SALT_BYTES} to 64 bytes in hexadecimal digits"),
    "hash": (_hex_of(_HASH_BYTES, _HASH_BYTES), f"{_HASH_BYTES} bytes in hexadecimal digits"),
    "scopes": (_scopes, f"a list of one or more of {', '.join(SCOPES)}"),
    "expires": (_time, "a time in UTC, such as 2027-01-31T00:00:00Z"),
    "max_calls": (_max_calls, f"a whole number from 0 to {_MAX_CALLS:,}"),
    "priority": (lambda value: value if value in PRIORITIES else _refuse(), f"one of {', '.join(PRIORITIES)}"),
}
_REQUIRED = ("id", "name", "salt", "hash", "scopes")
