"""Precision by CPU flags."""

from __future__ import annotations

import pytest

from worker.cpu.isa import SMALL_MEMORY_BYTES, recommend

GIB = 1 << 30
FLOAT_FIRST = ("fp32", "fp16", "int8", "int8wo")
INT8_FIRST = ("int8", "int8wo", "fp32", "fp16")


@pytest.fixture
def flags(topologies):
    lines = (topologies / "flags.tsv").read_text().splitlines()
    rows = (line.partition("\t") for line in lines if not line.startswith("#"))
    return {name: frozenset(words.split()) for name, _, words in rows}


@pytest.mark.parametrize(
    ("cpu", "isa", "precisions", "arithmetic"),
    [
        ("haswell", "avx2", FLOAT_FIRST, "f32"),
        ("zen3", "avx2", FLOAT_FIRST, "f32"),
        ("alder-lake", "avx_vnni", INT8_FIRST, "f32"),
        ("skylake-sp", "avx512", FLOAT_FIRST, "f32"),
        ("cascade-lake", "avx512_vnni", INT8_FIRST, "f32"),
        ("ice-lake-sp", "avx512_vnni", INT8_FIRST, "f32"),
        ("cooper-lake", "avx512_bf16", INT8_FIRST, "bf16"),
        ("zen4", "avx512_bf16", INT8_FIRST, "bf16"),
        ("sapphire-rapids", "amx", FLOAT_FIRST, "bf16"),
        ("sapphire-rapids-amx-hidden", "avx512_bf16", INT8_FIRST, "bf16"),
        ("granite-rapids", "amx", FLOAT_FIRST, "bf16"),
        ("arm-neoverse", "other", FLOAT_FIRST, "f32"),
    ],
)
def test_each_generation(flags, cpu, isa, precisions, arithmetic):
    got = recommend(flags[cpu], 64 * GIB)

    assert (got.isa, got.precisions, got.inference_precision) == (isa, precisions, arithmetic)
    assert len(got.why) >= 2


def test_every_generation_of_the_list_is_tested(flags):
    tested = {row[0] for row in test_each_generation.pytestmark[0].args[1]}

    assert tested == set(flags)


@pytest.mark.parametrize("cpu", ["skylake-sp", "sapphire-rapids", "zen4", "arm-neoverse"])
def test_little_memory_puts_int8_first_and_leaves_the_arithmetic(flags, cpu):
    little, plenty = recommend(flags[cpu], SMALL_MEMORY_BYTES - 1), recommend(flags[cpu], SMALL_MEMORY_BYTES)

    assert little.precisions == INT8_FIRST
    assert little.inference_precision == plenty.inference_precision
    assert any("16 GB" in why for why in little.why) == (plenty.precisions != INT8_FIRST)


def test_bf16_conversion_of_avx_alone_does_not_count_as_native():
    assert recommend(frozenset({"avx2", "avx_ne_convert", "avx_vnni"}), 64 * GIB).inference_precision == "f32"


def test_bf16_without_vnni_prefers_float():
    got = recommend(frozenset({"avx2", "avx512f", "avx512_bf16"}), 64 * GIB)

    assert (got.isa, got.precisions, got.inference_precision) == ("avx512_bf16", FLOAT_FIRST, "bf16")


def test_a_machine_sold_with_16_gb_is_not_small(flags):
    memory_total_of_a_16_gib_vm = 16_300_000 * 1024

    assert recommend(flags["skylake-sp"], memory_total_of_a_16_gib_vm).precisions == FLOAT_FIRST


def test_fp16_arithmetic_is_mentioned_where_it_exists(flags):
    assert any("fp16" in why for why in recommend(flags["granite-rapids"], 64 * GIB).why)
    assert not any("fp16 arithmetic" in why for why in recommend(flags["zen4"], 64 * GIB).why)
