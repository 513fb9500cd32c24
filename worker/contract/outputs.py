"""The output options: kinds, formats, and everything else that decides the pixels of an output.

The producer fills `OutputOptions` from its command line, the job record stores them as part of `JobOptions`, and the
worker renders accordingly. Checks that need an image are made by the worker.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from worker.contract import output_names
from worker.contract.spelling import StrictModel

WHITE = "#ffffff"
MAX_OUTPUT_SIDE = 65_535

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_MARGIN = re.compile(r"\d{1,5}(\.\d{1,3})?(px|%)")
_BACKGROUND_URL = re.compile(r"s3://[^/]+/.*[^/]")


class OutputKind(StrEnum):
    """A kind of output that is written for an image."""

    MASK = "mask"
    CUTOUT = "cutout"
    COMPOSITE = "composite"


class ImageFormat(StrEnum):
    """File format of an output."""

    PNG = "png"
    WEBP = "webp"
    AVIF = "avif"
    JPEG = "jpeg"

    @property
    def extension(self) -> str:
        """File extension without the dot."""
        return "jpg" if self is ImageFormat.JPEG else self.value

    @property
    def content_type(self) -> str:
        """MIME type."""
        return f"image/{self.value}"


class ExifPolicy(StrEnum):
    """Which EXIF data of the photograph cut-outs and composites keep. Masks never have any."""

    STRIP = "strip"
    KEEP = "keep"
    """Keep all but the GPS position, maker notes and thumbnail."""

    KEEP_WITH_GPS = "keep-with-gps"


OutputName = Literal["mask", "cutout", "composite"]
FormatName = Literal["png", "webp", "avif", "jpeg"]
ExifName = Literal["strip", "keep", "keep-with-gps"]


class OutputOptions(StrictModel):
    """All options of outputs. Frozen; an unknown field is refused.

    A text is accepted where a member of an enumeration is expected, and one kind of output where several are.
    """

    outputs: tuple[OutputKind, ...] = Field(default=(OutputKind.MASK,), min_length=1)
    format: ImageFormat = Field(default=ImageFormat.PNG, description="file format of all outputs")
    mask_format: ImageFormat | None = Field(default=None, description="file format of masks, if it differs")
    quality: int = Field(
        default=90, ge=1, le=100, description="quality of JPEG, WebP and AVIF, 1 to 100; 100 makes WebP lossless"
    )
    background: str = Field(
        default=WHITE, description="background of composites: #rrggbb, or the s3:// URL of an image"
    )
    background_etag: str = Field(default="", max_length=1024, description="ETag of that image at submission")
    exif: ExifPolicy = ExifPolicy.STRIP
    crop: bool = Field(default=False, description="crop all outputs to the subject")
    crop_margin: str = Field(default="0px", description="margin around the subject: pixels, or % of its longer side")
    threshold: float | None = Field(
        default=None, gt=0, lt=1, description="opacity from which a pixel counts as subject; removes soft edges"
    )
    refine: bool = Field(default=False, description="estimate the subject's own colours at soft edges")
    max_side: int | None = Field(
        default=None,
        ge=1,
        le=MAX_OUTPUT_SIDE,
        description="longest side of outputs in pixels; larger ones are scaled down",
    )
    name: str = Field(default="", max_length=512, description="naming template; empty selects the default")

    if TYPE_CHECKING:  # what pydantic accepts is wider than the types of the fields

        def __init__(
            self,
            *,
            outputs: Iterable[OutputKind | OutputName] | OutputKind | OutputName = ...,
            format: ImageFormat | FormatName = ...,
            mask_format: ImageFormat | FormatName | None = ...,
            quality: int = ...,
            background: str = ...,
            background_etag: str = ...,
            exif: ExifPolicy | ExifName = ...,
            crop: bool = ...,
            crop_margin: str = ...,
            threshold: float | None = ...,
            refine: bool = ...,
            max_side: int | None = ...,
            name: str = ...,
        ) -> None: ...

    @field_validator("outputs", mode="before")
    @classmethod
    def _several(cls, outputs: Any) -> Any:
        return (outputs,) if isinstance(outputs, str) else outputs

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
            raise ValueError("a background is a colour such as '#f2f2f2' or an image such as s3://bucket/studio.jpg")
        return background

    @field_validator("crop_margin")
    @classmethod
    def _pixels_or_share(cls, margin: str) -> str:
        if not _MARGIN.fullmatch(margin):
            raise ValueError("write a margin as 20px or 5%")
        return margin

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if OutputKind.CUTOUT in self.outputs and self.format is ImageFormat.JPEG:
            raise ValueError("JPEG has no transparency, which a cut-out needs: use png, webp or avif, or a composite")
        kinds = [kind.value for kind in self.outputs]
        output_names.check(self.template, kinds, [self.format_of(kind).extension for kind in self.outputs])
        return self

    @property
    def template(self) -> str:
        """The effective naming template."""
        return self.name or (output_names.ONE_KIND if len(self.outputs) == 1 else output_names.SEVERAL_KINDS)

    @property
    def background_picture(self) -> str | None:
        """URL of the background image of composites; None if the background is a colour."""
        return self.background if OutputKind.COMPOSITE in self.outputs and self.background[0] != "#" else None

    def format_of(self, kind: OutputKind) -> ImageFormat:
        """Return the file format of a kind of output."""
        return self.mask_format or self.format if kind is OutputKind.MASK else self.format

    def output_key(self, key: str, kind: OutputKind) -> str:
        """Return the key of one output of the input `key`, relative to the destination.

        `key` is relative to the source. The default template is `{dir}/{stem}.{ext}`, and with several kinds
        `{kind}/{dir}/{stem}.{ext}`.
        """
        return output_names.output_key(self.template, key, kind.value, self.format_of(kind).extension)

    def collision_keys(self, key: str) -> tuple[str, ...]:
        """Return the output keys of the input `key` to compare with those of all other inputs.

        If the template separates the kinds, one kind is enough: inputs that share a key of one kind share all kinds.
        """
        compared = self.outputs[:1] if output_names.separates_kinds(self.template) else self.outputs
        return tuple(self.output_key(key, kind) for kind in compared)

    def digest(self) -> str:
        """Return a digest of the options that decide the pixels of an output. Equal digests give equal outputs.

        Default values are left out, so outputs stay up to date when a later version adds an option.
        """
        irrelevant = {"name", "outputs"}
        if OutputKind.COMPOSITE not in self.outputs:
            irrelevant |= {"background", "background_etag"}
        if {self.format_of(kind) for kind in self.outputs} == {ImageFormat.PNG}:
            irrelevant |= {"quality"}
        decisive = self.model_dump_json(include=set(OutputOptions.model_fields) - irrelevant, exclude_defaults=True)
        kinds = ",".join(sorted(kind.value for kind in self.outputs))
        return hashlib.sha256(f"{kinds}\n{decisive}".encode()).hexdigest()[:16]
