"""The note about rights that goes into a bundle of BiRefNet-lite."""

from __future__ import annotations

FILE = "LICENSE"

SPDX = "MIT"

DESCRIPTION = "BiRefNet-lite: the subject of a photograph, in detail. Converted from the published checkpoint."

TEXT = """\
The networks in this folder were built by maskmill from the checkpoint that manifest.json names under "source". Weights
were combined exactly (batch norms and neighbouring convolutions), and in the variants other than fp32 stored with fewer
bits.

BiRefNet and its weights, ZhengPeng7/BiRefNet_lite among them, are published by their authors under the MIT licence
(arXiv 2401.03407). Its text and copyright line are in the file LICENSE of the repository that the checkpoint came from:
put that file beside this one before you pass these networks on, as the licence asks. If the checkpoint came from
somebody else, ask there: their licence holds then, not this one. Nothing is known here about rights in the pictures
that the network was trained on.
"""
