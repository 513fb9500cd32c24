"""Count the blocks of a GIF before a decoder sees it: Pillow reads those before the first picture one by one in Python.

Blocks are those of GIF89a, sections 15 to 26.
"""

from __future__ import annotations

from worker.contract.errors import Undecodable

MAX_BLOCKS = 1 << 17
"""Limit of blocks, sub-blocks and bytes of junk before the first picture. A profile of 4 MiB has 16,448 sub-blocks."""

_SCREEN_BYTES = 13
_HAS_PALETTE, _PALETTE_BITS = 0x80, 7
_EXTENSION, _PICTURE, _TRAILER = b"!,;"


def check_blocks(data: bytes) -> None:
    """Check the number of blocks before the first picture.

    Raises:
        Undecodable: there are more than `MAX_BLOCKS`.
    """
    if len(data) < _SCREEN_BYTES:
        return
    flags, at, count = data[10], _SCREEN_BYTES, 0
    if flags & _HAS_PALETTE:
        at += 3 << (flags & _PALETTE_BITS) + 1
    in_extension = False
    while at < len(data):
        byte = data[at]
        if in_extension:
            at, in_extension = at + 1 + byte, byte > 0
        elif byte == _EXTENSION:
            at, in_extension = at + 2, True
        elif byte in (_PICTURE, _TRAILER):
            return
        else:
            at += 1
        count += 1
        if count > MAX_BLOCKS:
            raise Undecodable(f"GIF with more than {MAX_BLOCKS:,} blocks before its picture; export it again")
