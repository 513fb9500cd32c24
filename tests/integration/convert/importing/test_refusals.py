"""Files that cannot be imported get an error that names the cause and the remedy, and nothing is written."""

from __future__ import annotations

import json
import logging

import numpy as np
import onnx
import pytest

from integration.convert.importing.test_output_forms import FREE, imported
from support import onnx_networks as toys
from worker.contract.errors import BundleError, BundleNotFound, SettingsError
from worker.convert.importing import Family, ImportRequest, import_network, reading, verification


def source(path, tmp_path, **options):
    known = {"mean": toys.MEAN, "scale": toys.STD, "licence": FREE, "measure_memory": False}
    return import_network(ImportRequest(path, tmp_path / "bundle", **(known | options)))


def test_an_operation_that_openvino_lacks(tmp_path):
    nodes = [toys.node("DeformConv", "image w3 offsets", "out", pads=[1, 1, 1, 1])]
    weights = {"w3": np.ones((1, 3, 3, 3)), "offsets": np.zeros((1, 18, 64, 64))}
    with pytest.raises(BundleError, match=r"DeformConv.* BiRefNet is built from its checkpoint instead: `worker model"):
        imported(toys.network(nodes, {"out": [1, 1, "h", "w"]}, weights=weights, opset=19), tmp_path)

    own = toys.network([onnx.helper.make_node("Cut", ["image"], ["out"], domain="my.ops")], {"out": [1, 1, "h", "w"]})
    with pytest.raises(
        BundleError, match=r"uses my\.ops\.Cut, which OpenVINO does not have .*export the network again"
    ):
        imported(own, tmp_path)

    assert not (tmp_path / "bundle").exists()


def test_a_transposed_convolution_of_tensorflow_lite(tmp_path):
    """The text is OpenVINO's for the published selfie networks."""
    text = "Model wasn't fully converted.\n-- No translator found for Convolution2DTransposeBias\n"

    said = reading._explain(tmp_path / "selfie.tflite", text, None)

    assert "uses Convolution2DTransposeBias, which OpenVINO does not read from TensorFlow Lite; export it to" in said


def test_an_opset_that_nothing_can_check(tmp_path):
    with pytest.raises(BundleError, match=r"uses opset 29, and 28 is the newest .*opset_version=17"):
        imported(toys.network([*toys.core()], {"logits": [1, 1, "h", "w"]}, opset=29), tmp_path)


def test_weights_in_a_file_that_was_left_behind(tmp_path):
    path = tmp_path / "big.onnx"
    onnx.save(toys.of_form("sigmoid"), path, save_as_external_data=True, location="big.onnx_data", size_threshold=0)
    assert source(path, tmp_path).verification.max_levels in (0, 1)  # complete

    (tmp_path / "big.onnx_data").unlink()

    with pytest.raises(BundleError, match=r"keeps its weights in big\.onnx_data, which is not beside it; copy that"):
        source(path, tmp_path)


def test_weights_outside_the_folder_are_not_read(tmp_path):
    model = toys.of_form("sigmoid")
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location="../secret")
    path = tmp_path / "in" / "odd.onnx"
    path.parent.mkdir()
    path.write_bytes(model.SerializeToString())

    with pytest.raises(BundleError, match=r"keeps weights in \.\./secret, outside its folder; refusing"):
        source(path, tmp_path)


def test_weights_that_are_not_numbers(tmp_path):
    weights = {"w2": np.full((1, 8, 1, 1), np.nan)}
    with pytest.raises(BundleError, match="holds NaN, so the training or the export went wrong"):
        imported(toys.network(toys.core(), {"logits": [1, 1, "h", "w"]}, weights=weights), tmp_path)


def test_weights_too_large_for_16_bits(tmp_path):
    weights = {"w2": np.full((1, 8, 1, 1), 1e5)}
    model = toys.network(toys.core(), {"logits": [1, 1, "h", "w"]}, weights=weights)
    with pytest.raises(BundleError, match="exceeds the largest 16-bit float; import it with --precision fp32"):
        imported(model, tmp_path, precisions=("fp16",), activation="sigmoid")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; download it again"),
        (b"hello", "is not an ONNX file, or it is cut short; download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "is a pointer of Git LFS"),
    ],
)
def test_a_file_that_is_not_a_network(content, said, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=said):
        source(path, tmp_path)


def test_a_file_cut_short(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(toys.of_form("sigmoid").SerializeToString()[:-200])
    with pytest.raises(BundleError, match="is not an ONNX file, or it is cut short"):
        source(path, tmp_path)


def test_places_that_hold_no_network_or_several(tmp_path):
    with pytest.raises(BundleNotFound, match="no file or folder"):
        source(tmp_path / "nothing", tmp_path)
    with pytest.raises(BundleNotFound, match=r"holds no \.onnx"):
        source(tmp_path, tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"x")
    with pytest.raises(BundleError, match="weights without a graph; build BiRefNet from it with `worker model convert"):
        source(tmp_path / "weights.safetensors", tmp_path)
    folder = tmp_path / "two"
    folder.mkdir()
    toys.save(toys.of_form("sigmoid"), folder / "a.onnx")
    assert source(folder, tmp_path).name == "a"
    toys.save(toys.of_form("sigmoid"), folder / "b.onnx")
    with pytest.raises(BundleNotFound, match=r"holds 2 networks: a\.onnx, b\.onnx; give the path of one"):
        source(folder, tmp_path)


def test_networks_of_another_kind(tmp_path):
    classes = toys.network([toys.node("Conv", "image w3", "out", pads=[1, 1, 1, 1])], {"out": [1, 5, "h", "w"]},
                           weights={"w3": np.ones((5, 3, 3, 3))})  # fmt: skip
    with pytest.raises(BundleError, match=r"returns \[1, 5, 64, 64\], expected a mask"):
        imported(classes, tmp_path)
    numbers = toys.network([*toys.core(), toys.node("ArgMax", "logits", "out", axis=1)], {"out": [1, 1, "h", "w"]})
    numbers.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    with pytest.raises(BundleError, match=r"returns i(nt)?64(_t)?, such as the number of a class"):
        imported(numbers, tmp_path)
    grey = toys.network([toys.node("Sigmoid", "image", "out")], {"out": [1, 1, "h", "w"]}, image=(1, 1, 64, 64))
    with pytest.raises(BundleError, match="expected pictures of 3 channels"):
        imported(grey, tmp_path)
    levels = toys.network(
        [*toys.core(), toys.node("Sigmoid", "logits", "p"), toys.node("Mul", "p full", "out")],
        {"out": [1, 1, "h", "w"]},
        weights={"full": np.float64(255)},
    )
    with pytest.raises(BundleError, match=r"never negative and leave 0\.\.1, so they are neither logits nor"):
        imported(levels, tmp_path)


def test_values_that_say_too_little(tmp_path):
    faint = toys.network([*toys.core(), toys.node("Mul", "logits thin", "out")], {"out": [1, 1, "h", "w"]},
                         weights={"thin": np.float64(0.001)})  # fmt: skip
    with pytest.raises(SettingsError, match="tell too little about the output; say what they are: --activation none"):
        imported(faint, tmp_path)


def test_a_network_that_does_not_tell_how_it_is_fed(tmp_path):
    with pytest.raises(SettingsError, match=r"--family u2net\|isnet\|birefnet\|modnet\), or give --mean and --std"):
        imported(toys.of_form("sigmoid"), tmp_path, mean=None, scale=None)
    with pytest.raises(SettingsError, match="give both --mean and --std"):
        imported(toys.of_form("sigmoid"), tmp_path, scale=None)
    report = imported(toys.of_form("sigmoid"), tmp_path, mean=None, scale=None, family=Family.U2NET)
    facts = json.loads((report.output / "manifest.json").read_text())["decisions"]
    assert facts["input scaling"].startswith("picture_maximum") and "min_max" in facts["stretch of the mask"]


def test_masks_that_differ_from_onnx_runtime_are_refused(tmp_path, monkeypatch):
    real = verification.bundle_masks
    monkeypatch.setattr(verification, "bundle_masks", lambda *given: [mask // 2 for mask in real(*given)])

    with pytest.raises(BundleError, match=r"differ by \d+ of 255 grey levels from those of ONNX Runtime.*Nothing was"):
        imported(toys.of_form("sigmoid"), tmp_path)

    assert not (tmp_path / "bundle").exists()


def test_without_onnx_runtime_the_bundle_says_that_it_is_not_verified(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)

    report = imported(toys.of_form("sigmoid"), tmp_path)

    said = "not verified: ONNX Runtime is not installed: pip install 'maskmill[import]'"
    assert str(report.verification) == said and said in report.warnings
    assert json.loads((report.output / "manifest.json").read_text())["verification"]["summary"] == said


def test_the_converter_leaves_the_logs_alone(tmp_path):
    root = logging.getLogger()
    before = root.level, list(root.handlers), list(root.filters)

    imported(toys.of_form("sigmoid"), tmp_path)

    assert (root.level, list(root.handlers), list(root.filters)) == before
