"""The README tells the truth where it can be compared with the code."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from server.config import Settings, flag_of, variable_of
from server.metric_specs import metrics_table

_ROOT = Path(__file__).parent.parent
_README = (_ROOT / "README.md").read_text(encoding="utf-8")


def test_the_settings_table_is_the_settings() -> None:
    expected = []
    for setting in fields(Settings):
        default = "none" if setting.default is None else f"`{str(setting.default).replace('False', 'false')}`"
        default = default.replace("True", "true")
        name = setting.name
        expected.append(f"| `{flag_of(name)}` | `{variable_of(name)}` | {default} | {setting.metadata['help']} |")
    assert [line for line in _README.splitlines() if line.startswith("| `--")] == expected


def test_every_local_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", _README)
    assert links
    assert [link for link in links if not (_ROOT / link).exists()] == []


@pytest.mark.parametrize(
    "tree", [re.findall(r"^( *)(\S+?/?)(?: +(\S+\.py))? {2,}\S", _README.split("## What is where")[1], re.M)]
)
def test_the_tree_names_what_is_there(tree: list[tuple[str, str, str]]) -> None:
    folders: list[str] = []
    missing = []
    for indent, name, second in tree:
        del folders[len(indent) // 2 :]
        for each in filter(None, (name, second)):
            if not _ROOT.joinpath(*folders, each).exists():
                missing.append("/".join([*folders, each]))
        if name.endswith("/"):
            folders.append(name)
    assert missing == []


def test_the_metrics_table_is_the_metrics() -> None:
    assert metrics_table().strip() in _README
