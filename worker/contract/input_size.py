"""The size of a network's input. Heights come first, as in tensors and file names: `1440x2560` is a lying picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_TEXT = re.compile(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?")


@dataclass(frozen=True, order=True)
class InputSize:
    """Height and width in pixels.

    A pydantic field of this type reads `512`, `"512"` and `"1440x2560"`. It writes a square as one number, which
    readers of earlier versions expect, and any other size as text.
    """

    height: int
    width: int

    @classmethod
    def square(cls, side: int) -> Self:
        """Return the size of a square."""
        return cls(side, side)

    @classmethod
    def parse(cls, text: str | int) -> Self:
        """Read `HEIGHTxWIDTH`, or one number for a square.

        Raises:
            ValueError: the text is neither; the message says what is expected.
        """
        found = _TEXT.fullmatch(str(text).strip())
        if found is None:
            raise ValueError(f"{text!r} is not a size: write HEIGHTxWIDTH in pixels, such as 1440x2560, or 1024")
        height, width = int(found[1]), int(found[2] or found[1])
        return cls(height, width)

    @property
    def is_square(self) -> bool:
        """Whether both sides are equal."""
        return self.height == self.width

    @property
    def pixels(self) -> int:
        """Height times width."""
        return self.height * self.width

    @property
    def longer(self) -> int:
        """The longer of both sides."""
        return max(self.height, self.width)

    def is_multiple_of(self, step: int) -> bool:
        """Whether both sides are positive multiples of `step`."""
        return all(side > 0 and side % step == 0 for side in (self.height, self.width))

    def as_json(self) -> int | str:
        """Return what a pydantic field writes: one number for a square, else the text."""
        return self.height if self.is_square else str(self)

    def __str__(self) -> str:
        """Return `HEIGHTxWIDTH`."""
        return f"{self.height}x{self.width}"

    @property
    def short(self) -> str:
        """One number for a square, else `HEIGHTxWIDTH`: for labels and tables."""
        return str(self.height) if self.is_square else str(self)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate from a number, a text or an instance; serialise as in the docstring of the class."""

        def read(value: Any) -> InputSize:
            if isinstance(value, cls):
                return value
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise ValueError(f"expected HEIGHTxWIDTH or a number, got {type(value).__name__}")
            return cls.parse(value)

        return core_schema.no_info_plain_validator_function(
            read,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda size: size.as_json()),
        )
