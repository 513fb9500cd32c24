"""The licence note written into a bundle of the BiRefNet family."""

from __future__ import annotations

from worker.convert.birefnet.presets import Preset

FILE = "LICENSE"

SPDX = "MIT"

_TEXT = """\
maskmill built the networks in this folder from the checkpoint that manifest.json names under "source". Weights were
combined exactly (batch norms and adjacent convolutions); in the variants other than fp32 they are stored with fewer
bits.

The authors of BiRefNet publish it and its weights, including ZhengPeng7/BiRefNet_lite, under the MIT licence
(arXiv 2401.03407). The licence text and the copyright line are in the file LICENSE of the repository that the
checkpoint came from. The licence requires that they accompany every copy: put that file beside this one before you
redistribute these networks. If the checkpoint came from another source, the licence of that source applies instead.
maskmill has no information about rights in the images that the network was trained on.
"""


def spdx(preset: Preset | None) -> str:
    """Return the licence of a checkpoint."""
    return preset.licence if preset else SPDX


def description(name: str) -> str:
    """Return one sentence about a network."""
    return f"{name}, of the BiRefNet family: the subject of a photograph, in detail. Converted from a checkpoint."


def text(preset: Preset | None) -> str:
    """Return the content of the file `LICENSE`."""
    return "".join(f"{line}.\n\n" for line in warnings(preset)) + _TEXT


def warnings(preset: Preset | None) -> tuple[str, ...]:
    """Return a sentence about a licence that forbids commercial use; empty for others."""
    if preset is None or preset.commercial:
        return ()
    return (f"the licence of {preset.repository}, {preset.licence}, forbids commercial use",)
