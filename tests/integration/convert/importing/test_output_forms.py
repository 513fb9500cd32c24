"""Every form of output becomes the same mask, and never gets a second sigmoid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support import onnx_networks as toys
from support.photographs import photograph
from worker.contract.errors import BundleError, SettingsError
from worker.contract.input_size import InputSize
from worker.convert.importing import ImportReport, ImportRequest, LicenceFacts, import_network, output_kind
from worker.convert.importing.output_kind import OutputKind
from worker.model.format.variant import Variant
from worker.model.inference.engine import Engine
from worker.model.inference.facts import OutputActivation

SIZE = toys.SIZE
FREE = LicenceFacts("Apache-2.0", "", "yes")


def picture(name: str = "coffee.png", width: int = SIZE, height: int = SIZE) -> np.ndarray:
    return np.array(photograph(name).resize((width, height)))


def imported(model, tmp_path: Path, **options) -> ImportReport:
    path = toys.save(model, tmp_path / "toy.onnx")
    known = {"mean": toys.MEAN, "scale": toys.STD, "licence": FREE, "measure_memory": False}
    return import_network(ImportRequest(path, tmp_path / "bundle", **(known | options)))


def grey(report: ImportReport, shown: np.ndarray) -> np.ndarray:
    """Grey levels of the bundle, from the engine in f32."""
    (xml,) = report.output.rglob("*.xml")
    (precision,) = report.precisions
    variant = Variant(report.name, report.size, precision, xml, xml.with_suffix(".bin"), "0" * 64)
    with Engine.load(variant, streams=1, threads=1, inference_precision="f32") as engine:
        assert not engine.describe()["notes"]
        return engine.infer(shown[np.newaxis])


def assert_same(mask: np.ndarray, probabilities: np.ndarray, levels: int = 1) -> None:
    expected = np.rint(255 * probabilities)
    assert np.abs(mask.astype(int) - expected).max() <= levels


def decision(report: ImportReport, what: str) -> str:
    return next(str(one) for one in report.decisions if one.what == what)


def test_the_core_makes_masks_of_all_grey_levels():
    mask = toys.meaning("sigmoid", toys.logits(picture()))

    assert mask.min() < 0.01 and mask.max() > 0.99


@pytest.mark.parametrize("form", toys.FORMS)
def test_a_form_becomes_the_mask_that_it_means(form, tmp_path):
    report = imported(toys.of_form(form), tmp_path)

    assert_same(grey(report, picture()), toys.meaning(form, toys.logits(picture())))
    is_logits = form in ("logits", "two logits")
    assert decision(report, "activation").startswith(f"activation: {'logits' if is_logits else 'probability'} (")
    assert report.verification.max_levels in (0, 1)


def test_what_was_decided_and_why_is_kept_in_the_bundle(tmp_path):
    report = imported(toys.of_form("sigmoid, NHWC"), tmp_path)

    (xml,) = report.output.rglob("*.xml")
    stated = xml.read_text("utf-8")
    for key, value in {
        "output_activation": "probability",
        "input_scaling": "fixed",
        "output_stretch": "none",
        "reverse_input_channels": "NO",
        "family": "unknown",
    }.items():
        assert f'<{key} value="{value}"' in stated
    assert "Sigmoid" in decision(report, "activation") and "on 2 photographs" in decision(report, "activation")
    assert decision(report, "activation")[len("activation: probability (") : -1] in stated.replace("&gt;", ">")


def test_the_first_of_several_outputs_is_kept_and_the_rest_pruned(tmp_path):
    nodes = [*toys.core(), toys.node("Sigmoid", "logits", "mask"), toys.node("Sigmoid", "active", "side")]
    outputs = {"mask": [1, 1, "h", "w"], "side": [1, 8, "h", "w"]}

    report = imported(toys.network(nodes, outputs), tmp_path)

    assert_same(grey(report, picture()), toys.meaning("sigmoid", toys.logits(picture())))
    assert "mask (the first of 2)" in decision(report, "output")


def test_another_output_can_be_chosen_and_its_name_is_checked(tmp_path):
    nodes = [*toys.core(), toys.node("Sigmoid", "active", "side"), toys.node("Sigmoid", "logits", "mask")]
    model = toys.network(nodes, {"side": [1, 8, "h", "w"], "mask": [1, 1, "h", "w"]})

    with pytest.raises(BundleError, match=r"returns \[1, 8, 64, 64\], expected a mask.*--output-name"):
        imported(model, tmp_path)
    with pytest.raises(SettingsError, match="there is no such output; the network has side, mask"):
        imported(model, tmp_path, output_name="face")
    report = imported(model, tmp_path, output_name="mask")

    assert_same(grey(report, picture()), toys.meaning("sigmoid", toys.logits(picture())))


def test_a_half_size_output_is_enlarged_in_the_graph(tmp_path):
    nodes = [*toys.core(stride=2), toys.node("Sigmoid", "logits", "out")]

    report = imported(toys.network(nodes, {"out": [1, 1, 32, 32]}), tmp_path)

    assert "enlarged from 32x32 to 64x64" in decision(report, "output")
    assert grey(report, picture()).shape == (SIZE, SIZE)
    assert report.verification.max_levels in (0, 1)  # against ONNX Runtime and a resize in NumPy


def test_a_sigmoid_before_a_resize_is_found(tmp_path):
    nodes = [
        *toys.core(stride=2),
        toys.node("Sigmoid", "logits", "p"),
        toys.node("Resize", "p  double", "out", mode="linear", coordinate_transformation_mode="half_pixel"),
    ]
    nodes[-1].input[:] = ["p", "", "double"]

    report = imported(toys.network(nodes, {"out": [1, 1, "h", "w"]}), tmp_path)

    assert decision(report, "activation").startswith("activation: probability (Sigmoid")


def test_a_network_that_takes_its_channels_last(tmp_path):
    nodes = [
        toys.node("Transpose", "image", "first", perm=[0, 3, 1, 2]),
        *toys.core("first"),
        toys.node("Sigmoid", "logits", "out"),
    ]

    report = imported(toys.network(nodes, {"out": [1, 1, "h", "w"]}, image=(1, SIZE, SIZE, 3)), tmp_path)

    assert_same(grey(report, picture()), toys.meaning("sigmoid", toys.logits(picture())))


def test_an_open_shape_is_fixed_to_the_size_asked_for(tmp_path):
    model = toys.of_form("sigmoid", image=("batch", 3, "height", "width"))

    with pytest.raises(SettingsError, match="takes pictures of any size; say which one: --size"):
        imported(model, tmp_path)
    report = imported(model, tmp_path, size=InputSize.square(96))

    shown = picture(width=96, height=96)
    assert report.size == InputSize(96, 96)
    assert_same(grey(report, shown), toys.meaning("sigmoid", toys.logits(shown)))


@pytest.mark.parametrize("image", [("batch", 3, "height", "width"), (1, 3, 64, 128)], ids=["open", "fixed"])
def test_a_size_that_is_not_a_square(image, tmp_path):
    report = imported(
        toys.of_form("sigmoid", image=image), tmp_path, size=InputSize(64, 128), measure_memory=image[0] == 1
    )

    shown = picture(width=128, height=64)
    assert [path.name for path in report.output.rglob("*.xml")] == ["toy_64x128_fp32.xml"]
    assert_same(grey(report, shown), toys.meaning("sigmoid", toys.logits(shown)))


def test_a_size_that_the_file_fixes_cannot_be_changed(tmp_path):
    with pytest.raises(SettingsError, match="--size 96x96: the file fixes 64x64"):
        imported(toys.of_form("sigmoid"), tmp_path, size=InputSize.square(96))
    with pytest.raises(SettingsError, match="both sides must be multiples of 32"):
        imported(toys.of_form("sigmoid"), tmp_path, size=InputSize.square(65))


def test_a_file_in_16_bits_ends_in_a_cast_and_stays_small(tmp_path):
    nodes = [
        toys.node("Cast", "image", "half_image", to=toys.TensorProto.FLOAT16),
        *toys.core("half_image"),
        toys.node("Sigmoid", "logits", "p"),
        toys.node("Cast", "p", "out", to=toys.TensorProto.FLOAT),
    ]

    report = imported(toys.network(nodes, {"out": [1, 1, "h", "w"]}, half=True), tmp_path)

    assert report.precisions == ("fp16",)
    assert_same(grey(report, picture()), toys.meaning("sigmoid", toys.logits(picture())), levels=2)  # rounded weights
    assert decision(report, "activation").startswith("activation: probability (Sigmoid")


def test_a_sigmoid_can_be_demanded_for_logits_but_never_twice(tmp_path):
    with pytest.raises(SettingsError, match=r"Sigmoid .* limits the output to 0\.\.1, and a second sigmoid would turn"):
        imported(toys.of_form("sigmoid, clip"), tmp_path, activation="sigmoid")
    report = imported(toys.of_form("logits"), tmp_path, activation="sigmoid")

    assert_same(grey(report, picture()), toys.meaning("logits", toys.logits(picture())))


def test_probabilities_that_nothing_limits_are_told_from_their_values(tmp_path):
    nodes = [
        *toys.core(),
        toys.node("Sigmoid", "logits", "p"),
        toys.node("Conv", "p same", "out"),  # a convolution behind the sigmoid: the graph knows no limits
    ]
    same = {"same": np.ones((1, 1, 1, 1))}

    report = imported(toys.network(nodes, {"out": [1, 1, "h", "w"]}, weights=same), tmp_path)

    assert "nothing limits the output, but its values are" in decision(report, "activation")
    assert_same(grey(report, picture()), toys.meaning("sigmoid", toys.logits(picture())))


def test_a_second_sigmoid_is_caught_by_the_verification(tmp_path, monkeypatch):
    """Should the decision ever be wrong, the values that ONNX Runtime returns give it away."""
    wrong = OutputKind(OutputActivation.LOGITS, "a wrong decision")
    monkeypatch.setattr(output_kind, "decide", lambda *_: wrong)

    with pytest.raises(BundleError, match=r"returns probabilities .* a sigmoid on top would turn every mask grey"):
        imported(toys.of_form("sigmoid"), tmp_path)

    assert not (tmp_path / "bundle").exists()
