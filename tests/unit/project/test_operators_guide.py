"""The operator's guide names only existing settings, commands and files, and explains every alert."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from producer.cli import _COMMANDS as PRODUCER_COMMANDS
from worker.cli import _COMMANDS as WORKER_COMMANDS
from worker.contract import settings
from worker.cpu import memory

INFRA = Path(__file__).parents[3] / "infra"
GUIDE = (INFRA / "README.md").read_text("utf-8")


def test_exactly_the_existing_alerts_are_explained():
    groups = yaml.safe_load((INFRA / "prometheus" / "alerts.yml").read_text("utf-8"))["groups"]
    alerts = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]

    assert re.findall(r"^### (Maskmill\w+)$", GUIDE, flags=re.MULTILINE) == alerts
    assert set(re.findall(r"\bMaskmill[A-Z]\w+", GUIDE)) <= set(alerts)


def test_every_setting_in_the_guide_exists():
    known = {row.variable for row in settings.explain(settings.load())} | {"MASKMILL_SECRETS_DIR"}

    assert set(re.findall(r"\bMASKMILL_[A-Z0-9_]+[A-Z0-9]", GUIDE)) <= known


def test_every_command_in_the_guide_exists():
    used = set(re.findall(r"(?:`|^|/bin/|producer )(worker|producer) ([a-z]+)", GUIDE, flags=re.MULTILINE))

    assert len(used) >= 10
    assert {name for program, name in used if program == "worker"} <= set(WORKER_COMMANDS)
    assert {name for program, name in used if program == "producer"} <= set(PRODUCER_COMMANDS)


def test_every_file_in_the_guide_exists():
    named = re.findall(r"infra/[\w@./-]+\w", GUIDE)

    assert named and all((INFRA.parent / name).exists() for name in named)


def test_the_memory_table_equals_the_code():
    rows = re.findall(r"^\| (\d+) \| (\w+) \| bf16 / f32 \| (\d+) / (\d+) \| (\d+) / (\d+) \|$", GUIDE, re.MULTILINE)

    assert len(rows) == 4
    for side, stored, *numbers in rows:
        bf16, f32 = (memory._PEAKS[int(side), stored, arithmetic] for arithmetic in ("bf16", "f32"))
        assert [int(number) for number in numbers] == [bf16[0], f32[0], bf16[1], f32[1]]
