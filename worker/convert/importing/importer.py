"""Import a published network into a bundle, verify it, and say what was decided and why.

    file -> graph -> one input, one output -> facts -> two photographs -> IR -> compared -> INT8 -> measured -> bundle

The bundle is written completely or not at all.
"""

from __future__ import annotations

import platform
import re
import shutil
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from worker.contract.errors import BundleError, SettingsError
from worker.convert import peak_memory
from worker.convert.importing import (
    families,
    output_kind,
    pictures,
    reading,
    shaping,
    tiles,
    verification,
)
from worker.convert.importing.families import PRESETS, Family, Preset
from worker.convert.importing.pictures import Pictures
from worker.convert.importing.reading import PublishedNetwork
from worker.convert.importing.request import (
    Decision,
    ImportReport,
    ImportRequest,
    OnProgress,
    Verification,
)
from worker.convert.importing.shaping import Floats, Shaped
from worker.convert.importing.tiles import TileCheck
from worker.convert.int8 import offer
from worker.convert.int8 import pictures as int8_pictures
from worker.model.format import writer
from worker.model.format.layout import Candidate
from worker.model.format.manifest import PeakMemory, sha256_of
from worker.model.format.variant import Variant
from worker.model.inference.facts import InputScaling, NetworkFacts, OutputStretch, read_facts, write_facts
from worker.model.inference.runtime import core, ov
from worker.model.inference.value_range import value_range

_JUDGED = 2
"""Photographs on which the output is looked at to tell logits from probabilities."""

_LARGEST_HALF = 65504
_LARGEST_NAME = 60
_TOOLS = ("maskmill", "openvino", "numpy")
INT8 = "int8"
_SCRATCH = ".scratch"


def import_network(request: ImportRequest, on_progress: OnProgress = lambda step: None) -> ImportReport:
    """Write the bundle. The previous content of its folder is replaced only after everything has succeeded.

    Raises:
        BundleNotFound: there is no network at the given place, or no folder of pictures.
        BundleError: the file cannot be read, is no network for masks, or its masks differ from those of the file; or
            only INT8 was requested, and it does not hold.
        SettingsError: a value contradicts the file, or is needed and missing.
        SetupError: INT8 is requested, and NNCF or photographs are missing.
        SourceError: the folder of pictures holds too few.
    """
    request.check()
    output = request.output.absolute()
    writer.check_destination(output)
    path = reading.find_file(request.source.expanduser())
    on_progress(f"read {path.name}")
    network = reading.read(path)
    fitted = _fit(request, network, on_progress)
    with writer.staged(output) as made:
        return _Bundle(request, network, fitted, on_progress).write(made, output)


@dataclass(frozen=True)
class _Fitted:
    """A network in the form of the engine, with all its facts."""

    shaped: Shaped
    facts: NetworkFacts
    pictures: Pictures
    decisions: tuple[Decision, ...]
    family: Family | None
    tiles: TileCheck | None
    """None for a network without image tiles."""
    warnings: tuple[str, ...]


def _fit(request: ImportRequest, network: PublishedNetwork, on_progress: OnProgress) -> _Fitted:
    """Shape the network and settle its facts."""
    stated = read_facts(network.model, str(network.path))
    output = shaping.choose_output(network.model, request.output_name)
    family, how, warnings = _family(request, network)
    preset = PRESETS[family] if family else None
    decisions = [Decision("file", network.kind, network.path.name)]
    decisions.append(Decision("family", str(family) if family else "unknown", how))
    facts = _feeding(request, stated, preset, decisions)
    shaped = shaping.shape(network.model, output, request.size, preset.size if preset else None)
    decisions.append(_output_decision(request, shaped))
    shown = pictures.photographs(shaped.size)
    kind = output_kind.decide(
        value_range(shaped.model.output(0).get_node().input_value(0)),
        _raw_masks(shaped, facts, shown),
        request.activation,
    )
    decisions.append(Decision("activation", str(kind.activation), kind.reason))
    facts = replace(facts, output_activation=kind.activation)
    checked, doubt = tiles.check(shaped, facts, shown, request.tile_order, on_progress)
    if checked:
        decisions.append(checked.decision)
    return _Fitted(shaped, facts, shown, tuple(decisions), family, checked, (*warnings, *filter(None, [doubt])))


def _family(request: ImportRequest, network: PublishedNetwork) -> tuple[Family | None, str, tuple[str, ...]]:
    """The family, how it was found, and a warning if the graph contradicts the request."""
    found = families.recognise(shaping.traits(network.model))
    if request.family is None:
        return (found[0], found[1], ()) if found else (None, "the graph does not tell", ())
    if found and found[0] is not request.family:
        doubt = f"--family {request.family} was requested, but the graph looks like {found[0]}: {found[1]}"
        return request.family, "as requested", (doubt,)
    return request.family, "as requested", ()


def _feeding(
    request: ImportRequest, stated: NetworkFacts, preset: Preset | None, decisions: list[Decision]
) -> NetworkFacts:
    """The facts of the input, and the stretch: as requested, else as the file states them, else those of the family.

    Raises:
        SettingsError: nothing says how the network is fed.
    """
    given = request.normalisation()
    if given:
        (mean, scale), how = given, "as requested"
    elif stated.mean and stated.scale:
        (mean, scale), how = (stated.mean, stated.scale), "stated in the file"
    elif preset:
        (mean, scale), how = (preset.mean, preset.scale), f"of {preset.title}"
    else:
        raise SettingsError(
            "the graph does not tell how the network is fed; say which family it belongs to (--family "
            f"{'|'.join(Family)}), or give --mean and --std as its authors do, such as --mean 0.485,0.456,0.406 --std "
            "0.229,0.224,0.225"
        )
    decisions.append(Decision("normalisation", f"mean {_numbers(mean)}, deviation {_numbers(scale)}", how))
    scaling = preset.input_scaling if preset else stated.input_scaling
    if request.input_scaling:
        scaling = InputScaling(request.input_scaling)
    decisions.append(Decision("input scaling", str(scaling), "as requested" if request.input_scaling else how))
    stretch = preset.output_stretch if preset else stated.output_stretch
    why = f"of {preset.title}" if preset else "not stretched unless the family or the file says so"
    decisions.append(Decision("stretch of the mask", str(stretch), why))
    if stated.reverse_input_channels:
        decisions.append(Decision("channels", "blue first", "stated in the file"))
    return NetworkFacts(
        tuple(mean),
        tuple(scale),
        scaling,
        output_stretch=OutputStretch(stretch),
        reverse_input_channels=stated.reverse_input_channels,
    )


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _output_decision(request: ImportRequest, shaped: Shaped) -> Decision:
    why = "as requested" if request.output_name else "the only one"
    if shaped.outputs > 1 and not request.output_name:
        why = f"the first of {shaped.outputs}"
    form = shaped.form.describe()
    return Decision("output", shaped.output, f"{why}; {form}" if form else why)


def _raw_masks(shaped: Shaped, facts: NetworkFacts, shown: Pictures) -> list[Floats]:
    """The output on photographs, before any activation. The form of the graph takes channels first, as here."""
    compiled = core().compile_model(shaped.model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    planes = replace(shaped, takes_nhwc=False)
    return [
        np.asarray(compiled(verification.published_input(picture, planes, facts))[0][0, 0], np.float32)
        for picture in shown.tensors[:_JUDGED]
    ]


class _Bundle:
    """The bundle of one import."""

    def __init__(
        self, request: ImportRequest, network: PublishedNetwork, fitted: _Fitted, on_progress: OnProgress
    ) -> None:
        self._request, self._network, self._fitted, self._on_progress = request, network, fitted, on_progress
        self._name = request.name or _name_of(network.path)
        self._precisions = request.precisions or ("fp16" if network.half else "fp32",)

    def write(self, made: Path, output: Path) -> ImportReport:
        """Write the bundle to `made`, and return the report of the one at `output`."""
        fitted, size = self._fitted, self._fitted.shaped.size
        self._write_facts()
        floats = [kind for kind in self._precisions if kind != INT8]
        scratch = made / _SCRATCH
        variants: dict[str, Variant] = {kind: self._save(made, kind) for kind in floats}
        exact = variants.get("fp32") or self._save(scratch, "fp32")
        verified = self._verify(variants.get("fp32") or variants.get("fp16") or exact)
        if fitted.tiles and fitted.tiles.is_wrong:
            fitted.tiles.put_right(fitted.shaped.model)
            variants = {kind: self._save(made, kind) for kind in floats}
            exact = variants.get("fp32") or self._save(scratch, "fp32")
        outcome = self._quantise(made, exact, variants) if INT8 in self._precisions else None
        shutil.rmtree(scratch, ignore_errors=True)
        memory = self._measure(variants)
        warnings = [*fitted.warnings, *([self._request.licence.warning] if self._request.licence.warning else [])]
        if verified.max_levels is None:
            warnings.append(str(verified))
        if outcome and not outcome["offered"]:
            warnings.append(outcome["summary"])
        self._write_manifest(made, variants, verified, memory, outcome)
        return ImportReport(
            output, self._name, size, tuple(variants), fitted.decisions, verified, memory, tuple(warnings), outcome
        )

    def _verify(self, variant: Variant) -> Verification:
        fitted, network = self._fitted, self._network
        self._on_progress("compare with ONNX Runtime" if network.frame else "compare with the file itself")
        return verification.verify(network, fitted.shaped, fitted.facts, variant, fitted.pictures)

    def _quantise(self, made: Path, exact: Variant, variants: dict[str, Variant]) -> dict[str, Any]:
        """Add the INT8 variant if it holds, and return the steps tried.

        Raises:
            BundleError: it does not hold, and no other precision was requested.
        """
        size = self._fitted.shaped.size
        shown = int8_pictures.gather(self._request.calibration, size)
        candidate = Candidate(self._name, size, INT8)
        xml = made / candidate.xml
        xml.parent.mkdir(parents=True, exist_ok=True)
        outcome = offer.quantise(exact.xml, xml, shown, name=self._name, size=size, on_step=self._on_progress)
        if outcome.holds:
            variants[INT8] = Variant(self._name, size, INT8, xml, made / candidate.bin, "0" * 64)
        else:
            xml.parent.rmdir()
            if not variants:
                raise BundleError(f"{outcome.summary}. Nothing was written; import it with --precision fp32")
        return outcome.as_dict() | {"pictures": shown.as_dict()}

    def _write_facts(self) -> None:
        fitted = self._fitted
        notes = {
            "family": str(fitted.family or "unknown"),
            "activation_reason": next(d.why for d in fitted.decisions if d.what == "activation"),
        }
        write_facts(fitted.shaped.model, fitted.facts, notes)

    def _save(self, made: Path, precision: str) -> Variant:
        self._on_progress(f"write {precision}")
        model = self._fitted.shaped.model
        if precision == "fp16":
            _check_fits_half(model)
        candidate = Candidate(self._name, self._fitted.shaped.size, precision)
        xml = made / candidate.xml
        xml.parent.mkdir(parents=True, exist_ok=True)
        try:
            ov.save_model(model, str(xml), compress_to_fp16=precision == "fp16")
        except RuntimeError as error:
            raise BundleError(f"{xml.name} cannot be written: {error}; check the free disk space") from error
        return Variant(candidate.name, candidate.size, precision, xml, made / candidate.bin, "0" * 64)

    def _measure(self, variants: dict[str, Variant]) -> dict[str, dict[str, PeakMemory]]:
        if not self._request.measure_memory:
            return {}
        self._on_progress("measure the peak memory")
        return {precision: peak_memory.measure(variant) for precision, variant in variants.items()}

    def _write_manifest(
        self,
        made: Path,
        variants: dict[str, Variant],
        verified: Verification,
        memory: dict[str, dict[str, PeakMemory]],
        outcome: dict[str, Any] | None,
    ) -> None:
        fitted, licence, path = self._fitted, self._request.licence, self._network.path
        measured = {variants[precision].xml.relative_to(made).as_posix(): peaks for precision, peaks in memory.items()}
        names = (*_TOOLS, "nncf") if outcome else _TOOLS
        tools = {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}
        title = PRESETS[fitted.family].title if fitted.family else "A network"
        writer.write_bundle_manifest(
            made,
            self._name,
            description=f"{title}, imported from {path.name}.",
            license=licence.id or "not stated",
            source={
                "file": path.name,
                "format": self._network.kind,
                "sha256": sha256_of(path),
                "bytes": path.stat().st_size,
            },
            tools=tools,
            licence=asdict(licence),
            decisions={decision.what: f"{decision.value}: {decision.why}" for decision in fitted.decisions},
            verification=asdict(verified) | {"summary": str(verified)},
            memory=peak_memory.manifest_section(measured),
            **self._int8_facts(made, variants, outcome),
        )

    def _int8_facts(
        self, made: Path, variants: dict[str, Variant], outcome: dict[str, Any] | None
    ) -> dict[str, dict[str, Any]]:
        """The sections of the manifest about INT8: what was tried, and the agreement of the variant with FP32."""
        if outcome is None:
            return {}
        if INT8 not in variants:
            return {"int8": outcome}
        last = outcome["steps"][-1]
        agreement = {key: last[key] for key in ("mae", "iou", "worst_iou", "pictures")}
        xml = variants[INT8].xml.relative_to(made).as_posix()
        return {"int8": outcome, "variants": {xml: {"precision": INT8, "agreement": agreement}}}


def _name_of(path: Path) -> str:
    """A name for file names, from the name of the published file."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("._-")[:_LARGEST_NAME]
    return name or "network"


def _check_fits_half(model: Any) -> None:
    """Check that every weight fits into 16 bits. Saving would turn a larger one into the largest, without a word.

    Raises:
        BundleError: one does not; names the constant.
    """
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.f32:
            data = np.abs(node.get_data())
            if (np.isfinite(data) & (data > _LARGEST_HALF)).any():
                name = node.get_friendly_name()
                raise BundleError(f"weight {name} exceeds the largest 16-bit float; import it with --precision fp32")
