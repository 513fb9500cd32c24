"""`worker bench all` runs every benchmark, also after one that failed."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from worker.cli.bench import bench_command
from worker.cli.bench_all import BENCHMARKS
from worker.contract.errors import SetupError


@pytest.fixture
def ran(monkeypatch) -> list[tuple[str, tuple[str, ...]]]:
    """Sub-commands that ran, each with the options that were set."""
    seen: list[tuple[str, tuple[str, ...]]] = []
    for name in BENCHMARKS:
        command = bench_command.commands[name]

        def note(name: str = name, **options: object) -> None:
            seen.append((name, tuple(key for key, value in options.items() if value)))
            if name == "model":
                raise SetupError("no memory")

        monkeypatch.setattr(command, "callback", note)
    return seen


def test_every_benchmark_runs_also_after_one_that_failed(ran, tmp_path):
    done = CliRunner().invoke(bench_command, ["all", "--quick", "--output", str(tmp_path)], standalone_mode=False)

    assert [name for name, _ in ran] == list(BENCHMARKS)
    assert all("output" in options and {"quick", "keys"} & set(options) for _, options in ran)
    assert done.return_value == 1
    assert "not measured: model" in done.output


def test_all_leaves_none_out_but_those_that_need_an_exam_or_rembg():
    assert set(BENCHMARKS) == set(bench_command.commands) - {"all", "quality", "peers"}
