"""The data that producers and workers exchange: the chunk message, the job options and the outcome of an image.

All models are frozen. Readers refuse a newer `schema_version` and ignore unknown fields of the same version, so
workers and producers can be upgraded in either order. What a program fills, `OutputOptions` and `JobPolicy`, refuses
unknown fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from worker.contract.errors import BadMessage
from worker.contract.outputs import OutputKind, OutputOptions
from worker.contract.s3url import S3Url
from worker.contract.spelling import StrictModel

__all__ = [
    "FLAGS",
    "JOB_PATTERN",
    "LAST_TIME",
    "MAX_CHUNK_IMAGES",
    "MAX_KEY_BYTES",
    "TRACEPARENT_PATTERN",
    "ChunkMessage",
    "JobOptions",
    "JobPolicy",
    "MaskQuality",
    "Outcome",
    "OutcomeKind",
    "OutputKind",
    "Priority",
    "StoredPolicy",
    "read_policy",
]

JOB_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
"""Form of the id of a job."""

TRACEPARENT_PATTERN = r"^(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?$"
"""W3C trace context, or empty."""

LAST_TIME = 4_102_444_800.0
"""2100-01-01 in Unix seconds. A later time is none, and some functions of the standard library do not take any time."""

_LONGEST = 1e9
"""Seconds that no image can take."""

MAX_CHUNK_IMAGES = 256
"""Most images in one chunk. Bounds the size of a message and the work that is repeated after a worker is killed."""

MAX_KEY_BYTES = 1024
"""Longest S3 key, in UTF-8 bytes (S3 API reference, object key naming)."""

UNDECIDED = 0.3
"""Share of a subject's opacity in soft areas without an edge above which a person should review its mask."""

MOSTLY_SOFT = 0.4
"""Share of soft pixels in a subject above which a mask counts as undecided in outcomes that lack that measurement."""


FLAGS = ("empty", "full", "soft", "border")
"""All values of `MaskQuality.flags`."""


class OutcomeKind(StrEnum):
    """The final state of an image."""

    OK = "ok"
    SKIPPED = "skipped"
    FAILED = "failed"
    DEAD = "dead"
    CANCELLED = "cancelled"


class Priority(StrEnum):
    """How large a job's share of the workers is while other jobs have work."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobOptions(OutputOptions):
    """The options that apply to every image of a job, stored once, in the job record.

    Fields that a newer version has added are ignored.
    """

    model_config = ConfigDict(extra="ignore")

    source: S3Url = Field(description="prefix that the keys are under, as an s3:// URL")
    dest: S3Url = Field(description="prefix that outputs go under, as an s3:// URL")

    @field_validator("source", "dest")
    @classmethod
    def _as_folder(cls, url: S3Url) -> S3Url:
        return url.as_folder()


class MaskQuality(_Wire):
    """Measurements of a mask, to find bad masks among many.

    Taken from the network's mask before any threshold. Transparent pixels of the input never count as subject.
    """

    coverage: float = Field(ge=0, le=1, description="mean opacity over the image")
    soft: float = Field(
        ge=0, le=1, description="share of the subject (opacity above 5 %) with an opacity of at most 95 %"
    )
    undecided: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="share of the subject's opacity in soft areas without an edge nearby; absent in older outcomes",
    )
    empty: bool = Field(description="less than 0.1 % of the image is subject (at least 50 % opacity)")
    full: bool = Field(description="more than 99.5 % of the image is subject")
    touches_border: bool = Field(description="the outermost pixels contain subject: the frame may cut it off")
    box: tuple[float, float, float, float] | None = Field(
        default=None,
        description=(
            "left, top, right and bottom of the subject (at least 50 % opacity) in the upright picture, as shares of "
            "its width and height; None without a subject, and in older outcomes"
        ),
    )

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the conditions that apply: `empty`, `full`, `soft`, `border`."""
        soft = self.soft > MOSTLY_SOFT if self.undecided is None else self.undecided > UNDECIDED
        found = {"empty": self.empty, "full": self.full, "soft": soft, "border": self.touches_border}
        return tuple(name for name in FLAGS if found[name])

    @property
    def needs_review(self) -> bool:
        """Whether a person should review the mask. Touching the border alone is too common to require a review."""
        return bool({"empty", "full", "soft"} & set(self.flags))


class JobPolicy(StrictModel):
    """How a job is run. Does not affect the pixels of an output. An unknown field is refused; see `StoredPolicy`."""

    priority: Priority = Priority.NORMAL
    max_attempts: int = Field(
        default=3, ge=1, le=100, description="times an image may kill its worker before it is given up"
    )
    max_failed: int | None = Field(
        default=None, ge=0, description="failed and dead images that stop the job when exceeded"
    )
    max_failed_percent: float | None = Field(
        default=None, ge=0, le=100, description="the same limit, in percent of the images done"
    )
    skip_existing: bool = Field(default=True, description="keep outputs that are up to date")
    folder: str = Field(default="", description="folder of the submitter's machine that the outputs are copied to")

    if TYPE_CHECKING:  # what pydantic accepts is wider than the types of the fields

        def __init__(
            self,
            *,
            priority: Priority | Literal["low", "normal", "high"] = ...,
            max_attempts: int = ...,
            max_failed: int | None = ...,
            max_failed_percent: float | None = ...,
            skip_existing: bool = ...,
            folder: str = ...,
        ) -> None: ...


def _known_fields(stored: Any) -> Any:
    if not isinstance(stored, Mapping):
        return stored
    return {name: value for name, value in stored.items() if name in JobPolicy.model_fields}


StoredPolicy = Annotated[JobPolicy, BeforeValidator(_known_fields)]
"""A policy in a job's record or files. Fields that a newer version has added are ignored."""

_STORED_POLICY: TypeAdapter[JobPolicy] = TypeAdapter(StoredPolicy)


def read_policy(stored: str | Mapping[str, Any]) -> JobPolicy:
    """Read the policy of a job as stored: JSON text, or its fields.

    Raises:
        ValidationError: a field is invalid.
    """
    if isinstance(stored, str):
        return _STORED_POLICY.validate_json(stored)
    return _STORED_POLICY.validate_python(stored)


class ChunkMessage(_Wire):
    """A message with consecutive images of one job. `keys[i]` is image `start + i` of the manifest."""

    SCHEMA: ClassVar[int] = 1
    OLDEST: ClassVar[int] = 1
    """Oldest version that is still read: messages queued before an upgrade must run after it.

    Raise it one release after SCHEMA.
    """

    schema_version: int = SCHEMA
    job: str = Field(pattern=JOB_PATTERN)
    epoch: int = Field(default=0, ge=0, description="increases when an ended job is run again (`producer retry`)")
    chunk: int = Field(ge=0)
    start: int = Field(ge=0, description="index of the first image in the job")
    keys: tuple[str, ...] = Field(
        min_length=1, max_length=MAX_CHUNK_IMAGES, description="relative to the job's source prefix"
    )
    traceparent: str = Field(
        default="",
        pattern=TRACEPARENT_PATTERN,
        description="W3C trace context of the span that submitted the job; empty without traces",
    )

    @classmethod
    def read(cls, payload: Any) -> ChunkMessage:
        """Validate a message from the queue.

        A key that S3 does not allow is no error of the message: it fails its image (`InvalidKey`), not its neighbours.

        Raises:
            BadMessage: another schema version, or invalid. The text names the field, never its content.
        """
        version = payload.get("schema_version") if isinstance(payload, dict) else None
        if type(version) is not int or not cls.OLDEST <= version <= cls.SCHEMA:
            raise BadMessage(
                f"chunk message has schema_version {version!r:.20}, this worker reads {cls.OLDEST} to {cls.SCHEMA}; "
                "upgrade the workers before the producers"
            )
        try:
            return cls.model_validate(payload)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            raise BadMessage(f"chunk message has invalid fields: {fields}") from error


class Outcome(_Wire):
    """The outcome of one image, as the ledger and the chunk's result record it."""

    index: int = Field(ge=0, description="index in the job")
    key: str
    kind: OutcomeKind
    code: str = Field(default="", description="error code; empty unless failed or dead")
    message: str = ""
    outputs: tuple[str, ...] = Field(default=(), description="keys written, relative to the destination")
    seconds: float = Field(default=0.0, ge=0, le=_LONGEST, description="wall time from fetch to store")
    stages: dict[str, Annotated[float, Field(ge=0, le=_LONGEST)]] = Field(
        default_factory=dict, description="wall time of each stage (see `Stage`)"
    )
    quality: MaskQuality | None = Field(default=None, description="measurements of the mask, if there is one")
    notes: tuple[str, ...] = Field(
        default=(), description="what the outputs lack or guess, such as a profile that was not usable; short sentences"
    )
    at: Annotated[float, Field(ge=0, le=LAST_TIME)] | None = Field(
        default=None, description="when it was recorded, by the clock of Redis, in Unix seconds"
    )

    @classmethod
    def read_line(cls, line: str) -> Outcome | None:
        """Return the outcome in a line from Redis; None if the line holds none, and nothing that may go on."""
        try:
            return cls.model_validate_json(line) if line.startswith("{") and "\n" not in line else None
        except ValueError:  # includes pydantic's, and text that is no UTF-8
            return None
