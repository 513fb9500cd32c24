"""The names and shapes derived in code equal those of the published state dicts."""

from __future__ import annotations

import pytest

from support.birefnet_weights import LITE, SWIN_L, published_shapes
from worker.convert.birefnet import layout


@pytest.mark.parametrize(("backbone", "table"), [(layout.SWIN_T, LITE), (layout.SWIN_L, SWIN_L)])
def test_names_and_shapes_are_the_published_ones(backbone, table):
    published = published_shapes(table)

    assert {**layout.required(backbone), **layout.optional(backbone)} == published
    assert not layout.required(backbone).keys() & layout.optional(backbone).keys()
    assert layout.backbone_of(published) is backbone


def test_another_backbone_counts_as_swin_t_so_that_validation_names_the_difference():
    assert layout.backbone_of({"bb.patch_embed.proj.weight": (128, 3, 4, 4)}) is layout.SWIN_T
    assert layout.backbone_of({}) is layout.SWIN_T


def test_outputs_of_training_are_not_needed():
    training = {name for name in published_shapes() if "conv_ms_spvn_" in name or "gdt_convs_pred_" in name}

    assert training
    assert training <= layout.optional().keys()


@pytest.mark.parametrize(("table", "millions"), [(LITE, 44.3), (SWIN_L, 220.2)])
def test_the_network_has_the_published_number_of_parameters(table, millions):
    parameters = sum(
        shape_size(shape) for name, shape in published_shapes(table).items() if name.rpartition(".")[2] not in BUFFERS
    )

    assert round(parameters / 1e6, 1) == millions


BUFFERS = {"running_mean", "running_var", "num_batches_tracked", "relative_position_index"}


def shape_size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
