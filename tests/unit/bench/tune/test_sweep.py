"""Order of the trials and choice of the fastest, without processes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from worker.bench.tune import sweep as module
from worker.bench.tune.sweep import Trial, sweep
from worker.contract.errors import SetupError


def trial(name: str) -> Trial:
    return Trial(SimpleNamespace(label=name), SimpleNamespace(precision="fp32"), "f32")


@pytest.fixture
def run(monkeypatch):
    tried: list[str] = []

    def sweep_over(rates: dict[str, list[float]], rounds: int = 2):
        def measure(result, folder, seconds):
            name = result.trial.layout.label
            tried.append(name)
            if not rates[name]:
                result.failed = "no memory"
            else:
                result.rates.append(rates[name][len(result.rates)])

        monkeypatch.setattr(module, "_measure", measure)
        return sweep([trial(name) for name in rates], seconds=1, rounds=rounds, on_progress=lambda line: None), tried

    return sweep_over


def test_the_fastest_comes_first_and_only_close_ones_are_measured_again(run):
    results, tried = run({"default": [5.0, 5.0], "slow": [2.0], "close": [9.5, 9.9], "best": [10.0, 9.0]})

    assert tried == ["default", "slow", "close", "best", "default", "close", "best"]
    assert [result.trial.layout.label for result in results] == ["close", "best", "default", "slow"]


def test_a_trial_that_fails_does_not_end_the_others(run):
    results, _ = run({"default": [5.0, 5.0], "too big": []})

    assert [result.failed for result in results] == ["", "no memory"]


def test_the_reason_is_reported_if_no_trial_can_run(run):
    with pytest.raises(SetupError, match="no memory"):
        run({"default": [], "other": []})
