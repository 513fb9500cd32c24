"""`worker model verify` and `show` on real networks, each variant in a separate process."""

from __future__ import annotations

import json
import math

import click
import numpy as np
import pytest
from PIL import Image

from integration.cli.conftest import describe
from integration.model.tiny_network import SIZE, plain_grey
from worker.cli import cli
from worker.contract.errors import BundleNotFound, SourceError
from worker.contract.input_size import InputSize
from worker.contract.settings import ModelSettings
from worker.convert.evaluate.verify import check_files
from worker.images.resize import bilinear
from worker.model.format.variant import Variant
from worker.model.sources import bundles


def worker(*args: object) -> int:
    return cli.main(["model", *map(str, args)], standalone_mode=False)


def verify(capsys, *args: object) -> tuple[int, dict]:
    code = worker("verify", *args, "--arithmetic", "f32", "--json")
    got = json.loads(capsys.readouterr().out)
    return code, {**got, "variants": {v["label"].split()[-1]: v for v in got["variants"]}}


def expected_masks(bundle, images, precision: str) -> list[np.ndarray]:
    """Compute the masks of all pictures with a plain OpenVINO call."""
    xml = bundle / f"openvino_{precision}/tiny_{SIZE}x{SIZE}_{precision}.xml"
    variant = Variant("tiny", InputSize.square(SIZE), precision, xml, xml.with_suffix(".bin"), "")
    pictures = [bilinear(Image.open(path), (SIZE, SIZE)) for path in sorted(images.iterdir())]
    return [plain_grey(variant, np.asarray(picture)[np.newaxis]) for picture in pictures]


def test_agreement_with_fp32(bundle, images, capsys):
    code, got = verify(capsys, bundle, "--images", images, "--min-iou", 0.99)

    assert code == 1
    assert (got["passed"], got["files"], got["pictures"]) == (False, [], f"3 pictures from {images}")
    reference, half, other = (got["variants"][key] for key in ("fp32", "fp16", "int8"))
    assert (reference["agreement"], reference["failure"]) == (None, "")
    assert half["reference"] == "fp32 in f32"
    assert half["agreement"]["iou"] > 0.99
    assert 0 < half["agreement"]["max_abs"] < 0.02
    truth, wrong = (expected_masks(bundle, images, precision) for precision in ("fp32", "int8"))
    apart = np.mean([np.abs(a.astype(float) - b) / 255 for a, b in zip(truth, wrong, strict=True)])
    assert math.isclose(other["agreement"]["mae"], apart, abs_tol=0.002)
    assert other["failure"].startswith("IoU 0.")
    assert "is below 0.99" in other["failure"]
    for variant in (reference, half, other):
        facts = variant["run"]["facts"]
        assert (facts["inference_precision_requested"], facts["inference_precision"]) == ("f32", "f32")
        assert sum(facts["execution_types"].values()) > 0
        assert variant["run"]["seconds"] > 0
        assert 20 < variant["run"]["peak_mib"] < 2000


def test_quality_against_true_masks(bundle, images, tmp_path, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    for index, grey in enumerate(expected_masks(bundle, images, "fp32")[:2]):
        resized = np.asarray(bilinear(Image.fromarray(grey), (120, 80)))
        Image.fromarray(np.where(resized >= 128, 1, 0).astype(np.uint8)).save(masks / f"picture-{index}.png")

    code = worker("verify", bundle, "--images", images, "--masks", masks, "--precision", "fp32", "--arithmetic", "f32")

    out = capsys.readouterr().out
    assert code == 0
    assert "2 of 3 pictures have a true mask" in out
    (line,) = [line for line in out.splitlines() if "against 2 true masks:" in line]
    assert "IoU 1.0000, boundary IoU 1.0000" in line
    assert all(name in line for name in ("S 0.", "weighted F ", "E ", "MAE "))
    assert out.splitlines()[-1] == "passed"


def test_a_wrong_digest_fails_its_variant_only(bundle, images, capsys):
    weights = next((bundle / "openvino_int8").glob("*.bin"))
    weights.write_bytes(bytes(weights.stat().st_size))
    (bundle / "LICENSE").write_text("changed")

    code, got = verify(capsys, bundle, "--images", images, "--precision", "int8", "--precision", "fp16")

    assert code == 1
    assert f"{weights}: SHA-256 expected" in got["variants"]["int8"]["failure"]
    assert (got["variants"]["int8"]["digest"], got["variants"]["int8"]["run"]) == ("", None)
    assert got["variants"]["fp16"]["failure"] == ""
    (complaint,) = got["files"]
    assert "LICENSE: SHA-256 expected" in complaint


def test_a_missing_file_is_reported(bundle):
    (bundle / "LICENSE").unlink()

    complaints = check_files(bundles.survey(ModelSettings(source=str(bundle))))

    assert complaints == ["LICENSE is listed in the bundle manifest but missing; copy the bundle again"]


def test_without_fp32_no_agreement_is_reported(bundle, images, capsys):
    code, got = verify(capsys, bundle, "--images", images, "--precision", "int8", "--min-iou", 0.5)

    assert code == 1
    assert got["variants"]["int8"]["agreement"] is None
    assert "no FP32 or FP16 of this size to compare with" in got["variants"]["int8"]["notes"]
    assert "cannot be measured" in got["variants"]["int8"]["failure"]


def test_a_network_that_cannot_be_loaded_fails(bundle, images, capsys):
    next((bundle / "openvino_int8").glob("*.xml")).write_text("<net/>")
    describe(bundle)

    code, got = verify(capsys, bundle, "--images", images, "--precision", "int8")

    assert code == 1
    assert got["variants"]["int8"]["failure"]


def test_the_built_in_bundle_passes_on_the_built_in_pictures(capsys):
    assert worker("verify", "builtin:contrast") == 0

    out = capsys.readouterr().out
    assert "8 photographs included in scikit-image" in out
    assert "reference for the other variants" in out or "against fp32 in f32" in out


def test_invalid_requests_are_refused(bundle, images, tmp_path):
    with pytest.raises(click.UsageError, match="--masks needs --images"):
        worker("verify", bundle, "--masks", tmp_path)
    with pytest.raises(BundleNotFound, match="no such variant; it holds: tiny 64 fp32"):
        worker("verify", bundle, "--size", 96)
    (images / "notes.txt").write_text("no picture")
    with pytest.raises(SourceError, match=r"notes\.txt: .*remove it from the folder"):
        worker("verify", bundle, "--images", images, "--precision", "fp32")


def test_show_prints_origin_licence_agreement_and_preprocessing(bundle, capsys):
    describe(bundle, agreement={"tiny_64x64_int8": {"iou": 0.991}}, source={"repository": "someone/net"})

    assert worker("show", bundle) == 0

    out = capsys.readouterr().out
    for part in ("license: MIT", "repository: someone/net", "iou: 0.991", "mean_values: 100.0 110.0 120.0"):
        assert part in out
    assert out.count("model_info of tiny 64") == 3


def test_show_does_not_open_a_network_with_a_wrong_digest(bundle, capsys):
    next((bundle / "openvino_int8").glob("*.xml")).write_text("<net/>")

    assert worker("show", bundle, "--json") == 0
    assert list(json.loads(capsys.readouterr().out)["model_info"]) == ["tiny 64 fp32", "tiny 64 fp16"]
