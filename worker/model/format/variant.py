"""Which variant of a bundle to run, and the facts about it.

`choose` looks at file names only, so that just the chosen variant has to be fetched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from worker.contract.errors import BundleError, BundleNotFound
from worker.contract.input_size import InputSize
from worker.contract.settings import ModelSettings
from worker.model.format.layout import PRECISIONS, Candidate, Listing

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Variant:
    """One network on this disk with verified files: the input of the engine."""

    name: str
    size: InputSize
    """Height and width of input and output in pixels."""

    precision: str
    """As stored: fp32, fp16, int8 or int8wo. The CPU and the settings decide the precision it runs in."""

    xml: Path
    bin: Path
    digest: str
    """See `worker.model.format.manifest.variant_digest`."""

    @property
    def label(self) -> str:
        """Name for messages: `birefnet_lite 1024 int8`, `birefnet_lite 1440x2560 int8`."""
        return f"{self.name} {self.size.short} {self.precision}"


@dataclass(frozen=True)
class Choice:
    """The chosen candidate, and the reason as a sentence."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True)
class Bundle:
    """A bundle source with its chosen variant, ready to load."""

    source: str
    variant: Variant
    reason: str
    """Why this variant was chosen, with every fallback."""

    warnings: tuple[str, ...] = ()
    """Problems that an operator should read, such as missing digests or ignored files."""

    description: str = ""
    license: str = ""


def choose(
    listing: Listing, settings: ModelSettings, recommended: Sequence[str], failed: Mapping[str, str] = _NONE
) -> Choice:
    """Choose the variant to run: by name, then by size, then by precision.

    A variant whose masks differ too much from those of FP32 is chosen only if the settings name its precision, or if
    the bundle has no other at this size; the reason says so.

    Args:
        listing: contents of the source.
        settings: requested name, size and precision; each that is not set is decided here.
        recommended: precisions, the one that this CPU runs best first; used if the precision is `auto`.
        failed: path of a graph -> how its masks differ from those of FP32; see `BundleManifest.failed_variants`.

    Raises:
        BundleNotFound: nothing fits, or the name is ambiguous; lists what is available.
        BundleError: one of the two files of the chosen variant is missing.
    """
    reasons: list[str] = []
    left = _filter_by_name(listing, settings, reasons)
    if settings.precision != "auto":
        matching = [c for c in left if c.precision == settings.precision]
        left = _require_match(left, matching, "precision", settings, listing)
    left = _filter_by_size(left, settings, listing, reasons)
    chosen = _pick_precision(left, settings, recommended, reasons, failed)
    if chosen.missing:
        raise BundleError(
            f"{settings.source} lacks {chosen.missing} of {chosen.label}; complete the copy, or choose another of: "
            f"{listing.labels()}"
        )
    return Choice(chosen, f"{chosen.label}: {'; '.join(reasons)}")


def _filter_by_name(listing: Listing, settings: ModelSettings, reasons: list[str]) -> list[Candidate]:
    everything = list(listing.candidates)
    if not everything:
        left_out = f"; not recognised: {', '.join(listing.left_out[:5])}" if listing.left_out else ""
        importable = [name for name in listing.left_out if name.endswith((".onnx", ".tflite"))]
        if importable:
            raise BundleNotFound(
                f"{settings.source} holds {importable[0]}, which is no bundle yet: import it with `worker model import "
                f"{settings.source.rstrip('/')}/{importable[0]} --output BUNDLE`, and use that folder"
            )
        raise BundleNotFound(
            f"{settings.source} holds no model; a bundle has files such as "
            f"openvino_int8/NAME_512x512_int8.xml and .bin{left_out}"
        )
    names = sorted({c.name for c in everything})
    if settings.name is None and len(names) > 1:
        raise BundleNotFound(
            f"{settings.source} holds several models: {', '.join(names)}; set MASKMILL_MODEL__NAME to one of them"
        )
    name = settings.name or names[0]
    reasons.append("name as requested" if settings.name else "the only name")
    return _require_match(everything, [c for c in everything if c.name == name], "name", settings, listing)


def _filter_by_size(
    left: list[Candidate], settings: ModelSettings, listing: Listing, reasons: list[str]
) -> list[Candidate]:
    if settings.size:
        reasons.append("size as requested")
        return _require_match(left, [c for c in left if c.size == settings.size], "size", settings, listing)
    sizes = sorted({c.size for c in left}, key=lambda size: (size.pixels, size))
    in_precision = "" if settings.precision == "auto" else f" in {settings.precision}"
    listed = ", ".join(size.short for size in sizes)
    reasons.append(f"largest size of {listed}{in_precision}" if sizes[1:] else "the only size")
    return [c for c in left if c.size == sizes[-1]]


def _pick_precision(
    left: list[Candidate],
    settings: ModelSettings,
    recommended: Sequence[str],
    reasons: list[str],
    failed: Mapping[str, str],
) -> Candidate:
    if settings.precision != "auto":
        reasons.append("precision as requested")
        picked = next(c for c in left if c.precision == settings.precision)
    else:
        sound = [c for c in left if c.xml not in failed]
        # Where all fail, none is fast enough to make up for it: the most exact one.
        picked = _best(sound, recommended, reasons) if sound else _best(left, (), reasons)
        reasons += [
            f"not {c.precision}, whose masks differ from FP32 ({failed[c.xml]})" for c in left if c not in sound
        ]
    if picked.xml in failed:
        reasons.append(f"WARNING: its masks differ from FP32 ({failed[picked.xml]})")
    return picked


def _best(left: list[Candidate], recommended: Sequence[str], reasons: list[str]) -> Candidate:
    by_precision = {c.precision: c for c in left}
    order = [*recommended, *(p for p in PRECISIONS if p not in recommended)]
    picked = next(p for p in order if p in by_precision)
    if not recommended:
        reasons.append(f"{picked} is the most exact precision available")
    elif picked == recommended[0]:
        reasons.append(f"{picked} is what this CPU runs best")
    else:
        better = ", then ".join(p for p in recommended[: order.index(picked)])
        reasons.append(f"FALLBACK to {picked}: this CPU prefers {better}, which the bundle lacks at this size")
    return by_precision[picked]


def _require_match(
    before: list[Candidate], after: list[Candidate], what: str, settings: ModelSettings, listing: Listing
) -> list[Candidate]:
    """Return `after`, unless the filter on the setting `what` left nothing."""
    if after or not before:
        return after
    requested = getattr(settings, what)
    requested = requested.short if isinstance(requested, InputSize) else requested
    raise BundleNotFound(
        f"{settings.source} has no model of {what} {requested} that matches the other settings; available: "
        f"{listing.labels()}; change MASKMILL_MODEL__{what.upper()}"
    )
