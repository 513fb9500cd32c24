"""Refuse misspelt names: an unknown option, field or variable must not be ignored silently."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


def did_you_mean(name: str, known: Iterable[str], *, similarity: float = 0.6) -> str:
    """Return `; did you mean NAME?` with the most similar known name; empty if none is similar (`difflib`)."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=similarity)
    return f"; did you mean {close[0]}?" if close else ""


class StrictModel(BaseModel):
    """A frozen model that a program fills: an unknown field is refused, and the message names a similar one.

    A subclass with `extra="ignore"` reads what another version has written.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _known_fields_only(cls, given: Any) -> Any:
        if isinstance(given, dict) and cls.model_config.get("extra") == "forbid":
            for name in given:
                if name not in cls.model_fields:
                    raise ValueError(f"{cls.__name__} has no field {name!r}{did_you_mean(str(name), cls.model_fields)}")
        return given
