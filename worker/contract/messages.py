"""What travels: the chunk message, a job's options, and the outcome of an image.

All frozen. `schema_version` is checked on the way in: a newer major shape is refused, unknown fields of the same
shape are ignored, so that workers can be rolled before producers and the other way round.
"""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.contract.errors import BadMessage

MAX_CHUNK_IMAGES = 64
"""Images in one chunk at most: bounds the message and what a retry repeats."""

MAX_KEY_BYTES = 1024
"""Length limit of an S3 key in UTF-8 bytes (S3 API reference, object key naming)."""


class OutcomeKind(StrEnum):
    """What became of an image."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"


class OutputKind(StrEnum):
    """What is written for an image."""

    MASK = "mask"
    CUTOUT = "cutout"


class Priority(StrEnum):
    """Share of the workers that a job gets beside others that have work."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobOptions(_Wire):
    """What a job asks of every image. Kept once, in the job record."""

    source: str = Field(description="s3:// URL of the prefix that the keys are under")
    dest: str = Field(description="s3:// URL of the prefix that outputs go under")
    outputs: tuple[OutputKind, ...] = Field(default=(OutputKind.MASK,), min_length=1)

    def output_key(self, key: str, kind: OutputKind) -> str:
        """Key under the destination prefix for one output of the input `key` (both relative to their prefix).

        One kind: `{dir}/{stem}.png`. Several: `{kind}/{dir}/{stem}.png`, since both are PNG.
        """
        # Not PurePosixPath: it folds `a//b` and `a/./b` into `a/b`, which S3 keeps apart.
        folder, slash, name = key.rpartition("/")
        path = f"{folder}{slash}{name.rpartition('.')[0] or name}.png"
        return path if len(self.outputs) == 1 else f"{kind.value}/{path}"

    def digest(self) -> str:
        """Of everything that decides the pixels of an output; two jobs of equal digest write the same."""
        return hashlib.sha256(json.dumps(sorted(kind.value for kind in self.outputs)).encode()).hexdigest()[:16]


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

    schema_version: int = SCHEMA
    job: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    epoch: int = Field(default=0, ge=0, description="rises when a finished job is submitted for its failures again")
    chunk: int = Field(ge=0)
    start: int = Field(ge=0, description="index in the job of the first image")
    keys: tuple[str, ...] = Field(
        min_length=1, max_length=MAX_CHUNK_IMAGES, description="relative to the job's source prefix"
    )

    @classmethod
    def read(cls, payload: Any) -> ChunkMessage:
        """Validate what came off the wire.

        Raises:
            BadMessage: not this schema, or not valid; the text names the field, never the content.
        """
        version = payload.get("schema_version") if isinstance(payload, dict) else None
        if version != cls.SCHEMA:
            raise BadMessage(
                f"chunk message of schema_version {version!r}, this worker reads {cls.SCHEMA}; "
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
