"""Metrics and probes of a running node."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support import commands
from support.installation import Installation
from worker.contract.job import JobStatus
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.telemetry.events import EVENTS


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port: int, path: str) -> tuple[int, str]:
    """Return status and body; status 0 if nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except urllib.error.URLError:
        return 0, ""


def scraped(port: int) -> dict[tuple[str, tuple], float]:
    code, text = get(port, "/metrics")
    assert code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: dict, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0.0)


@pytest.fixture
def job_of_two(installation: Installation, tmp_path) -> str:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    Image.new("RGB", (200, 150), (210, 210, 210)).save(tmp_path / "photos" / "shoe.jpg")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    done = commands.run(
        "producer",
        "submit",
        "photos",
        f"s3://{installation.bucket}/m/",
        "--json",
        settings=installation.environment,
        cwd=tmp_path,
    )
    return done.lines[0]["job"]


def test_metrics_and_logs_of_a_job(installation, ledger: Ledger, job_of_two, worker_log):
    port = free_port()
    settings = installation.environment | {
        "MASKMILL_METRICS__PORT": str(port),
        "MASKMILL_WORKER__NODE_NAME": "rack-7.node0",
    }
    settings["MASKMILL_WORKER__LOG_FORMAT"] = "json"
    with commands.workers(settings, worker_log):
        commands.wait_for(lambda: get(port, "/readyz")[0] == 200, "the node to be ready")
        assert {name.partition("@")[2] for name in Fleet(ledger.connection).live()} == {"rack-7.node0"}
        commands.wait_for(lambda: ledger.view(job_of_two).status is JobStatus.FINISHED, "the job to finish")

        samples = scraped(port)

        assert get(port, "/healthz")[0] == 200 and get(port, "/etc/passwd")[0] == 404
    assert value(samples, "maskmill_images_total", outcome="ok", code="") == 1
    assert value(samples, "maskmill_images_total", outcome="failed", code="undecodable") == 1
    assert value(samples, "maskmill_stage_seconds_count", stage="infer") == 1
    assert value(samples, "maskmill_stage_seconds_count", stage="fetch") == 2
    assert value(samples, "maskmill_core_seconds_total") > 0
    assert value(samples, "maskmill_redis_up") == value(samples, "maskmill_workers_live") == 1
    assert value(samples, "maskmill_queue_messages") == value(samples, "maskmill_backlog_images") == 0
    assert ("maskmill_images_in_flight", ()) in samples and value(samples, "maskmill_images_in_flight") == 0
    assert value(samples, "maskmill_window_messages") > 0
    [(_, facts)] = [key for key in samples if key[0] == "maskmill_model_info"]
    assert dict(facts)["model"] == "contrast"
    secret = installation.settings.redis.password.get_secret_value()
    assert secret not in get(port, "/metrics")[1] and secret not in worker_log.read_text()
    lines = [json.loads(line) for line in worker_log.read_text().splitlines()]
    assert len(lines) > 5 and {line["event"] for line in lines} <= set(EVENTS)
    [failed] = [line for line in lines if line["event"] == "image_failed"]
    assert (failed["job"], failed["chunk"], failed["code"]) == (job_of_two, 0, "undecodable")
    assert failed["key"] == "broken.jpg" and failed["image"] in (0, 1)


def test_a_node_without_redis_is_alive_but_not_ready(installation, worker_log):
    port = free_port()
    settings = installation.environment | {
        "MASKMILL_METRICS__PORT": str(port),
        "MASKMILL_REDIS__URL": "redis://127.0.0.1:1/0",
    }
    with commands.workers(settings, worker_log):
        commands.wait_for(lambda: get(port, "/healthz")[0] == 200, "the steward")

        assert get(port, "/readyz")[0] == 503
        assert value(scraped(port), "maskmill_redis_up") == 0


def test_a_port_in_use_is_named(installation, worker_log):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = installation.environment | {
            "MASKMILL_METRICS__PORT": str(taken.getsockname()[1]),
            "MASKMILL_WORKER__RESTART_LIMIT": "1",
        }
        with commands.workers(settings, worker_log) as supervisor:
            assert supervisor.wait(60) == 1

    assert "MASKMILL_METRICS__PORT" in worker_log.read_text() and "Traceback" not in worker_log.read_text()
