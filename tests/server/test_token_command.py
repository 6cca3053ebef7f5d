"""`python -m server.tokens`: the token to the standard output, words to the other, and no half-written files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from server.token_command import main
from server.token_entries import read_entries
from server.tokens import TokenFile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_add_makes_the_file_and_shows_the_token_once(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "add", file, "alice")
    assert status == 0
    token = out.strip()
    assert TokenFile.load(file).caller_of(token).name == "alice"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]
    (entry,) = read_entries(file)
    assert entry.id in err
    assert token not in err
    assert token not in file.read_text()


def test_add_keeps_what_is_there_and_takes_options(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "add", file, "alice")
    options = ("--scopes", "inference", "--days", 30, "--max-calls", 4, "--priority", "high")
    assert run(capsys, "add", file, "bob", *options)[0] == 0
    alice, bob = read_entries(file)
    assert (alice.name, alice.scopes, alice.expires) == ("alice", ("inference", "introspection"), None)
    assert (bob.name, bob.scopes, bob.max_calls, bob.priority) == ("bob", ("inference",), 4, "high")
    assert bob.expires is not None
    assert timedelta(days=29) < bob.expires - datetime.now(timezone.utc) <= timedelta(days=30)


def test_list_shows_no_hashes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "add", file, "alice", "--days", 2)
    run(capsys, "add", file, "bob", "--max-calls", 5)
    file.write_text(file.read_text().replace('"expires": "2', '"expires": "1'))  # a thousand years ago
    status, out, _ = run(capsys, "list", file)
    assert status == 0
    title, alice, bob = out.splitlines()
    assert title.split() == ["ID", "NAME", "SCOPES", "EXPIRES", "MAX", "CALLS", "PRIORITY"]
    assert "(expired)" in alice
    assert bob.split()[1:] == ["bob", "inference,introspection", "never", "5", "normal"]
    assert not any(entry.hash.hex() in out or entry.salt.hex() in out for entry in read_entries(file))


def test_remove_by_name_then_by_id(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("alice", "bob", "alice"):
        run(capsys, "add", file, name)
    assert run(capsys, "remove", file, "bob")[0] == 0
    old, new = read_entries(file)
    status, _, err = run(capsys, "remove", file, "alice")
    assert status == 1
    assert f"alice has 2 tokens, the oldest first: {old.id}, {new.id}; say which with --id" in err
    assert run(capsys, "remove", file, "alice", "--id", old.id)[0] == 0
    assert read_entries(file) == [new]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("add", "{file}", "no/slashes"), "name must be up to 64 letters"),
        (("add", "{file}", "llamarpc_" + "0f" * 32), "name must be"),
        (("add", "{file}", "x", "--scopes", "all"), "scopes must be a list of one or more of"),
        (("add", "{file}", "x", "--max-calls", "-1"), "max_calls must be"),
        (("add", "{file}/none/tokens.json", "x"), "Not a directory"),
        (("add", "{none}/tokens.json", "x"), "No such file or directory"),
        (("remove", "{file}", "bob"), "has no token of that name"),
        (("remove", "{file}", "alice", "--id", "nope"), "has no token of alice with that id; its ids are "),
        (("remove", "{none}", "alice"), "No such file or directory"),
        (("list", "{none}"), "No such file or directory"),
    ],
)
def test_errors_change_nothing(
    file: Path, arguments: tuple[str, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "add", file, "alice")
    before = file.read_text()
    status, out, err = run(capsys, *(each.format(file=file, none=file.parent / "none") for each in arguments))
    assert (status, out) == (1, "")
    assert err.startswith("server.tokens: error: ")
    assert text in err
    assert "llamarpc_" not in err
    assert file.read_text() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_broken_file_is_not_written_over(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("{")
    assert run(capsys, "add", file, "alice")[0] == 1
    assert file.read_text() == "{"


@pytest.mark.parametrize("days", ["0", "-1", "soon", "99999"])
def test_wrong_days(file: Path, days: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["add", str(file), "alice", f"--days={days}"])
    assert caught.value.code == 2
    assert "must be a whole number from 1 to 36500" in capsys.readouterr().err
    assert not file.exists()


def test_links_and_modes_are_kept(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "add", file, "alice")
    file.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(file)
    run(capsys, "add", link, "bob")
    assert link.is_symlink()
    assert [entry.name for entry in read_entries(file)] == ["alice", "bob"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_many_at_once_lose_nothing(file: Path) -> None:
    names = [f"caller{number}" for number in range(16)]
    threads = [threading.Thread(target=main, args=(["add", str(file), name],)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(entry.name for entry in read_entries(file)) == sorted(names)


def test_a_failed_write_leaves_the_old_file(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, "add", file, "alice")
    before = file.read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status, out, err = run(capsys, "add", file, "bob")
    assert (status, out) == (1, "")
    assert "No space left on device" in err
    assert file.read_text() == before
    assert list(file.parent.iterdir()) == [file]


def test_it_runs_as_a_command(file: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "server.tokens", "add", str(file), "alice"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert TokenFile.load(file).caller_of(done.stdout.strip()).name == "alice"
    assert "This is the token of alice" in done.stderr
