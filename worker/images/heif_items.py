"""Find out how many pixels the coded data of an AVIF or HEIC holds, before a decoder allocates them.

The size of a picture in these containers is a property (ispe) beside the coded data, which states its own size.
Decoders decode what the data says, and scale or refuse the result afterwards. So a picture of 64 x 64 may cost what one
of 16,384 x 16,384 costs.

    meta box -> primary item -> itself, or the tiles of its grid -> sizes in the AV1 or HEVC sequence headers
                             -> its alpha, likewise

Boxes are those of ISO/IEC 14496-12 and 23008-12; sequence headers those of AV1 (5.5) and HEVC (7.3.2.2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from worker.contract.errors import Undecodable
from worker.images.colour_space import boxes

MAX_UNITS = 1 << 16
"""Limit of units (AV1 OBUs, HEVC parameter sets) in one file; encoders write a few for each tile."""

_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
_SEQUENCE_HEADER = 1  # type of OBU
_SPS = 33  # type of NAL unit
_MAX_ITEMS = 1 << 14
_SHARED_BYTES = 1 << 20
"""What the items of a file may hold in common."""
_MAX_LEB128_BYTES = 8


class CodedPixels(NamedTuple):
    """Pixels that a decoder decodes for one picture, by its coded data; 0 where the data could not be read."""

    colour: int = 0
    alpha: int = 0


@dataclass
class _Item:
    kind: bytes = b""
    extents: list[tuple[int, int, bool]] = field(default_factory=list)
    """Offset and length; whether in the idat box instead of the file."""
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    tiles: list[int] = field(default_factory=list)
    auxiliary_of: list[int] = field(default_factory=list)


def coded_pixels(data: bytes) -> CodedPixels:
    """Return the pixels in the coded data of the picture that decoders show.

    Raises:
        Undecodable: the container holds more boxes, items or units than any encoder writes.
    """
    try:
        return _Container(data).coded_pixels()
    except (struct.error, IndexError):  # cut off: the decoder reports it
        return CodedPixels()


class _Container:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._items: dict[int, _Item] = {}
        self._idat = b""
        self._primary = 0
        self._tracks: list[tuple[int, int]] = []
        self._known: dict[int, int] = {}
        self._units, self._bytes = 0, 0
        for kind, body in boxes(data):
            if kind == b"meta":
                self._read_meta(body[4:])
            elif kind == b"moov":
                self._tracks += _first_samples(body)

    def coded_pixels(self) -> CodedPixels:
        colour = self._pixels(self._primary, set())
        alpha = sum(
            self._pixels(number, set())
            for number, item in self._items.items()
            if self._primary in item.auxiliary_of and _is_alpha(item)
        )
        samples = [self._av1_pixels([self._data[at : at + size]]) for at, size in self._tracks]
        return CodedPixels(max([colour, *samples]), alpha)

    def _pixels(self, number: int, seen: set[int]) -> int:
        """Return the pixels of an item, or of all tiles of a grid; one that refers to itself counts once."""
        item = self._items.get(number)
        if item is None or number in seen:
            return 0
        seen.add(number)
        if item.kind in (b"grid", b"iden", b"iovl"):
            own = [self._own_pixels(tile) for tile in item.tiles if tile in self._items]
            return sum(own) + sum(self._pixels(tile, seen) for tile in set(item.tiles) if self._is_derived(tile))
        return self._own_pixels(number)

    def _is_derived(self, number: int) -> bool:
        item = self._items.get(number)
        return item is not None and item.kind in (b"grid", b"iden", b"iovl")

    def _own_pixels(self, number: int) -> int:
        if number not in self._known:
            item, found = self._items[number], 0
            if item.kind == b"av01":
                found = self._av1_pixels(self._content(item))
            elif item.kind in (b"hvc1", b"hev1"):
                found = max((self._hevc_pixels(body) for kind, body in item.properties if kind == b"hvcC"), default=0)
            self._known[number] = found
        return self._known[number]

    def _content(self, item: _Item) -> Iterator[bytes]:
        for at, size, inside in item.extents:
            yield (self._idat if inside else self._data)[at : at + size if size else None]

    def _av1_pixels(self, parts: Iterable[bytes]) -> int:
        """Return the pixels of the largest frame that the sequence headers in coded data allow."""
        data, at, largest = self._joined(parts), 0, 0
        while at < len(data):
            self._count_unit()
            header = data[at]
            kind, extended, sized = header >> 3 & 15, header >> 2 & 1, header >> 1 & 1
            at += 1 + extended
            size = len(data) - at
            if sized:
                size, at = _leb128(data, at)
            if kind == _SEQUENCE_HEADER:
                largest = max(largest, _sequence_pixels(_Bits(data[at : at + min(size, 256)])))
            at += size
        return largest

    def _joined(self, parts: Iterable[bytes]) -> bytes:
        """Return coded data in one piece; items that share data would multiply it."""
        found = []
        for part in parts:
            found.append(part)
            self._bytes += len(part)
            if self._bytes > len(self._data) + _SHARED_BYTES:
                raise Undecodable("a picture whose items share their data; export it again")
        return found[0] if len(found) == 1 else b"".join(found)

    def _hevc_pixels(self, configuration: bytes) -> int:
        """Return the pixels of the largest picture that the parameter sets of an hvcC property allow."""
        reader, largest = _Bytes(configuration, 22), 0
        for _ in range(reader.take(1)):
            kind = reader.take(1) & 63
            for _ in range(reader.take(2)):
                self._count_unit()
                size = reader.take(2)
                body = reader.take(size).to_bytes(size, "big")
                if kind == _SPS:
                    largest = max(largest, _sps_pixels(_Bits(body[2:256].replace(b"\0\0\3", b"\0\0"))))
        return largest

    def _count_unit(self) -> None:
        self._units += 1
        if self._units > MAX_UNITS:
            raise Undecodable(f"a picture with more than {MAX_UNITS:,} units of coded data; export it again")

    def _read_meta(self, meta: bytes) -> None:
        owned: list[tuple[bytes, bytes]] = []
        for kind, body in boxes(meta):
            if kind == b"pitm":
                (self._primary,) = struct.unpack_from(">I" if body[0] else ">H", body, 4)
            elif kind == b"iinf":
                self._read_kinds(body)
            elif kind == b"iloc":
                self._read_places(body)
            elif kind == b"iref":
                self._read_references(body)
            elif kind == b"idat":
                self._idat = body
            elif kind == b"iprp":
                owned += boxes(body)
        properties = [found for kind, body in owned if kind == b"ipco" for found in boxes(body)]
        for kind, body in owned:
            if kind == b"ipma":
                self._read_associations(body, properties)

    def _item(self, number: int) -> _Item:
        if len(self._items) > _MAX_ITEMS:
            raise Undecodable(f"a picture with more than {_MAX_ITEMS:,} items; export it again")
        return self._items.setdefault(number, _Item())

    def _read_kinds(self, body: bytes) -> None:
        for kind, entry in boxes(body[8 if body[0] else 6 :]):
            if kind == b"infe" and entry[0] >= 2:  # noqa: PLR2004 - version
                wide = entry[0] > 2  # noqa: PLR2004 - version
                (number,) = struct.unpack_from(">I" if wide else ">H", entry, 4)
                at = 10 if wide else 8
                self._item(number).kind = entry[at : at + 4]

    def _read_places(self, body: bytes) -> None:
        version, sizes = body[0], body[4:6]
        offset_bytes, length_bytes, base_bytes = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4
        index_bytes = sizes[1] & 15 if version else 0
        reader = _Bytes(body, 6)
        wide = 4 if version == 2 else 2  # noqa: PLR2004 - version
        for _ in range(reader.take(wide)):
            item = self._item(reader.take(wide))
            inside = version > 0 and reader.take(2) & 15 == 1
            reader.take(2)
            base = reader.take(base_bytes)
            for _ in range(reader.take(2)):
                reader.take(index_bytes)
                offset, length = reader.take(offset_bytes), reader.take(length_bytes)
                if len(item.extents) < _MAX_ITEMS:
                    item.extents.append((base + offset, length, inside))

    def _read_references(self, body: bytes) -> None:
        wide = 4 if body[0] else 2
        for kind, entry in boxes(body[4:]):
            reader = _Bytes(entry, 0)
            item = self._item(reader.take(wide))
            targets = [reader.take(wide) for _ in range(reader.take(2))]
            if kind == b"dimg":
                item.tiles += targets[:_MAX_ITEMS]
            elif kind == b"auxl":
                item.auxiliary_of += targets[:_MAX_ITEMS]

    def _read_associations(self, body: bytes, properties: list[tuple[bytes, bytes]]) -> None:
        reader = _Bytes(body, 4)
        wide, large = (4 if body[0] else 2), body[3] & 1
        for _ in range(reader.take(4)):
            item = self._item(reader.take(wide))
            for _ in range(reader.take(1)):
                index = reader.take(2) & 0x7FFF if large else reader.take(1) & 0x7F
                if 0 < index <= len(properties):
                    item.properties.append(properties[index - 1])


class _Bytes:
    """Reads big-endian numbers one after the other."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def take(self, count: int) -> int:
        """Read a number of `count` bytes.

        Raises:
            IndexError: the data ends before.
        """
        end = self._at + count
        if end > len(self._data):
            raise IndexError(end)
        number = int.from_bytes(self._data[self._at : end], "big")
        self._at = end
        return number


class _Bits:
    """Reads bits, the highest of each byte first; beyond the end they are zero."""

    def __init__(self, data: bytes) -> None:
        self._number, self._left = int.from_bytes(data, "big"), len(data) * 8

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise IndexError(count)
        return self._number >> self._left & (1 << count) - 1

    def exponential(self) -> int:
        """Read an Exp-Golomb number: ue(v) of HEVC, uvlc() of AV1."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _is_alpha(item: _Item) -> bool:
    return any(kind == b"auxC" and body[4:].startswith(_ALPHA) for kind, body in item.properties)


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_LEB128_BYTES):
        value |= (data[at + index] & 127) << 7 * index
        if data[at + index] < 128:  # noqa: PLR2004 - the highest bit
            return value, at + index + 1
    raise IndexError(at)


def _sequence_pixels(bits: _Bits) -> int:
    """Return the pixels of the largest frame of a sequence (AV1, 5.5.1)."""
    bits.take(4)
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    return (bits.take(width_bits) + 1) * (bits.take(height_bits) + 1)


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing_info_present_flag
        bits.take(64)
        if bits.take(1):
            bits.exponential()
        if bits.take(1):  # decoder_model_info_present_flag
            delay_bits = bits.take(5) + 1
            bits.take(42)
    has_delays = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:  # noqa: PLR2004 - levels that have a tier
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if has_delays and bits.take(1):
            bits.take(4)


def _sps_pixels(bits: _Bits) -> int:
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)
    flags = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for has_profile, has_level in flags:
        bits.take(88 * has_profile + 8 * has_level)
    bits.exponential()
    if bits.exponential() == 3:  # noqa: PLR2004 - 4:4:4
        bits.take(1)
    return bits.exponential() * bits.exponential()


def _first_samples(moov: bytes) -> Iterator[tuple[int, int]]:
    """Yield offset and length of the first picture of each track of an image sequence."""
    for kind, track in boxes(moov):
        if kind == b"trak":
            table = dict(boxes(_inner(track, b"mdia", b"minf", b"stbl")))
            offsets, wide = (table.get(b"co64"), 8) if b"co64" in table else (table.get(b"stco"), 4)
            sizes = table.get(b"stsz")
            if offsets and sizes:
                at = _Bytes(offsets, 8).take(wide)
                same = _Bytes(sizes, 4).take(4)
                yield at, same or _Bytes(sizes, 12).take(4)


def _inner(body: bytes, *path: bytes) -> bytes:
    """Return the body of a box inside boxes; empty if there is none."""
    for name in path:
        body = next((inner for kind, inner in boxes(body) if kind == name), b"")
    return body
