"""`worker.convert.variants`: the order of builds, refusals, and the bundle manifest."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from worker.contract.errors import BundleError, BundleNotFound, SettingsError, SetupError, SourceError
from worker.contract.input_size import InputSize
from worker.contract.settings import Settings
from worker.convert import request, variants
from worker.convert.birefnet.rewrites import Rewrite
from worker.convert.birefnet.tile_order import TileOrder
from worker.convert.request import ConversionProgress, ConversionRequest
from worker.model.format.layout import read_listing
from worker.model.format.manifest import PeakMemory, read_bundle_manifest

GOOD = {"mae": 0.0001, "iou": 0.999, "max_abs": 0.01, "pictures": 2}
BAD = {"mae": 0.5, "iou": 0.1, "max_abs": 1.0, "pictures": 2}


class Builder:
    """Replacement for the build process; it writes two small files."""

    def __init__(self) -> None:
        self.tasks: list[Mapping[str, Any]] = []
        self.trials: list[tuple[tuple[int, ...], str]] = []
        self.agreements: dict[str, dict[str, float]] = {}
        self.error: BaseException | None = None
        self.pictures: list[tuple[int, ...]] = []

    def __call__(
        self, task: Mapping[str, Any], label: str, on_progress: Any, module: str | None = None
    ) -> dict[str, Any]:
        if module:
            self.trials.append((np.load(task["pictures"]).shape, task["size"]))
            on_progress("run with rows", 1, 2)
            return {"order": "columns", "reason": "crisper masks", "softness": {"rows": 0.2, "columns": 0.1}}
        self.tasks.append(task)
        if self.error and task["precision"] != "fp32":
            raise self.error
        xml = Path(task["xml"])
        xml.write_text(label)
        xml.with_suffix(".bin").write_bytes(b"weights")
        self.pictures.append(np.load(task["pictures"]).shape)
        on_progress("quantise", 1, 2)
        agreement = None if task["precision"] == "fp32" else self.agreements.get(task["precision"], GOOD)
        return {"build_seconds": 1.0, "compare_seconds": 2.0, "peak_memory_mib": 700, "agreement": agreement}

    @property
    def built(self) -> list[tuple[int, str]]:
        return [(task["size"], task["precision"]) for task in self.tasks]


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    builder = Builder()
    monkeypatch.setattr(variants, "build_in_process", builder)
    return builder


@pytest.fixture
def ask(tmp_path: Path):
    """Return a function that makes a valid request, with changes."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(2):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (index, 0, 0)).save(buffer, "PNG")
        (photos / f"{index}.png").write_bytes(buffer.getvalue())
    checkpoint = tmp_path / "model.safetensors"
    checkpoint.write_bytes(b"arrays")

    def make(**changes: Any) -> ConversionRequest:
        usual = {
            "checkpoint": str(checkpoint),
            "output": tmp_path / "bundle",
            "sizes": (InputSize.square(64),),
            "precisions": ("fp32", "int8"),
            "calibration_source": str(photos),
            "tile_order": TileOrder.ROWS,
        }
        return ConversionRequest(**{**usual, **changes})

    return make


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_size_and_precision_is_written_under_its_published_name(builder, ask):
    report = variants.convert(
        ask(sizes=(InputSize.square(64), InputSize.square(32)), precisions=("int8", "fp32", "int8wo", "fp16")),
        Settings(),
    )

    names = {c.xml for c in read_listing(tree(report.output)).candidates}
    assert names == {
        f"openvino_{precision}/birefnet_lite_{size}x{size}_{precision}.xml"
        for size in (32, 64)
        for precision in ("fp32", "fp16", "int8wo", "int8")
    }
    assert set(tree(report.output)) - names - {n.replace(".xml", ".bin") for n in names} == {"LICENSE", "manifest.json"}


def test_the_reference_is_built_first_and_kept_only_if_requested(builder, ask):
    report = variants.convert(ask(precisions=("int8",)), Settings())

    assert builder.built == [("64x64", "fp32"), ("64x64", "int8")]
    assert [one.precision for one in report.variants] == ["int8"]
    assert not (report.output / "openvino_fp32").exists()


def test_every_process_gets_the_pictures_at_its_size(builder, ask):
    variants.convert(ask(sizes=(InputSize.square(64), InputSize.square(32)), precisions=("int8",)), Settings())

    assert builder.pictures == [(2, 64, 64, 3)] * 2 + [(2, 32, 32, 3)] * 2


def test_without_a_variant_to_compare_no_pictures_are_needed(builder, ask):
    report = variants.convert(ask(precisions=("fp32",), calibration_source=None), Settings())

    manifest = json.loads((report.output / "manifest.json").read_text())
    assert manifest["calibration"] is None
    assert builder.tasks[0]["compared"] == 0


@pytest.mark.parametrize(
    ("precisions", "compared", "is_warned"),
    [(("fp32", "int8"), 1, False), (("fp32", "fp16"), 2, False), (("fp32", "int8"), 1, True)],
)
def test_int8_is_compared_on_pictures_that_it_was_not_calibrated_on(builder, ask, precisions, compared, is_warned):
    report = variants.convert(ask(precisions=precisions, calibration_images=1 if is_warned else 32), Settings())

    assert {task["compared"] for task in builder.tasks} == {compared}
    manifest = json.loads((report.output / "manifest.json").read_text())
    assert manifest["calibration"]["compared"] == compared
    said = [one for one in report.warnings if "calibrated on the only picture" in one]
    assert bool(said) == is_warned


def test_the_manifest_records_every_origin(builder, ask):
    report = variants.convert(ask(without=frozenset({Rewrite.OFFSETS})), Settings())

    manifest = json.loads((report.output / "manifest.json").read_text())
    assert manifest["license"] == "MIT"
    assert manifest["source"]["checkpoint"] == "model.safetensors"
    assert manifest["source"]["sha256"] == hashlib.sha256(b"arrays").hexdigest()
    assert "offsets" not in manifest["source"]["rewrites"]
    assert "batch-norm" in manifest["source"]["rewrites"]
    assert manifest["tools"].keys() == {"python", "maskmill", "openvino", "numpy", "pillow", "nncf"}
    assert manifest["calibration"]["source"] == "photos"
    assert manifest["calibration"]["images"] == 2
    assert len(manifest["calibration"]["sha256"]) == 64
    assert manifest["quantisation"] == {
        "float_offsets": False,
        "smooth": False,
        "overflow": "everywhere",
        "bias_correction": True,
    }
    int8 = manifest["variants"]["openvino_int8/birefnet_lite_64x64_int8.xml"]
    assert int8["agreement"] == GOOD
    assert int8["peak_memory_mib"] == 700
    assert manifest["files"].keys() == {
        "LICENSE",
        *(f"openvino_{p}/birefnet_lite_64x64_{p}.{s}" for p in ("fp32", "int8") for s in ("xml", "bin")),
    }
    assert read_bundle_manifest(report.output / "manifest.json").name == "birefnet_lite"


def test_the_licence_note_says_what_the_licence_requires(builder, ask):
    report = variants.convert(ask(), Settings())

    text = (report.output / "LICENSE").read_text()
    assert "MIT licence" in text and "LICENSE of the repository" in text


def test_steps_are_counted_to_the_end(builder, ask):
    reports: list[ConversionProgress] = []

    variants.convert(ask(sizes=(InputSize.square(64), InputSize.square(32))), Settings(), reports.append)

    assert [report.step for report in reports] == sorted(report.step for report in reports)
    assert (reports[0].step, reports[-1].step, reports[-1].steps) == (0, 5, 6)
    assert ConversionProgress(2, 6, "64 fp32: quantise", 1, 2) in reports


def test_variants_out_of_bounds_are_refused_after_all_are_measured(builder, ask):
    builder.agreements = {"int8wo": BAD, "int8": BAD}

    with pytest.raises(BundleError, match=r"64 int8: MAE 0\.5.*64 int8wo: MAE 0\.5.*--force"):
        variants.convert(ask(precisions=("int8wo", "int8")), Settings())

    assert not ask().output.exists()


def test_force_keeps_the_variant_and_warns(builder, ask):
    builder.agreements = {"int8": BAD}

    report = variants.convert(ask(force=True), Settings())

    assert any("64 int8 differs too much from FP32, kept by --force: MAE" in warning for warning in report.warnings)
    manifest = json.loads((report.output / "manifest.json").read_text())
    assert "MAE" in manifest["variants"]["openvino_int8/birefnet_lite_64x64_int8.xml"]["kept_by_force"]


def test_files_skipped_in_the_calibration_cause_a_warning(builder, ask, tmp_path):
    (tmp_path / "photos" / "2.png").write_bytes(b"no picture")

    report = variants.convert(ask(), Settings())

    assert len(report.warnings) == 1
    assert "2.png" in report.warnings[0]


@pytest.mark.parametrize("error", [BundleError("refused"), KeyboardInterrupt(), OSError("No space left on device")])
@pytest.mark.parametrize("there", [True, False], ids=["replacing", "new"])
def test_a_failure_half_way_leaves_the_previous_content(builder, ask, tmp_path, error, there):
    if there:
        variants.convert(ask(), Settings())
    before = tree(tmp_path)
    builder.error = error

    with pytest.raises(BundleError if isinstance(error, OSError) else type(error)):
        variants.convert(ask(), Settings())

    assert tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["model.safetensors", "photos", *(["bundle"] if there else [])]
    )


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sizes": (InputSize(96, 100),)}, SettingsError, "size 96x100: height and width must be multiples of 32"),
        ({"sizes": (InputSize.square(64), InputSize.square(0))}, SettingsError, "size 0: height and width must be"),
        ({"sizes": ()}, SettingsError, "size missing"),
        ({"precisions": ("int4",)}, BundleError, "no such precision: int4; known: fp32"),
        ({"precisions": ()}, BundleError, "no model"),
        ({"calibration_images": 0}, SettingsError, "0 calibration images"),
        ({"checkpoint": "nowhere.safetensors"}, BundleNotFound, "no checkpoint at nowhere.safetensors"),
        ({"checkpoint": "hf://one-word"}, BundleNotFound, "is not a repository"),
        ({"calibration_source": "nowhere"}, BundleNotFound, "no calibration folder nowhere"),
        ({"calibration_source": "nowhere", "precisions": ("fp32",)}, BundleNotFound, "no calibration folder nowhere"),
    ],
)
def test_an_invalid_request_is_refused_before_anything_is_built(builder, ask, changes, error, words):
    with pytest.raises(error, match=words):
        variants.convert(ask(**changes), Settings())

    assert not builder.tasks
    assert not ask().output.exists()


def test_an_empty_calibration_folder_is_refused(builder, ask, tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(SourceError, match="empty: it contains no files"):
        variants.convert(ask(calibration_source=str(tmp_path / "empty")), Settings())


def test_a_folder_that_is_not_a_bundle_is_refused_at_once(builder, ask, tmp_path):
    with pytest.raises(BundleError, match="is not a bundle"):
        variants.convert(ask(output=tmp_path / "photos"), Settings())

    assert not builder.tasks


def test_a_missing_package_is_named_before_anything_is_built(builder, ask, monkeypatch):
    def absent(name: str) -> str:
        raise request.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(request.metadata, "version", absent)

    with pytest.raises(SetupError, match=r"pip install 'maskmill\[convert\]'"):
        variants.convert(ask(), Settings())


@pytest.mark.usefixtures("builder")
@pytest.mark.parametrize(("source", "revision"), [("hf://o/n", None), ("hf://o/n@v1.0", "v1.0")])
def test_a_checkpoint_from_the_hub_is_fetched_through_the_cache(ask, monkeypatch, tmp_path, source, revision):
    hub = ModuleType("worker.model.sources.hub_cache")
    calls = []

    def download(repo: str, revision: str | None, filename: str, cache_dir: Path) -> Path:
        calls.append((repo, revision, filename, cache_dir))
        return tmp_path / "model.safetensors"

    hub.download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "worker.model.sources.hub_cache", hub)
    settings = Settings(model={"cache_dir": tmp_path / "cache"})

    report = variants.convert(ask(checkpoint=source), settings)

    assert calls == [("o/n", revision, "model.safetensors", tmp_path / "cache")]
    assert json.loads((report.output / "manifest.json").read_text())["source"]["checkpoint"] == source


def manifest_of(report: Any) -> dict[str, Any]:
    return json.loads((report.output / "manifest.json").read_text())


def test_the_order_of_the_tiles_is_found_out_on_photographs_and_recorded(builder, ask):
    reports: list[ConversionProgress] = []

    report = variants.convert(
        ask(tile_order=None, sizes=(InputSize.square(64), InputSize(32, 64))), Settings(), reports.append
    )

    assert builder.trials == [((2, 32, 64, 3), "32x64")]  # at the smallest size
    assert {task["tile_order"] for task in builder.tasks} == {"columns"}
    assert builder.tasks[0]["facts"] == {"family": "birefnet", "tile_order": "columns: crisper masks"}
    assert manifest_of(report)["source"]["tile_order"] == {
        "order": "columns",
        "reason": "crisper masks",
        "softness": {"rows": 0.2, "columns": 0.1},
    }
    assert report.tile_order and report.tile_order.order == "columns"
    assert "tile order: run with rows" in [progress.what for progress in reports]


def test_a_requested_order_is_not_tried(builder, ask):
    report = variants.convert(ask(tile_order=TileOrder.COLUMNS), Settings())

    assert not builder.trials
    assert {task["tile_order"] for task in builder.tasks} == {"columns"}
    assert manifest_of(report)["source"]["tile_order"]["reason"] == "as requested"


def test_a_published_checkpoint_needs_no_trial_and_has_its_own_name(monkeypatch, builder, ask):
    monkeypatch.setattr(variants, "fetch_checkpoint", lambda source, settings: Path(ask().checkpoint))

    report = variants.convert(ask(checkpoint="hf://ZhengPeng7/BiRefNet_HR", tile_order=None), Settings())

    assert not builder.trials
    assert {task["tile_order"] for task in builder.tasks} == {"rows"}
    assert "openvino_fp32/birefnet_hr_64x64_fp32.xml" in tree(report.output)


def test_without_photographs_the_order_is_a_stated_guess(monkeypatch, builder, ask):
    monkeypatch.setitem(sys.modules, "skimage", None)

    report = variants.convert(ask(tile_order=None, precisions=("fp32",), calibration_source=None), Settings())

    assert {task["tile_order"] for task in builder.tasks} == {"rows"}
    assert report.tile_order and report.tile_order.reason.startswith("a guess")
    assert "tiles is uncertain" in report.warnings[0]


def test_a_licence_that_forbids_commercial_use_is_said(monkeypatch, builder, ask):
    monkeypatch.setattr(variants, "fetch_checkpoint", lambda source, settings: Path(ask().checkpoint))

    report = variants.convert(ask(checkpoint="hf://briaai/RMBG-2.0"), Settings())

    assert "forbids commercial use" in report.warnings[0]
    assert manifest_of(report)["license"] == "CC BY-NC 4.0"
    assert "forbids commercial use" in (report.output / "LICENSE").read_text()


def test_a_name_can_be_given(builder, ask):
    report = variants.convert(ask(name="mine", sizes=(InputSize(64, 96),)), Settings())

    assert "openvino_int8/mine_64x96_int8.xml" in tree(report.output)


def test_memory_is_measured_where_the_plan_has_no_table(ask, builder, monkeypatch):
    """Swin-L, told by the size of its checkpoint; `worker plan` reads the result."""
    peaks = {"f32": PeakMemory(process_mib=900, stream_mib=700)}
    measured = []
    monkeypatch.setattr(variants.peak_memory, "measure", lambda variant: measured.append(variant.label) or peaks)
    asked = ask(precisions=("fp32", "int8"))

    small = read_bundle_manifest(variants.convert(asked, Settings()).output / "manifest.json")
    monkeypatch.setattr(variants, "LARGEST_SWIN_T", 0)
    large = read_bundle_manifest(variants.convert(asked, Settings()).output / "manifest.json")

    assert small.memory == {}
    assert len(large.memory) == len(measured) == 2
    assert all(entry == peaks for entry in large.memory.values())
    assert set(large.memory) < set(large.files)
