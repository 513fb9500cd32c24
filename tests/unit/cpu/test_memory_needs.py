"""Peak memory of a network, from the table of measurements."""

from __future__ import annotations

import pytest

from worker.contract.settings import ModelSettings, PlanSettings
from worker.cpu import memory
from worker.cpu.memory import MeasuredPeak, MemoryNeeds

PUBLISHED = ModelSettings(source="/models/birefnet_lite")


def of(
    size: int | str | None, precision: str = "int8", arithmetic: str = "bf16", source: str = "/models/x"
) -> MemoryNeeds:
    return memory.needs(ModelSettings(source=source, size=size), precision, arithmetic)


def test_more_pixels_need_more():
    assert of(512).stream_mib < of(1024).stream_mib < of(2048).stream_mib
    assert of(2048).stream_mib == 4 * of(1024).stream_mib


def test_an_unnamed_size_is_the_largest_and_a_size_between_the_next():
    assert of(None) == of(1024)
    assert of(768) == of(1024)
    assert of(256) == of(512)


def test_f32_needs_more_than_bf16_and_fp32_weights_more_than_int8():
    assert of(1024, "fp32", "f32").stream_mib > of(1024, "fp32", "bf16").stream_mib
    assert of(512, "fp32").process_mib > of(512, "int8").process_mib


@pytest.mark.parametrize(("precision", "arithmetic"), [("int4", "bf16"), ("int8", "f16")])
def test_a_combination_without_measurement_counts_as_one_with(precision, arithmetic):
    found = of(1024, precision, arithmetic)

    assert found.stream_mib > 0 and found.process_mib > memory.OVERHEAD_MIB


def test_what_the_bundle_states_takes_the_place_of_the_table():
    measured = MeasuredPeak(150, 60, "u2netp 320 fp32 in bf16")

    found = memory.needs(PUBLISHED, "fp32", "bf16", measured)

    assert (found.process_mib, found.stream_mib) == (150 + memory.OVERHEAD_MIB, 60)
    assert found.why == "measured when the bundle of u2netp 320 fp32 in bf16 was made"


def test_the_builtin_network_is_small():
    assert of(None, source="builtin:contrast").stream_mib < of(512).stream_mib


def test_numbers_set_by_hand_take_precedence():
    plan = memory.with_memory_needs(PlanSettings(memory_per_stream_mib=99), PUBLISHED, "int8", "bf16")

    assert plan.memory_per_stream_mib == 99
    assert plan.memory_per_process_mib == of(1024).process_mib


def test_pixels_decide_for_a_size_that_is_not_square():
    assert of("512x1024") == of(1024)
    assert of("256x1024") == of(512)
    assert of("1440x2560").stream_mib == of(1024).stream_mib * (1440 * 2560) // 1024**2
