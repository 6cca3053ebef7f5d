"""bundle.json: read whole, or refused with the file, the reason and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.bundle import BundleError, GenerationDefaults, read_bundle
from server.chat.prompt_formats import LLAMA3
from tests.fakes import BUNDLE_FIELDS, write_bundle


def test_whole_bundle(tmp_path: Path) -> None:
    write_bundle(
        tmp_path,
        prompt_format="llama3",
        default_system_prompt="Be kind.",
        end_ids=[128009, 128001],
        adapters={"a": 1},
        generation_defaults={"temperature": 0.5, "top_p": 0.9},
    )
    bundle = read_bundle(tmp_path)
    assert (bundle.model_id, bundle.display_name, bundle.license) == ("bytes-1", "Bytes", "apache-2.0")
    assert (bundle.prompt_format, bundle.default_system_prompt) == (LLAMA3, "Be kind.")
    assert (bundle.end_ids, bundle.pad_id, bundle.context_length) == ((128009, 128001), 257, 1_000)
    assert (bundle.engine_kind, bundle.engine_version, bundle.engine_source) == ("scripted", "1", "none")
    assert (bundle.adapters, bundle.defaults) == ({"a": 1}, GenerationDefaults(temperature=0.5, top_p=0.9))
    assert bundle.tokenizer_path == tmp_path / "tokenizer.json"
    assert bundle.model_repository == tmp_path / "model_repository"


@pytest.mark.parametrize("license_", [{}, {"license": None}, {"license": ""}])
def test_license_may_be_missing(tmp_path: Path, license_: dict[str, None]) -> None:
    fields = {name: value for name, value in BUNDLE_FIELDS.items() if name != "license"} | license_
    (tmp_path / "bundle.json").write_text(json.dumps(fields))
    assert read_bundle(tmp_path).license == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"{", "bundle.json can't be read: ", id="no_json"),
        pytest.param(b"", "bundle.json can't be read: ", id="empty"),
        pytest.param(b'"\xff"', "bundle.json can't be read: ", id="no_utf8"),
        pytest.param(b"[]", "schema_version None, this server reads 1; build", id="a_list"),
        pytest.param(b"null", "schema_version None, this server reads 1; build", id="null"),
        pytest.param(b"{}", "schema_version None, this server reads 1; build", id="no_version"),
        pytest.param(b'{"schema_version": 2}', "schema_version 2, this server reads 1; build", id="other_version"),
        pytest.param(b'{"schema_version": 1}', "wrong or missing field: .*; build the bundle again", id="no_fields"),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=f"^{tmp_path}/bundle.json.*") as caught:
        read_bundle(tmp_path)
    assert caught.match(message)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=rf"^{tmp_path} is no bundle: .*python -m engine_build"):
        read_bundle(tmp_path)
    with pytest.raises(BundleError, match="is no bundle"):
        read_bundle(tmp_path / "nowhere")


def test_path_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=f"{tmp_path}/file"):
        read_bundle(tmp_path / "file")


REQUIRED = [
    "model_id",
    "display_name",
    "prompt_format",
    "default_system_prompt",
    "end_ids",
    "pad_id",
    "context_length",
    "generation_defaults",
    "adapters",
    "engine",
]


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_fields_are_named(tmp_path: Path, name: str) -> None:
    fields = {key: value for key, value in BUNDLE_FIELDS.items() if key != name}
    (tmp_path / "bundle.json").write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=name):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("prompt_format", "alpaca", "'alpaca' is none of llama3, chatml"),
        ("prompt_format", ["chatml"], "wrong or missing field"),
        ("end_ids", [], "end_ids is empty"),
        ("end_ids", ["x"], "wrong or missing field"),
        ("end_ids", 5, "wrong or missing field"),
        ("pad_id", None, "wrong or missing field"),
        ("context_length", "long", "wrong or missing field"),
        ("context_length", 0, "context_length"),
        ("adapters", ["a"], "wrong or missing field"),
        ("adapters", {"a": "x"}, "wrong or missing field"),
        ("engine", None, "wrong or missing field"),
        ("engine", {"kind": "k"}, "version"),
        ("generation_defaults", {"heat": 1}, "heat"),
        ("generation_defaults", {"temperature": "warm"}, "temperature"),
        ("generation_defaults", {"max_tokens": None}, "max_tokens"),
    ],
)
def test_wrong_fields(tmp_path: Path, name: str, value: Any, message: str) -> None:
    write_bundle(tmp_path, **{name: value})
    with pytest.raises(BundleError, match=message):
        read_bundle(tmp_path)
