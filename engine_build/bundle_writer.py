"""Puts a planned bundle in its place: everything into a folder beside it first, which takes the place as the last act.

Knows no engine. A bundle that is there already is compared with the plan, and replaced only when asked to.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .bundle import FILE_NAME, Bundle, read_bundle, sha256_of
from .errors import BundleError
from .file_lock import exclusive
from .progress import say, step


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A bundle that could be written: its description, and its files by path as contents or as files to take over."""

    bundle: Bundle
    contents: Mapping[str, bytes]
    sources: Mapping[str, Path]


def place(plan: Plan, out: Path, *, force: bool) -> None:
    """Writes the bundle at `out`, unless the same is there already.

    Raises BundleError where something else is in the way (a bundle: without `force`; anything else: always), or where
    the folder can't be written. Safe to call from several processes: one writes, the others wait and look again.
    """
    lock = exclusive(out.parent / f".{out.name}.lock", waiting=f"waiting for another build of {out}")
    try:
        with lock:
            _clear_up(out)
            if _is_there(out) and _is_same(plan.bundle, out, force=force):
                say(f"{out} is built already, nothing to do")
                _write_description(plan.bundle, out)
                return
            with step(f"writing {out}"):
                _write(plan, out)
    except OSError as error:
        raise BundleError(f"{out} can't be written: {error.strerror}") from error


def is_made_from(inputs_sha256: str, out: Path) -> bool:
    """Whether an intact bundle at `out` was made from the inputs of this digest."""
    try:
        present = read_bundle(out)
    except BundleError:
        return False
    return present.inputs_sha256 == inputs_sha256 and not damaged_files(present, out)


def damaged_files(bundle: Bundle, folder: Path) -> dict[str, str]:
    """Files of a bundle that are not as it says: path to `missing` or `changed`."""
    found = {}
    for path, digest in bundle.files.items():
        file = folder / path
        if not file.is_file():
            found[path] = "missing"
        elif sha256_of(file) != digest:
            found[path] = "changed"
    return found


def _is_there(out: Path) -> bool:
    """Whether anything but an empty folder is there."""
    if out.is_dir():
        return next(out.iterdir(), None) is not None
    return out.exists() or out.is_symlink()


def _is_same(bundle: Bundle, out: Path, *, force: bool) -> bool:
    """Whether `out` holds this very bundle. Raises BundleError where it holds something that must not be replaced."""
    if not (out / FILE_NAME).is_file():
        raise BundleError(f"{out} is there already and is not a bundle; choose another folder, or remove it")
    advice = f"pass --force to replace {out}, or choose another folder"
    try:
        present = read_bundle(out)
    except BundleError as error:
        if force:
            return False
        raise BundleError(f"{error}\nOr {advice}.") from error
    differences = present.differences(bundle) or sorted(damaged_files(present, out))
    if differences and not force:
        names = ", ".join(differences[:6]) + (", …" if len(differences) > 6 else "")
        raise BundleError(f"another bundle is there already (it differs in {names}); {advice}")
    return not differences


def _clear_up(out: Path) -> None:
    """Removes what killed builds left, and undoes a replacement that was cut off. Only called with the lock held."""
    for aside in out.parent.glob(f"{glob.escape(_aside(out, ''))}*"):
        if _is_there(out):
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(aside, out)
    for partial in out.parent.glob(f"{glob.escape(_partial(out, ''))}*"):
        shutil.rmtree(partial, ignore_errors=True)


def _partial(out: Path, mark: str) -> str:
    """Name of the folder beside `out` in which a build writes."""
    return f".{out.name}.partial-{mark}"


def _aside(out: Path, mark: str) -> str:
    """Name of the folder beside `out` that keeps the old bundle while the new one takes its place."""
    return f".{out.name}.old-{mark}"


def _write(plan: Plan, out: Path) -> None:
    partial = out.parent / _partial(out, uuid.uuid4().hex[:8])
    try:
        for path, source in plan.sources.items():
            _take_over(source, _made_room(partial / path))
        for path, content in plan.contents.items():
            _made_room(partial / path).write_bytes(content)
        _write_description(plan.bundle, partial)
        _move_into_place(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_description(bundle: Bundle, folder: Path) -> None:
    partial = folder / f".{FILE_NAME}.partial"
    partial.write_text(bundle.to_json(), encoding="utf-8")
    os.replace(partial, folder / FILE_NAME)


def _made_room(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _take_over(source: Path, target: Path) -> None:
    """Hard link where the file systems allow it, else a copy. Never a symbolic link, which could dangle."""
    with contextlib.suppress(OSError):
        os.link(source.resolve(), target)
        return
    shutil.copyfile(source, target)


def _move_into_place(partial: Path, out: Path) -> None:
    """One rename where nothing is there. An old bundle is moved aside first, and back if the second rename fails."""
    if not _is_there(out):
        os.replace(partial, out)
        return
    aside = out.parent / _aside(out, uuid.uuid4().hex[:8])
    os.replace(out, aside)
    try:
        os.replace(partial, out)
    except OSError:
        os.replace(aside, out)
        raise
    shutil.rmtree(aside, ignore_errors=True)
