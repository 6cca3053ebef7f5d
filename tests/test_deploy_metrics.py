"""The alert rules and the dashboard ask only for metrics and labels that the server has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml

from server.metric_specs import METRICS, MetricSpec
from server.metrics import FINISH_REASONS, METHODS, REFUSALS

DEPLOY = Path(__file__).parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "llamarpc.json").read_text(encoding="utf-8"))
ALERTS = [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

ADDED_BY_PROMETHEUS = {"instance", "job"}
UP = MetricSpec(name="up", kind="gauge", meaning="made by Prometheus for each target")

_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*?)\})?(?=[\[\s)]|$)")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_WORDS = {"by", "without", "on", "ignoring", "and", "or", "unless", "sum", "min", "max", "count", "topk", "avg"}


def expressions() -> Iterator[tuple[str, str]]:
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if found := re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", "")):
            yield variable["name"], f"count by ({found[2]}) ({found[1]})"


def series() -> dict[str, MetricSpec]:
    """Names that can be asked for: a histogram is three series."""
    names = {"up": UP}
    for spec in METRICS:
        suffixes = ("_bucket", "_sum", "_count") if spec.kind == "histogram" else ("",)
        names.update({spec.name + suffix: spec for suffix in suffixes})
    return names


def selectors(expression: str) -> list[tuple[str, str]]:
    """(metric, matchers) of an expression: what is left when groupings, functions and durations are taken away."""
    bare = re.sub(r"\[[^\]]*\]", "", _GROUPING.sub(" ", expression))
    return [(name, matchers) for name, matchers in _SELECTOR.findall(bare) if name not in _WORDS]


def labels_of(name: str) -> set[str]:
    return {*series()[name].labels, *ADDED_BY_PROMETHEUS, *({"le"} if name.endswith("_bucket") else ())}


ALL = [pytest.param(expression, id=title) for title, expression in expressions()]


@pytest.mark.parametrize("expression", ALL)
def test_expressions_name_metrics_and_labels_that_exist(expression: str) -> None:
    found = selectors(expression)
    assert found
    assert {name for name, _ in found} <= set(series())
    grouped = {label.strip() for labels in _GROUPING.findall(expression) for label in labels.split(",")}
    for name, matchers in found:
        assert {label for label, _, _ in _MATCHER.findall(matchers)} <= labels_of(name)
        assert grouped <= labels_of(name)


VALUES = {
    "reason": REFUSALS,
    "finish_reason": FINISH_REASONS,
    "grpc_status": tuple(code.name for code in grpc.StatusCode),
    "grpc_method": tuple(method[1:] for method in METHODS),
    "gen_ai_token_type": ("input", "output"),
    "type": ("input", "output"),
}


@pytest.mark.parametrize("expression", ALL)
def test_values_of_labels_are_ones_that_exist(expression: str) -> None:
    for _, matchers in selectors(expression):
        for label, _, pattern in _MATCHER.findall(matchers):
            if label in VALUES:
                for each in pattern.split("|"):
                    assert any(re.fullmatch(each, there) for there in VALUES[label]), f"no {label} is {each}"


@pytest.mark.parametrize("panel", [pytest.param(panel, id=panel["title"]) for panel in PANELS])
def test_legends_show_labels_that_are_left(panel: dict[str, list[dict[str, str]]]) -> None:
    for target in panel["targets"]:
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        grouped = {label.strip() for labels in _GROUPING.findall(target["expr"]) for label in labels.split(",")}
        plain = "sum" not in target["expr"]
        assert shown <= (labels_of(selectors(target["expr"])[0][0]) if plain else grouped)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {series()[name].name for panel in PANELS for t in panel["targets"] for name, _ in selectors(t["expr"])}
    assert {spec.name for spec in METRICS} - shown == set()


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["alert"]) for rule in ALERTS])
def test_alerts_say_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert rule["annotations"]["runbook"].endswith(".")
    used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    assert used <= {"instance"}


def test_alerts_and_panels_have_names_of_their_own() -> None:
    for names in ([rule["alert"] for rule in ALERTS], [panel["id"] for panel in DASHBOARD["panels"]]):
        assert len(names) == len(set(names))


def test_the_example_scrapes_the_job_of_the_rules() -> None:
    example = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert example["rule_files"] == [RULES.name]
    assert {job["job_name"] for job in example["scrape_configs"]} == set(
        re.findall(r'job="(\w+)"', RULES.read_text(encoding="utf-8"))
    )


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("llamarpc_made_up > 1", ["llamarpc_made_up"]),
        ('sum by (a) (rate(x_total{b=~"c|d"}[5m])) / sum(rate(y[1m])) > 0.5', ["x_total", "y"]),
        ('histogram_quantile(0.9, sum by (le) (rate(z_bucket{i=~"$i"}[$__rate_interval])))', ["z_bucket"]),
        ("topk(10, w)", ["w"]),
    ],
)
def test_selectors_are_found(expression: str, expected: list[str]) -> None:
    assert [name for name, _ in selectors(expression)] == expected


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool, of Debian's package prometheus")
def test_prometheus_agrees(tmp_path: Path) -> None:
    """Its own tool reads the rules, runs their tests, and reads the dashboard's expressions as if they were rules."""
    promtool("check", "config", DEPLOY / "prometheus" / "prometheus.yml")
    promtool("test", "rules", DEPLOY / "prometheus" / "rules_test.yml")
    rules = [
        {"record": f"panel:{index}", "expr": each.replace("$__rate_interval", "5m")}
        for index, (_, each) in enumerate(expressions())
    ]
    asked = tmp_path / "panels.yml"
    asked.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    promtool("check", "rules", asked)
