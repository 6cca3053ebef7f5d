"""`python -m server.tokens add|list|remove FILE`: the command line for the file of tokens.

A new token goes to the standard output, once; all else that is said goes to the standard error. The file is replaced
as a whole, so that a running server never reads half of it. Knows nothing of that server.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

from .token_entries import (
    PRIORITIES,
    SCOPES,
    TokenEntry,
    TokenFileError,
    new_entry,
    new_token,
    read_entries,
    text_of_entries,
)

_LONGEST_DAYS = 36_500
_COLUMNS = ("ID", "NAME", "SCOPES", "EXPIRES", "MAX CALLS", "PRIORITY")

_ADDED = """\
This is the token of {name} (id {id}, expires: {expires}). It is shown this once; {file} keeps only a hash of it.
Calls send it as 'authorization: Bearer TOKEN'. A server with --token-file {file} takes it within two seconds."""
_REMOVED = """\
The token of {name} with the id {id} is removed. A running server refuses it within two seconds;
calls that run already go on."""


def main(arguments: Sequence[str]) -> int:
    """Does what the arguments say; gives the exit status: 0, or 1 where it could not be done."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except (TokenFileError, ValueError) as error:
        print(f"server.tokens: error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"server.tokens: error: {error.filename or given.file}: {error.strerror}", file=sys.stderr)
    return 1


def _add(given: argparse.Namespace) -> int:
    token = new_token()
    entry = new_entry(
        token,
        name=given.name,
        scopes=tuple(given.scopes.split(",")),
        expires=None if given.days is None else _now() + timedelta(days=given.days),
        max_calls=given.max_calls,
        priority=given.priority,
    )
    with _locked(given.file) as path:
        entries = read_entries(path) if path.exists() else []
        _replace(path, [*entries, entry])
    print(token)
    print(_ADDED.format(name=entry.name, id=entry.id, expires=_expires(entry), file=given.file), file=sys.stderr)
    return 0


def _list(given: argparse.Namespace) -> int:
    rows = [_COLUMNS, *(_row(entry) for entry in read_entries(given.file))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _remove(given: argparse.Namespace) -> int:
    with _locked(given.file) as path:
        entries = read_entries(path)
        removed = _entry_to_remove(entries, given)
        _replace(path, [entry for entry in entries if entry is not removed])
    print(_REMOVED.format(name=removed.name, id=removed.id), file=sys.stderr)
    return 0


def _entry_to_remove(entries: list[TokenEntry], given: argparse.Namespace) -> TokenEntry:
    of_name = [entry for entry in entries if entry.name == given.name]
    fitting = [entry for entry in of_name if given.id in (None, entry.id)]
    if len(fitting) == 1:
        return fitting[0]
    ids = ", ".join(entry.id for entry in of_name)
    if not of_name:
        raise TokenFileError(f"{given.file} has no token of that name; 'list' shows the names")
    if not fitting:
        raise TokenFileError(f"{given.file} has no token of {given.name} with that id; its ids are {ids}")
    raise TokenFileError(f"{given.name} has {len(of_name)} tokens, the oldest first: {ids}; say which with --id")


def _row(entry: TokenEntry) -> tuple[str, ...]:
    calls = str(entry.max_calls) if entry.max_calls else "default"
    return entry.id, entry.name, ",".join(entry.scopes), _expires(entry), calls, entry.priority


def _expires(entry: TokenEntry) -> str:
    if entry.expires is None:
        return "never"
    return f"{entry.expires:%Y-%m-%d %H:%M} UTC{' (expired)' if entry.expires <= _now() else ''}"


def _now() -> datetime:
    return datetime.now(timezone.utc)


@contextmanager
def _locked(file: Path) -> Iterator[Path]:
    """The file's true path, while no other of these commands changes files of its folder.

    The folder is what is locked: the file itself is another one after each change.
    """
    path = file.resolve()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(folder)


def _replace(path: Path, entries: Sequence[TokenEntry]) -> None:
    """Writes the whole file at once. It keeps its owner and mode: who edits may not be who serves."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text_of_entries(entries))
            if path.exists():
                _like(file.fileno(), path.stat())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _like(descriptor: int, status: os.stat_result) -> None:
    # Only root may give files away; others may at least keep the group, by which the server may read it.
    for owner, group in ((-1, status.st_gid), (status.st_uid, -1)):
        with suppress(PermissionError):
            os.fchown(descriptor, owner, group)
    os.fchmod(descriptor, stat.S_IMODE(status.st_mode))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m server.tokens", description="Edit a file of tokens.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("add", help="make a token and print it; makes the file where there is none")
    add.set_defaults(run=_add)
    show = commands.add_parser("list", help="show names, scopes and expiry of all tokens, the oldest first")
    show.set_defaults(run=_list)
    remove = commands.add_parser("remove", help="take a token out of the file")
    remove.set_defaults(run=_remove)
    for command in (add, show, remove):
        command.add_argument("file", metavar="FILE", type=Path)
    for command in (add, remove):
        command.add_argument("name", metavar="NAME", help="who calls; one name may have several tokens")
    remove.add_argument("--id", help="which of several tokens of the name")
    _add_options(add)
    return parser


def _add_options(add: argparse.ArgumentParser) -> None:
    scopes = ",".join(SCOPES)
    add.add_argument("--scopes", default=scopes, help=f"what it may do, comma-separated (default: {scopes})")
    add.add_argument("--days", type=_days, help="it expires after so many days (default: never)")
    add.add_argument("--max-calls", type=int, default=0, help="calls at a time; 0: the server's default")
    add.add_argument("--priority", choices=PRIORITIES, default="normal", help="the highest that it may ask for")


def _days(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= _LONGEST_DAYS):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {_LONGEST_DAYS}")
    return int(text)
