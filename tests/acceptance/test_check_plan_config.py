"""`worker check`, `worker plan`, `worker config`, `producer config`."""

from __future__ import annotations

import json

import pytest

from support import commands
from support.installation import MODEL


def test_all_checks_pass_on_a_working_node(installation):
    done = commands.run("worker", "check", "--bucket", installation.bucket, settings=installation.environment)

    assert done.code == 0, done.out + done.err
    assert [line.split()[1] for line in done.out.splitlines()] == ["redis", "s3", "pinning", "bundle", "network"]
    assert "FAIL" not in done.out and len(done.out.splitlines()) <= 24


@pytest.mark.parametrize(
    ("change", "failing", "remedy"),
    [
        ({"MASKMILL_REDIS__PASSWORD": "wrong"}, "redis", "MASKMILL_REDIS__PASSWORD"),
        ({"MASKMILL_REDIS__URL": "redis://127.0.0.1:1/0"}, "redis", "MASKMILL_REDIS__URL"),
        ({"MASKMILL_S3__SECRET_ACCESS_KEY": "wrong"}, "s3", "credentials"),
        ({"MASKMILL_S3__ENDPOINT_URL": "http://127.0.0.1:1", "MASKMILL_S3__ATTEMPTS": "1"}, "s3", "127.0.0.1:1"),
        ({"MASKMILL_MODEL__SOURCE": "/nowhere"}, "bundle", "MASKMILL_MODEL__SOURCE"),
        ({"MASKMILL_PLAN__PROCESSES": "1000"}, "pinning", "1000"),
        ({"MASKMILL_PLAN__MEMORY_PER_STREAM_MIB": "99999999"}, "pinning", "MiB"),
        ({"KMP_AFFINITY": "compact"}, "pinning", "KMP_AFFINITY"),
    ],
)
def test_a_failed_check_names_the_remedy(installation, change, failing, remedy):
    done = commands.run("worker", "check", "--json", settings=installation.environment | change)

    findings = {line["check"]: line for line in done.lines}
    assert done.code == 1
    assert not findings[failing]["ok"] and remedy in findings[failing]["text"]
    assert findings["redis"]["ok"] or failing == "redis", "one failure must not hide the other checks"
    assert "Traceback" not in done.err


def test_the_plan_gives_its_reasons(installation):
    text = commands.run("worker", "plan", settings=installation.environment)
    as_json = commands.run("worker", "plan", "--json", settings=installation.environment)

    plan = json.loads(as_json.out)
    assert text.code == as_json.code == 0
    assert "process 0" in text.out and "streams" in text.out
    assert plan["core_sets"][0]["cpus"] and plan["reasons"] and plan["inference_precision"] in ("f32", "bf16", "f16")


@pytest.mark.parametrize("command", ["worker", "producer"])
def test_config_shows_values_and_origins_but_no_secrets(installation, command, monkeypatch):
    monkeypatch.delenv("MASKMILL_MODEL__SOURCE")
    without_model = {name: value for name, value in installation.environment.items() if name not in MODEL}
    done = commands.run(command, "config", "--json", settings=without_model)

    rows = {line["setting"]: line for line in done.lines}
    assert rows["MASKMILL_REDIS__URL"]["origin"] == "environment"
    assert rows["MASKMILL_MODEL__SOURCE"] == {
        "setting": "MASKMILL_MODEL__SOURCE",
        "value": "default",
        "origin": "default",
    }
    assert installation.environment["MASKMILL_REDIS__PASSWORD"] not in done.out
    assert installation.environment["MASKMILL_S3__SECRET_ACCESS_KEY"] not in done.out


@pytest.mark.parametrize("command", ["worker", "producer"])
def test_every_command_has_help_and_a_version(command):
    version = commands.run(command, "--version", settings={})
    assert version.code == 0 and "0.1.0" in version.out

    for name, text in commands.help_of_commands(command).items():
        assert len(text) > 100 and "\\b" not in text, name
