"""The licence note written into a bundle of BiRefNet-lite."""

from __future__ import annotations

FILE = "LICENSE"

SPDX = "MIT"

DESCRIPTION = "BiRefNet-lite: the subject of a photograph, in detail. Converted from the published checkpoint."

TEXT = """\
maskmill built the networks in this folder from the checkpoint that manifest.json names under "source". Weights were
combined exactly (batch norms and adjacent convolutions); in the variants other than fp32 they are stored with fewer
bits.

The authors of BiRefNet publish it and its weights, including ZhengPeng7/BiRefNet_lite, under the MIT licence
(arXiv 2401.03407). The licence text and the copyright line are in the file LICENSE of the repository that the
checkpoint came from. The licence requires that they accompany every copy: put that file beside this one before you
redistribute these networks. If the checkpoint came from another source, the licence of that source applies instead.
maskmill has no information about rights in the images that the network was trained on.
"""
