"""Reading a checkpoint: prefixes, strictness, types, damage, and the error if a reader is not installed."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest

from support.birefnet_weights import LITE, SWIN_L, published_shapes
from worker.contract.errors import BundleError, BundleNotFound, SetupError
from worker.convert.birefnet import checkpoint, layout

NAME = "decoder.conv_out1.0.bias"


@pytest.fixture
def state():
    return {name: np.zeros(shape, np.float32) for name, shape in published_shapes().items()}


def write_safetensors(path, arrays, kinds=None):
    """Write the format without a package: length of the header in 8 bytes, header in JSON, data."""
    header, blobs, start = {}, [], 0
    for name, values in arrays.items():
        blob = values.tobytes()
        kind = (kinds or {}).get(name, {"float32": "F32", "float16": "F16", "int64": "I64"}.get(str(values.dtype)))
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [start, start + len(blob)]}
        blobs.append(blob)
        start += len(blob)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def test_only_arrays_of_the_network_are_kept_as_float32(state):
    state[NAME] = np.array([1.5], np.float16)
    loaded = checkpoint.validate(state, "x")

    assert loaded.keys() == layout.required().keys()
    assert all(values.dtype == np.float32 for values in loaded.values())
    assert loaded[NAME] == 1.5


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.module."])
def test_prefixes_of_training_are_stripped(state, prefix):
    prefixed = {prefix + name: values for name, values in state.items()}

    assert checkpoint.validate(prefixed, "x").keys() == layout.required().keys()


def test_arrays_used_only_in_training_may_be_absent(state):
    for name in layout.optional():
        del state[name]

    assert checkpoint.validate(state, "x").keys() == layout.required().keys()


def test_missing_names_are_listed(state):
    del state[NAME], state["bb.norm0.weight"]

    with pytest.raises(BundleError, match=r"2 missing: bb\.norm0\.weight, decoder\.conv_out1\.0\.bias"):
        checkpoint.validate(state, "x")


def test_unknown_names_are_listed(state):
    state["head.weight"] = np.zeros(3, np.float32)

    with pytest.raises(BundleError, match=r"1 unknown: head\.weight"):
        checkpoint.validate(state, "x")


def test_wrong_shapes_are_listed(state):
    state[NAME] = np.zeros(2, np.float32)

    with pytest.raises(BundleError, match=r"conv_out1\.0\.bias \(2,\) instead of \(1,\)"):
        checkpoint.validate(state, "x")


def test_a_long_list_is_cut_with_its_count():
    with pytest.raises(BundleError, match=r"\d{3} missing: .* and \d{3} more"):
        checkpoint.validate({}, "x")


def test_values_that_are_not_finite_are_refused(state):
    state[NAME] = np.array([np.nan], np.float32)

    with pytest.raises(BundleError, match=r"not finite: decoder\.conv_out1\.0\.bias"):
        checkpoint.validate(state, "x")


def test_a_name_given_twice_is_refused(state):
    state["module." + NAME] = state[NAME]

    with pytest.raises(BundleError, match="more than once"):
        checkpoint.validate(state, "x")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BundleNotFound, match=r"none\.safetensors"):
        checkpoint.load(tmp_path / "none.safetensors")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"x")

    with pytest.raises(BundleError, match=r"model\.safetensors"):
        checkpoint.load(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("library", "file", "remedy"),
    [("safetensors", "a.safetensors", r"maskmill\[convert\]"), ("torch", "a.pth", "pip install torch")],
)
def test_a_reader_that_is_not_installed_is_named(monkeypatch, tmp_path, library, file, remedy):
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / file).write_bytes(b"x")

    with pytest.raises(SetupError, match=remedy):
        checkpoint.load(tmp_path / file)


def test_a_safetensors_file_loads_with_any_float_type(tmp_path, state):
    pytest.importorskip("safetensors")
    halves = "decoder.conv_out1.0.weight"
    state[NAME] = np.array([0.5], np.float16)
    state[halves] = (np.full((1, 120, 1, 1), -2.5, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, state, {halves: "BF16"})
    loaded = checkpoint.load(path)

    assert loaded[NAME] == 0.5
    assert (loaded[halves] == -2.5).all()


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_truncated_safetensors_file_is_refused(tmp_path, keep):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {NAME: np.zeros(100, np.float32)})
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(BundleError, match="truncated or not a safetensors file"):
        checkpoint.load(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)})

    with pytest.raises(BundleError, match=r"1 unknown: conv1\.weight"):
        checkpoint.load(path)


class FakeTensor:
    """The part of a tensor's interface that the loader uses."""

    def __init__(self, values):
        self.values = values

    def is_floating_point(self):
        return self.values.dtype.kind == "f"

    def float(self):
        return FakeTensor(self.values.astype(np.float32))

    def numpy(self):
        return self.values


def fake_torch(answer):
    def load(path, *, map_location, weights_only):
        assert map_location == "cpu"
        assert weights_only is True
        if isinstance(answer, Exception):
            raise answer
        return answer

    return types.SimpleNamespace(load=load, Tensor=FakeTensor)


def test_a_pickled_release_is_read_through_torch_without_unpickling_code(monkeypatch, tmp_path, state):
    tensors = {f"module.{name}": FakeTensor(values) for name, values in state.items()}
    monkeypatch.setitem(sys.modules, "torch", fake_torch(tensors))
    (tmp_path / "a.pth").write_bytes(b"x")

    assert checkpoint.load(tmp_path / "a.pth").keys() == layout.required().keys()


@pytest.mark.parametrize("answer", [RuntimeError("bad magic"), EOFError(), {"epoch": 3}, [1]])
def test_a_damaged_or_foreign_pickle_is_refused(monkeypatch, tmp_path, answer):
    monkeypatch.setitem(sys.modules, "torch", fake_torch(answer))
    (tmp_path / "a.pth").write_bytes(b"x")

    with pytest.raises(BundleError, match=r"a\.pth"):
        checkpoint.load(tmp_path / "a.pth")


@pytest.mark.parametrize(("table", "backbone"), [(LITE, layout.SWIN_T), (SWIN_L, layout.SWIN_L)])
def test_the_backbone_is_told_from_the_header(tmp_path, table, backbone):
    path = tmp_path / "model.safetensors"
    header = {
        f"module.{name}": {"dtype": "F16", "shape": list(shape), "data_offsets": [0, 0]}
        for name, shape in published_shapes(table).items()
    } | {"__metadata__": {"format": "pt"}}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)

    assert checkpoint.backbone_in(path) is backbone


@pytest.mark.parametrize("content", [b"", b"arrays", b"\xff" * 20, (2).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_no_checkpoint_has_no_backbone(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    assert checkpoint.backbone_in(path) is None
    assert checkpoint.backbone_in(tmp_path / "absent") is None


def test_swin_l_is_validated_against_its_own_table():
    state = {name: np.zeros(shape, np.float16) for name, shape in published_shapes(SWIN_L).items()}

    assert checkpoint.validate(state, "x").keys() == layout.required(layout.SWIN_L).keys()
    del state["bb.layers.2.blocks.17.norm1.weight"]
    with pytest.raises(BundleError, match=r"BiRefNet with Swin-L: 1 missing: bb\.layers\.2\.blocks\.17"):
        checkpoint.validate(state, "x")
