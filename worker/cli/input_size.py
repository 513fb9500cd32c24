"""The click type of `--size`."""

from __future__ import annotations

from typing import Any

import click

from worker.contract.input_size import InputSize


class _InputSizeType(click.ParamType[InputSize]):
    name = "HEIGHTxWIDTH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> InputSize:
        if isinstance(value, InputSize):
            return value
        try:
            return InputSize.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self.name


INPUT_SIZE = _InputSizeType()
"""Reads `1440x2560`, or one number for a square."""
