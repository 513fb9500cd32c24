"""`--precision auto`, from recorded CPU flags to a file of the published set."""

from __future__ import annotations

import pytest

from worker.contract.settings import ModelSettings
from worker.cpu.isa import SMALL_MEMORY_BYTES, recommend
from worker.model.format.layout import PRECISIONS, read_listing
from worker.model.format.variant import choose

GIB = 1 << 30
PUBLISHED = read_listing(
    f"openvino_{precision}/birefnet_lite_{size}x{size}_{precision}.{suffix}"
    for precision in PRECISIONS
    for size in (512, 1024)
    for suffix in ("xml", "bin")
)


def flags(topologies, cpu: str) -> frozenset[str]:
    lines = (topologies / "flags.tsv").read_text().splitlines()
    (words,) = [line.partition("\t")[2] for line in lines if line.startswith(f"{cpu}\t")]
    return frozenset(words.split())


@pytest.mark.parametrize(
    ("cpu", "stored", "arithmetic"),
    [
        ("skylake-sp", "fp32", "f32"),
        ("cascade-lake", "int8", "f32"),
        ("ice-lake-sp", "int8", "f32"),
        ("sapphire-rapids", "fp32", "bf16"),
        ("granite-rapids", "fp32", "bf16"),
        ("zen3", "fp32", "f32"),
        ("zen4", "int8", "bf16"),
    ],
)
def test_the_published_set_on_each_cpu(topologies, cpu, stored, arithmetic):
    advice = recommend(flags(topologies, cpu), 64 * GIB)

    choice = choose(PUBLISHED, ModelSettings(), advice.precisions)

    assert choice.candidate.label == f"birefnet_lite 1024 {stored}"
    assert advice.inference_precision == arithmetic
    assert choice.reason.endswith(f"{stored} is what this CPU runs best")


@pytest.mark.parametrize("cpu", ["skylake-sp", "zen3", "sapphire-rapids"])
def test_little_memory_takes_int8(topologies, cpu):
    advice = recommend(flags(topologies, cpu), SMALL_MEMORY_BYTES - 1)

    assert choose(PUBLISHED, ModelSettings(), advice.precisions).candidate.precision == "int8"


def test_a_requested_variant_takes_precedence_and_is_named(topologies):
    advice = recommend(flags(topologies, "zen4"), 64 * GIB)

    choice = choose(PUBLISHED, ModelSettings(precision="fp16", size=512), advice.precisions)

    assert choice.candidate.label == "birefnet_lite 512 fp16"
    assert "precision as requested" in choice.reason
