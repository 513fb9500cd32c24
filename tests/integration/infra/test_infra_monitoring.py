"""Alerts and dashboards use only metrics and labels that the code exports."""

from __future__ import annotations

import json
import re
from collections import Counter as Tally
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from support import grafana_dashboards, validators
from support.validators import INFRA
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.records import JobRecord
from worker.contract.ledger.replication import Replicas
from worker.contract.messages import JobOptions, JobPolicy, OutcomeKind
from worker.steward.fleet_metrics import FleetCollector
from worker.telemetry import metrics

ALERTS = INFRA / "prometheus" / "alerts.yml"
GROUPS = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
NOT_OURS = {"up", "redis_memory_used_bytes", "redis_memory_max_bytes"}
"""Metrics of Prometheus itself and of the Redis exporter."""

_SUFFIXES = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}
_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def names(expression: str) -> set[str]:
    """Return the metrics in a PromQL expression: all words that are no function, label, keyword or unit."""
    text = re.sub(r'"[^"]*"', '""', expression)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    text = re.sub(rf"{_WORD.pattern}\s*\(", "(", text)
    return set(_WORD.findall(text)) - {"and", "or", "unless", "sum", "max", "min", "count", "by", "offset", "bool"}


class OneJob:
    """A stub for backlog and fleet with one job and one worker."""

    def queued(self) -> int:
        return 1

    def unreadable(self) -> int:
        return 0

    def live(self) -> list[str]:
        return ["worker-0@node"]

    def parts(self) -> Iterator[list[JobRecord]]:
        view = JobView(
            job="j",
            status=JobStatus.RUNNING,
            options=JobOptions.model_validate({"source": "s3://b/in/", "dest": "s3://b/out/"}),
            policy=JobPolicy(),
            total=2,
            created_at=0.0,
        )
        yield [JobRecord(view, 1, 0, 0)]


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Return sample name -> label names for all metrics that a node exports."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        for suffix in _SUFFIXES.get(type(metric), ()):
            more = {"le"} if suffix == "_bucket" else set()
            found[f"{metric._name}{suffix}"] = {*metric._labelnames, *more}
    stand_in = OneJob()
    for family in FleetCollector(stand_in, stand_in, lambda: True, lambda: Replicas(1, 1), 1).collect():
        assert family.samples, family.name
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


EXPRESSIONS = [(f"alert {rule.get('alert', rule.get('record'))}", rule["expr"]) for rule in RULES] + [
    (str(expression), expression.text) for expression in grafana_dashboards.expressions()
]


def test_every_used_metric_exists(known):
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    asked = {(place, name) for place, text in EXPRESSIONS for name in names(text)}

    assert len(asked) > 60
    assert {(place, name) for place, name in asked if name not in known.keys() | recorded | NOT_OURS} == set()


def test_every_used_label_exists(known):
    missing = []
    for place, text in EXPRESSIONS:
        for name, matchers in re.findall(rf"({_WORD.pattern})\{{([^}}]*)\}}", text):
            wanted = set(re.findall(r"(\w+)\s*=?[=!~]", matchers)) - {"instance"}
            missing += [(place, name, wanted - known[name])] if name in known and wanted - known[name] else []

    assert not missing


def test_every_metric_is_used_by_an_alert_or_dashboard(known):
    asked = {name for _, text in EXPRESSIONS for name in names(text)}
    families = {re.sub(r"_(bucket|sum|count|created|total)$", "", name) for name in known}

    assert not {family for family in families if not any(name.startswith(family) for name in asked)}


def test_outcomes_and_codes_of_alerts_exist():
    kinds = {kind.value for kind in OutcomeKind}
    used = {value for _, text in EXPRESSIONS for value in re.findall(r'outcome=~?"([^"]*)"', text)}

    assert {kind for value in used for kind in value.split("|")} <= kinds


def test_the_rules_pass_promtool():
    promtool = validators.need("promtool", "prometheus")

    assert "SUCCESS" in validators.run(promtool, "check", "rules", ALERTS)
    assert "SUCCESS" in validators.run(promtool, "test", "rules", ALERTS.with_name("alerts_test.yml"))


def test_every_alert_has_a_test_in_which_it_fires():
    tests = yaml.safe_load(ALERTS.with_name("alerts_test.yml").read_text("utf-8"))["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}

    assert {rule["alert"] for rule in RULES if "alert" in rule} == fired


def test_every_alert_has_a_severity_and_a_summary():
    for rule in RULES:
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"critical", "warning", "info"} and rule["annotations"]["summary"]


def test_the_scrape_configuration_passes_promtool(tmp_path):
    promtool = validators.need("promtool", "prometheus")
    text = (INFRA / "prometheus" / "prometheus.yml").read_text("utf-8")
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/alerts.yml", str(ALERTS)))

    validators.run(promtool, "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("path", grafana_dashboards.DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_complete(path: Path):
    dashboard = json.loads(path.read_text("utf-8"))
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}

    assert dashboard["uid"] == f"maskmill-{path.stem}"
    assert max(Tally(panel["id"] for panel in dashboard["panels"]).values()) == 1
    assert set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(dashboard["panels"]))) == variables
    cells: Tally[tuple[int, int]] = Tally()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells.update((place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"]))
    assert max(cells.values()) == 1, "panels overlap"
