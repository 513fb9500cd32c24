"""What travels: the chunk message, a job's options, and the outcome of an image.

All frozen. `schema_version` is checked on the way in: a newer major shape is refused, unknown fields of the same
shape are ignored, so that workers can be rolled before producers and the other way round.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from worker.contract.errors import BadMessage
from worker.contract.outputs import OutputKind, OutputOptions
from worker.contract.s3url import S3Url

__all__ = [
    "FLAGS",
    "MAX_CHUNK_IMAGES",
    "MAX_KEY_BYTES",
    "ChunkMessage",
    "JobOptions",
    "JobPolicy",
    "MaskQuality",
    "Outcome",
    "OutcomeKind",
    "OutputKind",
    "Priority",
]

MAX_CHUNK_IMAGES = 256
"""Images in one chunk at most: bounds the message, and what a killed worker leaves to be looked at again."""

MAX_KEY_BYTES = 1024
"""Length limit of an S3 key in UTF-8 bytes (S3 API reference, object key naming)."""

MOSTLY_SOFT = 0.4
"""Share of soft pixels in a subject above which its mask wants a look: the network could not decide."""


FLAGS = ("empty", "full", "soft", "border")
"""What can be conspicuous about a mask (`MaskQuality.flags`)."""


class OutcomeKind(StrEnum):
    """What became of an image."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Priority(StrEnum):
    """Share of the workers that a job gets beside others that have work."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobOptions(OutputOptions):
    """What a job asks of every image. Kept once, in the job record."""

    source: S3Url = Field(description="prefix that the keys are under, as an s3:// URL")
    dest: S3Url = Field(description="prefix that outputs go under, as an s3:// URL")

    @field_validator("source", "dest")
    @classmethod
    def _as_folder(cls, url: S3Url) -> S3Url:
        return url.as_folder()


class MaskQuality(_Wire):
    """What a mask looks like, in numbers: a silently bad mask is what a bulk user cannot see.

    From the network's own mask, before any threshold; where the input is transparent nothing counts as subject.
    """

    coverage: float = Field(ge=0, le=1, description="mean opacity over the picture")
    soft: float = Field(ge=0, le=1, description="share of the subject (above 5 % opacity) that is not above 95 %")
    empty: bool = Field(description="under 0.1 % of the picture is subject (at least 50 % opacity)")
    full: bool = Field(description="over 99.5 % of the picture is subject")
    touches_border: bool = Field(description="subject on the outermost pixels: perhaps cut off by the frame")

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of what is conspicuous: `empty`, `full`, `soft`, `border`."""
        found = {"empty": self.empty, "full": self.full, "soft": self.soft > MOSTLY_SOFT, "border": self.touches_border}
        return tuple(name for name in FLAGS if found[name])

    @property
    def needs_review(self) -> bool:
        """Whether a person should look: a subject that touches the border alone is too common to ask for it."""
        return bool({"empty", "full", "soft"} & set(self.flags))


class JobPolicy(_Wire):
    """How a job is run; does not touch the pixels of an output."""

    priority: Priority = Priority.NORMAL
    max_attempts: int = Field(default=3, ge=1, le=100, description="times an image may kill its worker")
    max_failed: int | None = Field(default=None, ge=0, description="failed and dead images before the job is stopped")
    max_failed_percent: float | None = Field(default=None, ge=0, le=100, description="the same, of the images done")
    skip_existing: bool = Field(default=True, description="leave outputs alone that are up to date")


class ChunkMessage(_Wire):
    """Consecutive images of one job. Position `start + i` of the manifest is `keys[i]`."""

    SCHEMA: ClassVar[int] = 1
    OLDEST: ClassVar[int] = 1
    """Still read: what was queued before a roll must be run after it. Raise it one release behind SCHEMA."""

    schema_version: int = SCHEMA
    job: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    epoch: int = Field(default=0, ge=0, description="rises when a finished job is submitted for its failures again")
    chunk: int = Field(ge=0)
    start: int = Field(ge=0, description="index in the job of the first image")
    keys: tuple[str, ...] = Field(
        min_length=1, max_length=MAX_CHUNK_IMAGES, description="relative to the job's source prefix"
    )
    traceparent: str = Field(
        default="",
        pattern=r"^(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?$",
        description="W3C Trace Context of the span that submitted the job; empty without traces",
    )

    @classmethod
    def read(cls, payload: Any) -> ChunkMessage:
        """Validate what came off the wire.

        Raises:
            BadMessage: not this schema, or not valid; the text names the field, never the content.
        """
        version = payload.get("schema_version") if isinstance(payload, dict) else None
        if type(version) is not int or not cls.OLDEST <= version <= cls.SCHEMA:
            raise BadMessage(
                f"chunk message of schema_version {version!r:.20}, this worker reads {cls.OLDEST} to {cls.SCHEMA}; "
                "upgrade the workers before the producers"
            )
        try:
            message = cls.model_validate(payload)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            raise BadMessage(f"chunk message with invalid fields: {fields}") from error
        if any(not k or len(k.encode()) > MAX_KEY_BYTES for k in message.keys):
            raise BadMessage(f"chunk {message.chunk} of job {message.job} names an impossible key")
        return message


class Outcome(_Wire):
    """What became of one image, as the ledger and the chunk's result record it."""

    index: int = Field(ge=0, description="position in the job")
    key: str
    kind: OutcomeKind
    code: str = Field(default="", description="error code, empty unless failed or dead")
    message: str = ""
    outputs: tuple[str, ...] = Field(default=(), description="keys written, relative to the destination")
    seconds: float = Field(default=0.0, description="wall time from fetch to stored")
    stages: dict[str, float] = Field(default_factory=dict, description="of which in each stage (see `Stage`)")
    quality: MaskQuality | None = Field(default=None, description="of the mask, where there is one")
    at: float | None = Field(default=None, description="when it was recorded, by the clock of Redis (Unix seconds)")
