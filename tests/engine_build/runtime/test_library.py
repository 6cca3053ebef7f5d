"""The ctypes binding against the installed library, without weights."""

from __future__ import annotations

import ctypes
from importlib import metadata
from pathlib import Path

import pytest

from engine_build.llama_cpp.runtime import library
from engine_build.llama_cpp.runtime.c_declarations import MODEL_DEFAULTS, SUPPORTED_VERSION
from engine_build.llama_cpp.runtime.language_model import LanguageModel
from engine_build.llama_cpp.runtime.library import LibraryError, open_library


def test_opens_and_knows_its_defaults() -> None:
    params = open_library().llama_model_default_params()
    assert {name: getattr(params, name) for name in MODEL_DEFAULTS} == MODEL_DEFAULTS


def test_another_version_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "2027.1.1")
    with pytest.raises(LibraryError, match=rf"xllamacpp 2027\.1\.1 is installed.*{SUPPORTED_VERSION}.*pip install"):
        open_library()


def test_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(LibraryError, match="xllamacpp is not installed; install the version it was written for"):
        open_library()


def test_a_changed_struct_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(library.CONTEXT_DEFAULTS, "n_seq_max", 77)
    with pytest.raises(LibraryError, match=r"llama_context_default_params differs.*n_seq_max is 1, not 77"):
        open_library()


def test_a_missing_function_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(library.FUNCTIONS, "llama_time_travel", (None, (ctypes.c_int,)))
    with pytest.raises(LibraryError, match="no function llama_time_travel"):
        open_library()


def test_a_library_that_cannot_be_loaded(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.so"
    wrong.write_bytes(b"not a library")
    with pytest.raises(LibraryError, match=r"cannot load llama\.cpp from"):
        library.Library(wrong)


def test_a_file_that_is_no_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"not a model")
    with pytest.raises(LibraryError, match=r"llama\.cpp cannot load wrong\.gguf"):
        LanguageModel(open_library(), wrong, slots=1, context_length=64, threads=1, rows_per_step=8)
    assert any(record.levelname == "ERROR" for record in caplog.records)
