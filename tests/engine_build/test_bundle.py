import json
from pathlib import Path
from typing import Any

import pytest

from engine_build.bundle import read_bundle, sha256_of
from engine_build.errors import BundleError

from .bundle_samples import BUNDLE, ENGINE, bundle


def test_reading_gives_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text(BUNDLE.to_json(), encoding="utf-8")
    assert read_bundle(tmp_path) == BUNDLE


def test_unknown_keys_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path, {"later": 1})
    assert read_bundle(tmp_path) == BUNDLE


def test_inputs_need_not_be_known(tmp_path: Path) -> None:
    document = json.loads(BUNDLE.to_json())
    del document["inputs_sha256"]
    (tmp_path / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    assert read_bundle(tmp_path) == BUNDLE


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"schema_version": 2}, "schema_version is 2"),
        ({"schema_version": None}, "schema_version is None"),
        ({"model_id": 7}, "'model_id' must be str"),
        ({"end_ids": ["2"]}, "'end_ids' must be list of int"),
        ({"end_ids": [True]}, "'end_ids' must be list of int"),
        ({"end_ids": []}, "must not be empty"),
        ({"pad_id": None}, "'pad_id' must be int"),
        ({"adapters": {"a": "b"}}, "'adapters' must be dict of int"),
        ({"generation_defaults": {"temperature": "hot"}}, "'generation_defaults' must be dict of float"),
        ({"engine": 1}, "'engine' must be an object"),
        ({"engine": {"kind": "x"}}, "'engine.version' must be str"),
    ],
)
def test_damaged_fields_are_named(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    _write(tmp_path, changes)
    with pytest.raises(BundleError, match=text):
        read_bundle(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
def test_damaged_files_are_errors(tmp_path: Path, content: str) -> None:
    (tmp_path / "bundle.json").write_text(content, encoding="latin-1")
    with pytest.raises(BundleError, match=r"bundle\.json"):
        read_bundle(tmp_path)


def test_a_folder_without_description_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        read_bundle(tmp_path)
    with pytest.raises(BundleError, match="is not a bundle"):
        read_bundle(tmp_path / "absent")


def test_differences_are_named() -> None:
    engine = type(ENGINE)(kind="llama-cpp", version="x 2", source="m.gguf", source_sha256="ab", parallel_requests=2)
    other = bundle(pad_id=3, engine=engine, files={"a": "1"}, inputs_sha256="other")
    assert BUNDLE.differences(other) == ["pad_id", "engine.version", "a"]
    assert BUNDLE.differences(bundle(inputs_sha256="other")) == []


def test_digests_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "file") == expected


def _write(folder: Path, changes: dict[str, Any]) -> None:
    document = {**json.loads(BUNDLE.to_json()), **changes}
    (folder / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
