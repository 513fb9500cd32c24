"""What became of every image of a job, four bits each as Redis holds them (`lua/head.lua`), or a byte each to work on.

Millions of them are turned, counted and searched by the methods of `bytes`, which loop in C: the hexadecimal text of
the packed form has one digit for each image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from worker.contract.messages import OutcomeKind

NUMBERS = {kind: number for number, kind in enumerate(OutcomeKind, start=1)}
"""State of an image by its outcome; 0 is no outcome."""

KINDS: tuple[OutcomeKind | None, ...] = (None, *OutcomeKind)
"""Outcome by state."""

_DIGITS = b"0123456789abcdef"
_TO_DIGITS = bytes.maketrans(bytes(range(16)), _DIGITS)
_FROM_DIGITS = bytes.maketrans(_DIGITS, bytes(range(16)))


def unpacked(packed: bytes) -> bytes:
    """One byte per image from four bits; two images for each byte."""
    return packed.hex().encode("ascii").translate(_FROM_DIGITS)


def packed(states: bytes | bytearray) -> bytes:
    """Four bits per image from one byte; an odd one at the end gets an empty neighbour."""
    digits = bytes(states).translate(_TO_DIGITS) + b"0" * (len(states) % 2)
    return bytes.fromhex(digits.decode("ascii"))


def chunks_with(pieces: Iterable[bytes], wanted: Collection[OutcomeKind | None], chunk_images: int) -> Iterator[int]:
    """Numbers of the chunks with an image of one of these outcomes, in order.

    Args:
        pieces: states of consecutive images, one byte each.
        wanted: outcomes, None for images without.
        chunk_images: images in a chunk.
    """
    numbers = {0 if kind is None else NUMBERS[kind] for kind in wanted}
    marks = bytes(number in numbers for number in range(256))
    begin, last = 0, -1
    for piece in pieces:
        marked = piece.translate(marks)
        at = marked.find(1)
        while at >= 0:
            chunk = (begin + at) // chunk_images
            if chunk != last:
                yield chunk
                last = chunk
            at = marked.find(1, (chunk + 1) * chunk_images - begin)
        begin += len(piece)
