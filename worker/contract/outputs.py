"""What is written for an image: kinds, formats, and everything else that decides the pixels of an output.

The producer fills `OutputOptions` from its command line, the job record carries them as part of `JobOptions`, the
worker renders by them. Only what can be told without a picture is checked here.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from worker.contract import output_names

WHITE = "#ffffff"
MAX_OUTPUT_SIDE = 65_535

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_MARGIN = re.compile(r"\d{1,5}(\.\d{1,3})?(px|%)")
_BACKGROUND_URL = re.compile(r"s3://[^/]+/.*[^/]")


class OutputKind(StrEnum):
    """What is written for an image."""

    MASK = "mask"
    CUTOUT = "cutout"
    COMPOSITE = "composite"


class ImageFormat(StrEnum):
    """How it is written."""

    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"
    JPEG = "jpeg"

    @property
    def extension(self) -> str:
        """Of file names, without the dot."""
        return "jpg" if self is ImageFormat.JPEG else self.value

    @property
    def content_type(self) -> str:
        """MIME type."""
        return f"image/{self.value}"


class ExifPolicy(StrEnum):
    """What becomes of the photograph's EXIF in cut-outs and composites; masks never carry any."""

    STRIP = "strip"
    KEEP = "keep"
    """Without the GPS position, maker notes and thumbnail."""

    KEEP_WITH_GPS = "keep-with-gps"


class OutputOptions(BaseModel):
    """Everything about outputs. Frozen; unknown fields of the same schema are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    outputs: tuple[OutputKind, ...] = Field(default=(OutputKind.MASK,), min_length=1)
    format: ImageFormat = Field(default=ImageFormat.PNG, description="of all outputs")
    mask_format: ImageFormat | None = Field(default=None, description="of masks, where they are to differ")
    quality: int = Field(default=90, ge=1, le=100, description="of JPEG, WebP and AVIF; 100 is lossless in WebP")
    background: str = Field(default=WHITE, description="of composites: #rrggbb, or s3:// URL of a picture")
    background_etag: str = Field(default="", description="of that picture at submission")
    exif: ExifPolicy = ExifPolicy.STRIP
    crop: bool = Field(default=False, description="all outputs to the subject")
    crop_margin: str = Field(default="0px", description="around it: pixels, or % of its longer side")
    threshold: float | None = Field(
        default=None, gt=0, lt=1, description="opacity that counts as subject; leaves no soft edges"
    )
    refine: bool = Field(default=False, description="estimate the subject's own colours at soft edges")
    max_side: int | None = Field(default=None, ge=1, le=MAX_OUTPUT_SIDE, description="outputs are scaled down to it")
    name: str = Field(default="", max_length=512, description="naming template; empty: the default")

    @field_validator("outputs")
    @classmethod
    def _each_once(cls, outputs: tuple[OutputKind, ...]) -> tuple[OutputKind, ...]:
        return tuple(dict.fromkeys(outputs))

    @field_validator("background")
    @classmethod
    def _colour_or_picture(cls, background: str) -> str:
        if _COLOUR.fullmatch(background):
            return background.lower()
        if not _BACKGROUND_URL.fullmatch(background):
            raise ValueError("a background is a colour such as '#f2f2f2' or a picture such as s3://bucket/studio.jpg")
        return background

    @field_validator("crop_margin")
    @classmethod
    def _pixels_or_share(cls, margin: str) -> str:
        if not _MARGIN.fullmatch(margin):
            raise ValueError("a margin is written 20px or 5%")
        return margin

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if OutputKind.CUTOUT in self.outputs and self.format is ImageFormat.JPEG:
            raise ValueError("JPEG has no transparency, which a cut-out needs: take png, webp or avif, or a composite")
        kinds = [kind.value for kind in self.outputs]
        output_names.check(self.template, kinds, [self.format_of(kind).extension for kind in self.outputs])
        return self

    @property
    def template(self) -> str:
        """Naming template in force."""
        return self.name or (output_names.ONE_KIND if len(self.outputs) == 1 else output_names.SEVERAL_KINDS)

    @property
    def background_picture(self) -> str | None:
        """URL of the picture behind composites, if it is one."""
        return self.background if OutputKind.COMPOSITE in self.outputs and self.background[0] != "#" else None

    def format_of(self, kind: OutputKind) -> ImageFormat:
        """Format that outputs of a kind are written in."""
        return self.mask_format or self.format if kind is OutputKind.MASK else self.format

    def output_key(self, key: str, kind: OutputKind) -> str:
        """Key under the destination prefix for one output of the input `key` (both relative to their prefix).

        By default `{dir}/{stem}.{ext}`, and with several kinds `{kind}/{dir}/{stem}.{ext}`.
        """
        return output_names.output_key(self.template, key, kind.value, self.format_of(kind).extension)

    def rival_keys(self, key: str) -> tuple[str, ...]:
        """Those outputs of `key` that must differ from the outputs of every other input: as few as will tell.

        Where the kinds are kept apart, two inputs that share an output of one kind share it of every kind.
        """
        enough = self.outputs[:1] if output_names.keeps_kinds_apart(self.template) else self.outputs
        return tuple(self.output_key(key, kind) for kind in enough)

    def digest(self) -> str:
        """Of everything that decides the pixels of an output; two jobs of equal digest write the same.

        Defaults do not enter it, so an option added later leaves outputs that do not use it up to date.
        """
        idle = {"name", "outputs"}
        if OutputKind.COMPOSITE not in self.outputs:
            idle |= {"background", "background_etag"}
        if {self.format_of(kind) for kind in self.outputs} == {ImageFormat.PNG}:
            idle |= {"quality"}
        decisive = self.model_dump_json(include=set(OutputOptions.model_fields) - idle, exclude_defaults=True)
        kinds = ",".join(sorted(kind.value for kind in self.outputs))
        return hashlib.sha256(f"{kinds}\n{decisive}".encode()).hexdigest()[:16]
