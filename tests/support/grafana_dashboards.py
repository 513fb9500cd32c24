"""The expressions in the Grafana dashboards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from support.validators import INFRA

DASHBOARDS = sorted((INFRA / "grafana" / "dashboards").glob("*.json"))


@dataclass(frozen=True)
class Expression:
    dashboard: str
    panel: str
    text: str

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.panel}: {self.text}"

    def without_variables(self, interval: str = "5m") -> str:
        """Return the expression that Grafana sends with every job and node selected."""
        text = self.text.replace("$__rate_interval", interval)
        for name in ("job_id", "instance"):
            text = text.replace(f"${name}", ".*")
        assert "$" not in text, text
        return text


def expressions() -> Iterator[Expression]:
    """Yield the Prometheus expressions of all panels."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                yield Expression(path.stem, panel["title"], target["expr"])
