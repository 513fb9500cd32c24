"""A finished BiRefNet made by others is checked for the order of its image tiles, and put right."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import openvino as ov
import pytest

from integration.convert.importing.test_output_forms import FREE
from support.birefnet_weights import stand_in_state_dict
from worker.contract.errors import BundleError
from worker.contract.input_size import InputSize
from worker.convert.birefnet import checkpoint, tile_order
from worker.convert.birefnet.network import build
from worker.convert.birefnet.rewrites import NONE
from worker.convert.birefnet.tile_order import TileOrder, with_rows
from worker.convert.importing import Family, ImportRequest, import_network, shaping, tiles
from worker.convert.importing.families import PRESETS
from worker.convert.importing.pictures import Pictures
from worker.model.format.layout import Candidate
from worker.model.format.variant import Variant
from worker.model.inference.facts import NetworkFacts, OutputActivation
from worker.model.inference.graph import prepare
from worker.model.inference.runtime import core

SIZE = InputSize(96, 128)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Weights trained by columns, in a graph that cuts by rows as today's code exports it, and put right."""
    weights = checkpoint.validate(stand_in_state_dict(), "stand-in")
    folder = tmp_path_factory.mktemp("exports")
    for name, trained in (("wrong", weights), ("right", with_rows(weights, TileOrder.COLUMNS))):
        ov.save_model(build(trained, SIZE, NONE), str(folder / f"{name}.xml"), compress_to_fp16=False)
    return folder


def imported(exports, tmp_path, name, **options):
    request = ImportRequest(exports / f"{name}.xml", tmp_path / name, family=Family.BIREFNET, licence=FREE, name="net")
    return import_network(replace(request, measure_memory=False, **options))


PICTURE = np.random.default_rng(3).integers(0, 255, (1, SIZE.height, SIZE.width, 3), np.uint8)


def masks(report) -> np.ndarray:
    candidate = Candidate("net", SIZE, "fp32")
    files = report.output / candidate.xml, report.output / candidate.bin
    return run(prepare(Variant("net", SIZE, "fp32", *files, "0" * 64)).model, PICTURE).astype(int)


def expected_masks(path) -> np.ndarray:
    preset = PRESETS[Family.BIREFNET]
    values = (PICTURE - np.array(preset.mean, np.float32)) / np.array(preset.scale, np.float32)
    logits = run(core().read_model(str(path)), values.transpose(0, 3, 1, 2))
    return np.rint(255 / (1 + np.exp(-logits))).astype(int)


def run(model, tensor) -> np.ndarray:
    return core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(np.ascontiguousarray(tensor))[0]


def tiles_of(report) -> str:
    return next(str(decision) for decision in report.decisions if decision.what == "image tiles")


def test_a_wrong_order_is_put_right(exports, tmp_path):
    report = imported(exports, tmp_path, "wrong", tile_order=TileOrder.COLUMNS)

    assert "by columns, the file cuts them by rows, which was put right" in tiles_of(report)
    assert report.verification.max_levels in (0, 1)  # compared before: the file itself has the wrong order
    right = expected_masks(exports / "right.xml")
    assert abs(masks(report) - right).max() <= 1
    assert abs(expected_masks(exports / "wrong.xml") - right).mean() > 10


def test_the_order_with_the_crisper_masks_is_taken(exports, tmp_path, monkeypatch):
    """Random weights are equally soft in both orders, so the values are made up; the runs are real."""
    values = iter([0.2, 0.1])
    seen = []

    def made_up(found):
        seen.append(found)
        return next(values)

    monkeypatch.setattr(tile_order, "softness", made_up)

    report = imported(exports, tmp_path, "wrong")

    assert tiles_of(report).startswith("image tiles: by columns, ")
    assert "rows 0.2000, columns 0.1000" in tiles_of(report)
    assert report.warnings == ()
    assert seen[0].shape == (2, SIZE.height, SIZE.width) and abs(seen[0] - seen[1]).mean() > 0.05


def test_if_both_are_equally_crisp_the_order_of_the_file_stays(exports, monkeypatch):
    monkeypatch.setattr(tile_order, "softness", lambda found: 0.2)
    monkeypatch.setattr(tiles, "_masks", lambda *arguments: np.zeros((2, 1, 1), np.float32))
    facts = NetworkFacts(output_activation=OutputActivation.LOGITS)
    model = core().read_model(str(exports / "wrong.xml"))
    shaped = shaping.shape(model, shaping.choose_output(model, None), None, SIZE)

    checked, warning = tiles.check(shaped, facts, Pictures(np.zeros((2, 1, 1, 3), np.uint8), "none"))

    assert not checked.is_wrong
    assert str(checked.decision).startswith("image tiles: by rows, as the file cuts them (undecided")
    assert "--tile-order" in warning


def test_an_order_for_a_network_without_tiles_is_refused(tmp_path):
    ops = ov.opset13
    image = ops.parameter([1, 3, 64, 64], ov.Type.f32)
    mean = ops.reduce_mean(image, np.array([1]), keep_dims=True)
    ov.save_model(ov.Model([ops.result(ops.sigmoid(mean))], [image], "plain"), str(tmp_path / "plain.xml"))

    with pytest.raises(BundleError, match="no four convolutions of image tiles"):
        imported(tmp_path, tmp_path / "out", "plain", tile_order=TileOrder.COLUMNS)
    assert not (tmp_path / "out" / "plain").exists()
