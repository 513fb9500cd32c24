"""Read the pixels of an image where they lie in memory, without a copy.

`np.asarray` of an image copies it twice: Pillow packs the pixels into pieces, then joins the pieces. For the mask of a
2-megapixel picture that takes as long as a third of its compression. Pillow also exports its pixels through the Arrow
C data interface, whose structure is fixed: https://arrow.apache.org/docs/format/CDataInterface.html.
"""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt
from PIL import Image

_CHANNELS = {"L": 1, "RGBA": 4}
"""Mode -> channels in memory, for modes whose pixels lie in memory as a file has them. RGB has a fourth, unused one."""


class _Array(ctypes.Structure):
    """`struct ArrowArray`, without the fields behind `children`."""

    _fields_ = (
        ("length", ctypes.c_int64),
        ("null_count", ctypes.c_int64),
        ("offset", ctypes.c_int64),
        ("n_buffers", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
        ("children", ctypes.POINTER(ctypes.c_void_p)),
    )


_VALUES = 1  # buffer of a primitive array; buffer 0 has the bits of missing values

_address = ctypes.pythonapi.PyCapsule_GetPointer
_address.restype, _address.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class _Memory:
    """Memory that NumPy can read. The capsule holds the image's memory until no array refers to this object."""

    def __init__(self, capsule: object, address: int, shape: tuple[int, int, int]) -> None:
        self._capsule = capsule
        self.__array_interface__ = {"version": 3, "typestr": "|u1", "shape": shape, "data": (address, True)}


def shared_pixels(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """Return the pixels of an image as read-only u8 [height, width, channels] that shares the image's memory.

    Do not change the image while the array is in use.

    Returns:
        None if the rows do not follow one another in memory (Pillow splits images of more than 16 MiB), or if the mode
        is neither L nor RGBA.
    """
    channels = _CHANNELS.get(image.mode)
    if channels is None or 0 in image.size:
        return None
    try:
        _, capsule = image.__arrow_c_array__()
    except ValueError:
        return None
    array = _Array.from_address(_address(capsule, b"arrow_array"))
    if channels > 1:  # an array of pixels, whose child is the array of their values
        array = _Array.from_address(array.children[0])
    shape = (image.height, image.width, channels)
    if array.offset or array.length != image.height * image.width * channels:
        return None
    return np.asarray(_Memory(capsule, array.buffers[_VALUES], shape))


def pixels_of(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image of mode L as u8 [height, width], read-only, without a copy if possible."""
    found = shared_pixels(image)
    return np.asarray(image) if found is None else found[:, :, 0]
