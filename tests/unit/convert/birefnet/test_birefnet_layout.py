"""The names and shapes derived in code equal those of the published state dict."""

from __future__ import annotations

from support.birefnet_weights import published_shapes
from worker.convert.birefnet import layout


def test_names_and_shapes_are_the_published_ones():
    assert {**layout.required(), **layout.optional()} == published_shapes()


def test_required_and_optional_arrays_do_not_overlap():
    assert not layout.required().keys() & layout.optional().keys()


def test_outputs_of_training_are_not_needed():
    training = {name for name in published_shapes() if "conv_ms_spvn_" in name or "gdt_convs_pred_" in name}

    assert training
    assert training <= layout.optional().keys()


def test_the_network_has_the_published_number_of_parameters():
    parameters = sum(
        shape_size(shape) for name, shape in published_shapes().items() if name.rpartition(".")[2] not in BUFFERS
    )

    assert round(parameters / 1e6, 1) == 44.3


BUFFERS = {"running_mean", "running_var", "num_batches_tracked", "relative_position_index"}


def shape_size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
