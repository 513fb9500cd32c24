"""Storing the results of tuning, and the machines and settings they apply to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from unit.model.bundle_files import FILES, XML, manifest, write_bundle
from worker.contract.errors import SetupError
from worker.contract.input_size import InputSize
from worker.contract.settings import ModelSettings, PlanSettings
from worker.cpu import memory, topology
from worker.node import tuned_plan
from worker.node.tuned_plan import TunedLayout

TUNED = TunedLayout(2, 1, 1, "int8", "bf16", 3.25, 1.1, "2026-01-31T12:00:00Z")
MODEL = ModelSettings(source="/models/net", size=512)
HERE = topology.read()


def test_a_result_is_found_by_the_same_machine_and_network(tmp_path):
    facts = tuned_plan.fingerprint(HERE, MODEL)

    tuned_plan.save(tmp_path / "cache", facts, TUNED)
    tuned_plan.save(tmp_path / "cache", tuned_plan.fingerprint(HERE, ModelSettings()), replace(TUNED, processes=1))

    assert tuned_plan.find(tmp_path / "cache", facts) == TUNED
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [tuned_plan.FILE]


@pytest.mark.parametrize(
    "other",
    [
        (replace(HERE, model_name="another"), MODEL),
        (replace(HERE, flags=HERE.flags | {"amx_tile"}), MODEL),
        (replace(HERE, quota_cpus=1.5), MODEL),
        (HERE, MODEL.model_copy(update={"size": InputSize.square(1024)})),
        (HERE, MODEL.model_copy(update={"source": "/models/other"})),
    ],
)
def test_another_machine_or_network_does_not_get_it(tmp_path, other):
    tuned_plan.save(tmp_path, tuned_plan.fingerprint(HERE, MODEL), TUNED)

    assert tuned_plan.find(tmp_path, tuned_plan.fingerprint(*other)) is None


def test_a_result_is_applied_if_nothing_is_set_by_hand():
    found = tuned_plan.apply(PlanSettings(), ModelSettings(), TUNED)

    assert (found.plan.processes, found.plan.streams, found.plan.threads) == (2, 1, 1)
    assert (found.model.precision, found.model.inference_precision) == ("int8", "bf16")
    assert "2026-01-31" in found.why and found.set_by == "by `worker tune`"


def test_numbers_set_by_hand_take_precedence():
    by_hand = PlanSettings(streams=2)

    found = tuned_plan.apply(by_hand, ModelSettings(precision="fp32"), TUNED)

    assert (found.plan, found.model.precision, found.set_by) == (by_hand, "fp32", "by hand")
    assert "MASKMILL_PLAN__STREAMS" in found.why


def test_without_a_result_the_command_that_measures_is_named():
    assert "`worker tune`" in tuned_plan.apply(PlanSettings(), ModelSettings(), None).why


def test_a_broken_file_is_named_with_the_remedy(tmp_path):
    (tmp_path / tuned_plan.FILE).write_text("{")

    with pytest.raises(SetupError, match=r"tuned\.json.*remove it"):
        tuned_plan.find(tmp_path, tuned_plan.fingerprint(HERE, MODEL))


def test_a_file_of_another_version_is_ignored_until_the_next_result(tmp_path):
    (tmp_path / tuned_plan.FILE).write_text(json.dumps({"schema_version": 99, "entries": {}}))

    assert tuned_plan.find(tmp_path, tuned_plan.fingerprint(HERE, MODEL)) is None


def test_a_folder_that_cannot_be_written_is_reported_with_the_remedy(tmp_path):
    Path(tmp_path / "file").write_text("")

    with pytest.raises(SetupError, match="MASKMILL_MODEL__CACHE_DIR"):
        tuned_plan.save(tmp_path / "file", tuned_plan.fingerprint(HERE, MODEL), TUNED)


def test_the_plan_uses_the_memory_that_the_bundle_states(tmp_path):
    peaks = {"f32": {"process_mib": 111, "stream_mib": 22}}
    root = write_bundle(tmp_path, FILES | {"manifest.json": manifest(FILES, memory={XML: peaks})})

    plan = tuned_plan.with_memory(HERE, PlanSettings(), ModelSettings(source=str(root)))

    assert plan.memory_per_process_mib == 111 + memory.OVERHEAD_MIB
    assert plan.memory_per_stream_mib == 22
