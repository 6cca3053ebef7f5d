"""The command line as people meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine_build.__main__ import main
from engine_build.bundle import sha256_of

from .bundle_samples import bundle
from .gguf_samples import write_gguf

pytestmark = pytest.mark.real_parts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle of one file."""
    tokens = {"added_tokens": [{"id": 2, "content": "<|im_end|>"}, {"id": 7, "content": "<end>"}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokens), encoding="utf-8")
    files = {"tokenizer.json": sha256_of(tmp_path / "tokenizer.json")}
    (tmp_path / "bundle.json").write_text(bundle(files=files).to_json(), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "the following arguments are required"),
        (["llama-cpp"], "the following arguments are required: --out"),
        (["llama-cpp", "--out", "b", "--threads", "many"], "argument --threads: invalid int value: 'many'"),
        (["llama-cpp", "--out", "b", "--threads", "-1"], "--threads -1: must be from 0 to"),
        (["llama-cpp", "--out", "b", "--gguf", "absent.gguf"], "absent.gguf can't be read: No such file"),
        (
            ["llama-cpp", "--out", "b", "--prompt-format", "alpaca"],
            "argument --prompt-format: invalid choice: 'alpaca'",
        ),
        (["llama-cpp", "--out", "b", "--lora", "pirate.gguf"], "--lora 'pirate.gguf': must be NAME=FILE"),
        (["llama-cpp", "--out", "b", "--lora", "pirate="], "--lora 'pirate=': must be NAME=FILE"),
        (["llama-cpp", "--out", "b", "--lora", "a b=c"], "--lora 'a b': an adapter's name is 1 to 64 letters"),
        (["llama-cpp", "--out", "b", "--lora", "a=b", "--lora", "a=c"], "--lora a: given twice"),
        (["inspect", "absent"], "absent is not a bundle"),
        (["bake"], "argument {llama-cpp,inspect}: invalid choice: 'bake'"),
    ],
)
def test_errors_are_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert f"engine_build: error: {text}" in error
    assert "Traceback" not in error


def test_inspect_shows_what_a_bundle_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folder)]) == 0
    page = capsys.readouterr().out
    for text in (
        "tiny (Tiny",
        "<|im_end|> (2), <end> (7)",
        "temperature 0.6, top_k 40",
        "french",
        "2048 tokens",
        " ok",
    ):
        assert text in page


def test_inspect_finds_changed_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tokenizer.json").write_text("changed")
    assert main(["inspect", str(folder)]) == 1
    page = capsys.readouterr().out
    assert "changed" in page
    assert "build the bundle again" in page
    (folder / "tokenizer.json").unlink()
    assert main(["inspect", str(folder), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["files"][0]["state"] == "missing"


def test_inspect_speaks_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["model_id"], document["intact"], document["end_tokens"]) == ("tiny", True, ["<|im_end|>", "<end>"])


def test_the_module_runs(tmp_path: Path) -> None:
    gguf = write_gguf(tmp_path / "tiny.gguf", architecture="bert")
    command = [sys.executable, "-m", "engine_build", "llama-cpp", "--out", str(tmp_path / "b"), "--gguf", str(gguf)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert "engine_build: error:" in done.stderr
    assert "its architecture is 'bert'; only 'llama' is supported" in done.stderr
    assert "Traceback" not in done.stderr
