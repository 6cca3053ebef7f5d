import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine_build.bundle import Bundle, read_bundle
from engine_build.bundle_writer import Plan, damaged_files, is_made_from, place
from engine_build.errors import BundleError

from .bundle_samples import bundle

_WEIGHTS = "model_repository/tensorrt_llm/1/model.gguf"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"weights")
    return path


def _plan(weights: Path, *, text: bytes = b"text", inputs: str = "i") -> Plan:
    contents = {"tokenizer.json": text}
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    files = {**digests, _WEIGHTS: hashlib.sha256(weights.read_bytes()).hexdigest()}
    return Plan(bundle=bundle(files=files, inputs_sha256=inputs), contents=contents, sources={_WEIGHTS: weights})


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _placed(plan: Plan, out: Path, *, force: bool = False) -> Bundle:
    place(plan, out, force=force)
    return read_bundle(out)


def test_all_files_are_written(tmp_path: Path, weights: Path) -> None:
    plan, out = _plan(weights), tmp_path / "a" / "bundle"
    assert _placed(plan, out) == plan.bundle
    assert _files(out) == {"bundle.json", "tokenizer.json", _WEIGHTS}
    assert damaged_files(plan.bundle, out) == {}
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_weights_are_hard_links(tmp_path: Path, weights: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(weights)
    plan = _plan(weights)
    place(Plan(bundle=plan.bundle, contents=plan.contents, sources={_WEIGHTS: link}), tmp_path / "b", force=False)
    placed = tmp_path / "b" / _WEIGHTS
    assert not placed.is_symlink()
    assert placed.samefile(weights)


def test_weights_are_copied_where_they_cannot_be_linked(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    place(_plan(weights), tmp_path / "b", force=False)
    assert not (tmp_path / "b" / _WEIGHTS).samefile(weights)
    assert (tmp_path / "b" / _WEIGHTS).read_bytes() == b"weights"


def test_an_empty_folder_is_filled(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "b").mkdir()
    place(_plan(weights), tmp_path / "b", force=False)
    assert "bundle.json" in _files(tmp_path / "b")


def test_the_same_bundle_is_left_alone(tmp_path: Path, weights: Path) -> None:
    place(_plan(weights), tmp_path / "b", force=False)
    before = (tmp_path / "b" / "tokenizer.json").stat()
    assert _placed(_plan(weights, inputs="j"), tmp_path / "b").inputs_sha256 == "j"
    after = (tmp_path / "b" / "tokenizer.json").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_another_bundle_is_replaced_by_force_only(tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "b"
    place(_plan(weights), out, force=False)
    (out / "extra").write_text("x")
    with pytest.raises(BundleError, match=r"differs in tokenizer\.json.*--force"):
        place(_plan(weights, text=b"other"), out, force=False)
    assert (out / "tokenizer.json").read_bytes() == b"text"
    place(_plan(weights, text=b"other"), out, force=True)
    assert _files(out) == {"bundle.json", "tokenizer.json", _WEIGHTS}
    assert (out / "tokenizer.json").read_bytes() == b"other"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "weights.gguf"]


@pytest.mark.parametrize("force", [False, True])
def test_other_folders_are_never_replaced(tmp_path: Path, weights: Path, force: bool) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letters").write_text("dear")
    with pytest.raises(BundleError, match="is not a bundle"):
        place(_plan(weights), tmp_path / "home", force=force)
    assert (tmp_path / "home" / "letters").read_text() == "dear"


def test_a_damaged_bundle_is_mended_by_force_only(tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "b"
    place(_plan(weights), out, force=False)
    (out / "tokenizer.json").write_text("cut")
    with pytest.raises(BundleError, match=r"differs in tokenizer\.json"):
        place(_plan(weights), out, force=False)
    (out / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="damaged"):
        place(_plan(weights), out, force=False)
    assert damaged_files(_placed(_plan(weights), out, force=True), out) == {}


def test_a_failed_build_leaves_nothing(tmp_path: Path, weights: Path) -> None:
    plan = _plan(weights)
    weights.unlink()
    with pytest.raises(BundleError, match="can't be written: No such file"):
        place(plan, tmp_path / "b", force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_parent_is_an_error(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(BundleError, match="can't be written"):
        place(_plan(weights), weights / "b", force=False)


def test_made_from_needs_equal_inputs_and_whole_files(tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "b"
    assert not is_made_from("i", out)
    place(_plan(weights), out, force=False)
    assert is_made_from("i", out)
    assert not is_made_from("j", out)
    (out / "tokenizer.json").unlink()
    assert not is_made_from("i", out)
    assert damaged_files(read_bundle(out), out) == {"tokenizer.json": "missing"}


def test_several_builds_at_once_take_turns(tmp_path: Path, weights: Path) -> None:
    """Threads do: the lock belongs to an open file, not to a process."""
    out, plans = tmp_path / "b", [_plan(weights, text=text) for text in (b"one", b"two", b"three")]
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(place, plan, out, force=True) for plan in plans * 20]:
            done.result()
    assert read_bundle(out) in [plan.bundle for plan in plans]
    assert damaged_files(read_bundle(out), out) == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "weights.gguf"]


def test_leftovers_of_killed_builds_are_removed_and_no_others(tmp_path: Path, weights: Path) -> None:
    place(_plan(weights), tmp_path / "b", force=False)
    for name in (".b.partial-1", ".b.old-1", ".bb.partial-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    place(_plan(weights), tmp_path / "b", force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".bb.partial-1", "b", "weights.gguf"]


def test_a_replacement_that_was_cut_off_is_undone(tmp_path: Path, weights: Path) -> None:
    place(_plan(weights), tmp_path / "b", force=False)
    (tmp_path / "b").rename(tmp_path / ".b.old-1")
    with pytest.raises(BundleError, match=r"differs in tokenizer\.json"):
        place(_plan(weights, text=b"other"), tmp_path / "b", force=False)
    assert (tmp_path / "b" / "tokenizer.json").read_bytes() == b"text"
