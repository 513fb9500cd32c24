"""Convert the outcomes of a job's images between four bits each, as Redis stores them, and one byte each.

The layout is that of `ledger/lua/head.lua`. A job may have millions of images, so conversion and search use methods
of `bytes`, which loop in C: the hexadecimal text of the packed form has one digit per image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from worker.contract.messages import OutcomeKind

NUMBERS = {kind: number for number, kind in enumerate(OutcomeKind, start=1)}
"""Outcome -> stored number; 0 stands for no outcome."""

KINDS: tuple[OutcomeKind | None, ...] = (None, *OutcomeKind)
"""Stored number -> outcome."""

_STATES = bytes(range(len(KINDS)))
_DIGITS = b"0123456789abcdef"
_TO_DIGITS = bytes.maketrans(bytes(range(16)), _DIGITS)
_FROM_DIGITS = bytes.maketrans(_DIGITS, bytes(range(16)))


def unpacked(packed: bytes) -> bytes:
    """Return one byte per image from four bits per image. The result has two images for each byte given."""
    return packed.hex().encode("ascii").translate(_FROM_DIGITS)


def known(states: bytes) -> bool:
    """Return whether all states, one byte each, are numbers of outcomes, or 0."""
    return not states.translate(None, delete=_STATES)


def packed(states: bytes | bytearray) -> bytes:
    """Return four bits per image from one byte per image. An odd count is padded with one image without outcome."""
    digits = bytes(states).translate(_TO_DIGITS) + b"0" * (len(states) % 2)
    return bytes.fromhex(digits.decode("ascii"))


def chunks_with(pieces: Iterable[bytes], wanted: Collection[OutcomeKind | None], chunk_images: int) -> Iterator[int]:
    """Yield the numbers of the chunks that contain an image with one of the given outcomes, in ascending order.

    Args:
        pieces: stored numbers of consecutive images, one byte each, in pieces of any length.
        wanted: outcomes to find; None finds images without an outcome.
        chunk_images: images per chunk.
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
