"""`worker bench submit` from end to end with a thousand keys. No time is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from worker.bench.submit_report import SubmitReport
from worker.cli.bench import bench_command

pytestmark = pytest.mark.timeout(300)  # a dozen processes start in sequence

KEYS = 1001


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    output = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        arguments = ["submit", "--keys", str(KEYS), "--plain-messages", "200", "--lost-jobs", "3"]
        arguments += ["--output", str(output)]
        return CliRunner().invoke(bench_command, arguments), output


@pytest.fixture
def found(done):
    result, output = done
    assert result.exit_code == 0, result.output
    return json.loads((output / "submit.json").read_text("utf-8"))


def test_everything_is_measured(found):
    (one,) = found["results"]

    assert one["submit"]["images"] == one["keys"] == KEYS
    assert one["redis"]["messages"] == one["submit"]["published"] == 2  # the window of a fleet without workers
    assert one["recover"]["ok"] + one["recover"]["failed"] == KEYS // 2
    assert one["recover"]["status"] == "running"
    assert one["cancel"]["status"] == "stopping"
    assert one["retry"]["images"] == one["recover"]["failed"] == 1
    assert all(one[action]["peak_mib"] > 20 for action in ("submit", "recover", "retry"))
    assert one["end"]["steward_peak_mib"] > 20
    assert found["plain_celery"]["messages"] == 200
    lost = found["recover_all"]
    assert (lost["jobs"], lost["images"], lost["done"]) == (3, KEYS, 3 * (KEYS // 2))
    # For each job: its folder is listed, then `job.json`, `manifest.json`, `retry.json`, the log and its one part.
    assert lost["requests"] == {"ListObjectsV2": 1 + 3 + 3, "GetObject": 3 * 4}


def test_a_job_costs_redis_less_than_messages(found):
    """Bytes and commands do not depend on the machine, as seconds do."""
    (one,) = found["results"]

    assert one["cancel"]["commands"] < 30
    assert found["plain_celery"]["redis_bytes_per_image"] > 300
    assert one["redis"]["done_bytes"] < 5_000_000


def test_the_table_compares_with_plain_celery_and_a_plot_is_written(done, found):
    result, output = done

    assert f"{KEYS:,} plain Celery" in result.output
    assert list(SubmitReport(found).readme_table().as_markdown())[-1] in result.output
    assert (output / "submit.png").stat().st_size > 10_000
