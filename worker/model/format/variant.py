"""The facts of a bundle, and which of its variants to run.

`choose` looks at names only, so that `store` fetches nothing but the variant that will run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.contract.errors import BundleError, BundleNotFound
from worker.contract.settings import ModelSettings
from worker.model.format.layout import PRECISIONS, Candidate, Listing


@dataclass(frozen=True)
class Variant:
    """One network on this disk, its files checked: what the engine loads."""

    name: str
    size: int
    """Side R in pixels of the square input and output."""
    precision: str
    """As stored: fp32, fp16, int8 or int8wo. What it runs in is decided by the CPU and the settings."""
    xml: Path
    bin: Path
    digest: str
    """See `worker.model.format.manifest.variant_digest`."""

    @property
    def label(self) -> str:
        """As messages call it: `birefnet_lite 1024 int8`."""
        return f"{self.name} {self.size} {self.precision}"


@dataclass(frozen=True)
class Choice:
    """A candidate and why it was taken, in words."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True)
class Bundle:
    """A source with its chosen variant, ready to load."""

    source: str
    variant: Variant
    reason: str
    """Why this variant, with every fallback."""
    warnings: tuple[str, ...] = ()
    """What whoever starts the worker should read: no digests, files left out."""
    description: str = ""
    license: str = ""


def choose(listing: Listing, settings: ModelSettings, recommended: Sequence[str]) -> Choice:
    """Pick the variant to run: name, then size, then precision.

    Args:
        listing: what the source holds.
        settings: name, size and precision asked for; what is not asked for is decided here.
        recommended: precisions in the order this CPU runs them best; used when the precision is `auto`.

    Raises:
        BundleNotFound: nothing fits, or the name is needed; lists what is there.
        BundleError: the variant chosen lacks one of its two files.
    """
    reasons: list[str] = []
    left = _of_name(listing, settings, reasons)
    if settings.precision != "auto":
        left = _narrowed(left, [c for c in left if c.precision == settings.precision], "precision", settings, listing)
    left = _of_size(left, settings, listing, reasons)
    chosen = _of_precision(left, settings, recommended, reasons)
    if chosen.missing:
        raise BundleError(
            f"{settings.source} lacks {chosen.missing} of {chosen.label}; complete the copy, or ask for another of: "
            f"{listing.labels()}"
        )
    return Choice(chosen, f"{chosen.label}: {'; '.join(reasons)}")


def _of_name(listing: Listing, settings: ModelSettings, reasons: list[str]) -> list[Candidate]:
    everything = list(listing.candidates)
    if not everything:
        left_out = f"; not understood: {', '.join(listing.left_out[:5])}" if listing.left_out else ""
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
    reasons.append("name asked for" if settings.name else "the only name there")
    return _narrowed(everything, [c for c in everything if c.name == name], "name", settings, listing)


def _of_size(left: list[Candidate], settings: ModelSettings, listing: Listing, reasons: list[str]) -> list[Candidate]:
    if settings.size:
        reasons.append("size asked for")
        return _narrowed(left, [c for c in left if c.size == settings.size], "size", settings, listing)
    sizes = sorted({c.size for c in left})
    of_precision = "" if settings.precision == "auto" else f" in {settings.precision}"
    reasons.append(f"largest size of {', '.join(map(str, sizes))}{of_precision}" if sizes[1:] else "the only size")
    return [c for c in left if c.size == sizes[-1]]


def _of_precision(
    left: list[Candidate], settings: ModelSettings, recommended: Sequence[str], reasons: list[str]
) -> Candidate:
    by_precision = {c.precision: c for c in left}
    if settings.precision != "auto":
        reasons.append("precision asked for")
        return by_precision[settings.precision]
    order = [*recommended, *(p for p in PRECISIONS if p not in recommended)]
    taken = next(p for p in order if p in by_precision)
    if not recommended:
        reasons.append(f"{taken} is the most exact precision there")
    elif taken == recommended[0]:
        reasons.append(f"{taken} is what this CPU runs best")
    else:
        better = ", then ".join(p for p in recommended[: order.index(taken)])
        reasons.append(f"FALLBACK to {taken}: this CPU would rather run {better}, which the bundle lacks at this size")
    return by_precision[taken]


def _narrowed(
    before: list[Candidate], after: list[Candidate], what: str, settings: ModelSettings, listing: Listing
) -> list[Candidate]:
    """`after`, unless nothing is left."""
    if after or not before:
        return after
    asked = getattr(settings, what)
    raise BundleNotFound(
        f"{settings.source} has no model of {what} {asked} that fits the other settings; there is: "
        f"{listing.labels()}; change MASKMILL_MODEL__{what.upper()}"
    )
