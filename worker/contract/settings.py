"""Settings of both sides: one tree, one prefix `MASKMILL_`, nested by `__`.

Order, first wins: environment, `.env` in the working directory, one file per setting in the folder named by
`MASKMILL_SECRETS_DIR`, the TOML file named by `MASKMILL_CONFIG`, the default. `explain()` tells for every value where
it came from. Secrets are `SecretStr` all the way down and never printed.
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from worker.contract.errors import SettingsError

ENV_PREFIX = "MASKMILL_"

_KEY_BYTES = 24, 64
"""Least and most of a signing secret (Standard Webhooks 1.0)."""

Precision = Literal["auto", "fp32", "fp16", "int8", "int8wo"]
InferencePrecision = Literal["auto", "f32", "bf16", "f16"]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RedisSettings(_Group):
    """The broker, the result backend and the ledger. Any Redis >= 6.2 or Valkey; not Redis Cluster."""

    url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="redis://host:port/db, rediss:// for TLS; user and password belong in their own settings",
    )
    username: str = Field(default="", description="ACL user")
    password: SecretStr = Field(default=SecretStr(""), description="password of the ACL user or of the server")
    ca_file: Path | None = Field(default=None, description="certificate authority for rediss://")
    cert_file: Path | None = Field(default=None, description="our own certificate, where the server asks for one")
    key_file: Path | None = Field(default=None, description="its private key")
    prefix: str = Field(
        default="maskmill:", pattern=r"^[A-Za-z0-9:_-]*$", description="of every key; own one per installation"
    )
    timeout_seconds: float = Field(default=15.0, gt=0, description="of a command before the connection counts as dead")

    @field_validator("url")
    @classmethod
    def _no_secret_in_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("must look like redis://host:6379/0 or rediss://host:6379/0")
        if parts.username or parts.password:
            raise ValueError(
                "must not carry credentials: set MASKMILL_REDIS__USERNAME and MASKMILL_REDIS__PASSWORD instead"
            )
        if any(name.startswith("ssl_") or name in ("username", "password") for name, _ in parse_qsl(parts.query)):
            raise ValueError("must not carry TLS or login parameters: they have settings of their own")
        return url

    @model_validator(mode="after")
    def _tls_is_whole(self) -> RedisSettings:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("set both MASKMILL_REDIS__CERT_FILE and MASKMILL_REDIS__KEY_FILE, or neither")
        if (self.ca_file or self.cert_file) and not self.url.startswith("rediss://"):
            # Who names certificates thinks that the line is encrypted.
            raise ValueError("certificates are for TLS: write rediss:// in MASKMILL_REDIS__URL")
        return self

    def secret_url(self) -> str:
        """The URL with credentials and TLS parameters, as redis-py and Celery want it. Never print this."""
        parts = urlsplit(self.url)
        password = self.password.get_secret_value()
        login = f"{quote(self.username, safe='')}:{quote(password, safe='')}@" if self.username or password else ""
        query = parts.query
        if parts.scheme == "rediss":
            files = {"ssl_ca_certs": self.ca_file, "ssl_certfile": self.cert_file, "ssl_keyfile": self.key_file}
            tls = {"ssl_cert_reqs": "required"} | {name: str(file) for name, file in files.items() if file}
            query = "&".join(filter(None, (query, urlencode(tls))))
        return urlunsplit((parts.scheme, login + parts.netloc, parts.path or "/0", query, ""))


class S3Settings(_Group):
    """The object store. Without keys, boto3's own chain decides (AWS_* variables, profile, instance role)."""

    endpoint_url: str | None = Field(default=None, description="of an S3-compatible server; empty for AWS")
    region: str = Field(default="us-east-1")
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="path for most self-hosted servers"
    )
    ca_file: Path | None = Field(default=None, description="certificate authority for https:// endpoints")
    connect_timeout_seconds: float = Field(default=5.0, gt=0)
    read_timeout_seconds: float = Field(default=60.0, gt=0)
    attempts: int = Field(default=5, ge=1, description="tries of one request, with growing pauses")
    allow: tuple[str, ...] = Field(
        default=(), description='places a worker may touch, as ["bucket", "bucket/prefix/"]; empty: any'
    )


class ModelSettings(_Group):
    """Which network runs."""

    source: str = Field(
        default="builtin:starter",
        description="builtin:NAME, a folder, s3://bucket/prefix or hf://owner/name[@revision]",
    )
    name: str | None = Field(default=None, description="model name, needed when the source holds several")
    size: int | None = Field(default=None, gt=0, multiple_of=32, description="input side in pixels; empty: largest")
    precision: Precision = Field(default="auto", description="variant on disk; auto: what this CPU runs best")
    inference_precision: InferencePrecision = Field(
        default="auto", description="arithmetic of the float part; auto: bf16 where native, else f32"
    )
    kernels: Literal["auto", "off"] = Field(
        default="auto", description="native deformable convolution; auto: where it is built and this CPU has one"
    )
    cache_dir: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "maskmill",
        description="for fetched bundles and compiled models",
    )


class PlanSettings(_Group):
    """How a node is divided. Empty values are decided by `worker plan`, which says why."""

    processes: int | None = Field(default=None, ge=1, description="worker processes on this node")
    streams: int | None = Field(default=None, ge=1, description="inference streams in each process")
    threads: int | None = Field(default=None, ge=1, description="inference threads in each process, over all streams")
    memory_per_stream_mib: int | None = Field(
        default=None,
        ge=64,
        description="what a stream may need at its peak; empty: as measured for size and precision",
    )
    memory_per_process_mib: int | None = Field(
        default=None, ge=64, description="what a process needs beside its streams; empty: as measured"
    )


class WorkerSettings(_Group):
    """Running workers."""

    grace_seconds: float = Field(default=60.0, gt=0, description="between SIGTERM and SIGKILL when stopping")
    stagger_seconds: float = Field(default=0.2, ge=0, description="between the starts of two processes")
    restart_limit: int = Field(default=5, ge=1, description="starts within ten minutes before a process is given up")
    images_ahead: int = Field(default=2, ge=1, le=16, description="images in work beyond the inference streams")
    image_time_limit_seconds: float = Field(
        default=300.0, ge=1, description="without any image ending, after which a hung child is killed"
    )
    max_memory_mib: int | None = Field(
        default=None, ge=64, description="resident memory after which a child is replaced between chunks; empty: none"
    )
    node_name: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="of this node in the fleet, one per `worker start`; empty: the host's name",
    )
    process_name: str = Field(default="worker", description="in logs; the supervisor sets it for each process")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = Field(
        default="text", description="of log lines: key=value for people, or one JSON object each"
    )


class LimitSettings(_Group):
    """What an untrusted image may cost."""

    max_object_mib: int = Field(default=64, ge=1, description="size of an input object")
    max_megapixels: int = Field(default=100, ge=1, description="size of a picture, before decoding")


class JobSettings(_Group):
    """Jobs: defaults of `producer submit`, and how long Redis remembers."""

    chunk_images: int | None = Field(
        default=None, ge=1, le=256, description="images in one message; empty: about 25 s of work at measured speed"
    )
    result_minutes: int = Field(
        default=15, ge=1, description="how long Celery keeps a chunk's result; its state is kept as long as the job"
    )
    keep_days: int = Field(default=30, ge=1, description="how long Redis remembers a job that has ended")
    price_per_core_hour: float | None = Field(
        default=None, ge=0, description="what an hour of one core costs, for the cost in a job's manifest.json"
    )


class EngineSettings(_Group):
    """How fast lost work is noticed. The same on every node and for the producer."""

    lease_seconds: int = Field(default=120, ge=2, description="without renewal, after which a message comes back")
    silence_seconds: float = Field(
        default=60.0, ge=1, description="without a sign of life, after which a chunk that no message stands for is lost"
    )
    reconcile_seconds: float = Field(default=15.0, gt=0, description="between two looks for lost chunks")
    leader_seconds: float = Field(default=15.0, ge=1, description="after which the role of a dead leader is taken over")
    feed_seconds: float = Field(
        default=0.5,
        gt=0,
        description="between two looks of the leader at the queue; up to 4 times as long while it is kept full",
    )


class MetricsSettings(_Group):
    """Prometheus metrics and health of a node, served by its steward."""

    port: int | None = Field(default=None, ge=1, le=65535, description="for /metrics and /healthz; empty: not served")
    address: str = Field(default="127.0.0.1", description="to listen on; 0.0.0.0 in a container")


class NotifySettings(_Group):
    """Messages about jobs that have ended, to an address of the user's (`--notify`)."""

    secret: SecretStr | None = Field(default=None, description="what they are signed with: base64 of 24 to 64 bytes")
    allow_http: bool = Field(default=False, description="also to http:// addresses, which anybody on the way can read")
    attempts: int = Field(default=6, ge=1, le=20, description="tries of one message, with growing pauses")
    timeout_seconds: float = Field(default=10.0, gt=0, description="of one try")
    ca_file: Path | None = Field(default=None, description="certificate authority for https:// addresses")

    @field_validator("secret")
    @classmethod
    def _is_a_key(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and not _KEY_BYTES[0] <= len(_decoded(secret)) <= _KEY_BYTES[1]:
            raise ValueError("must be 24 to 64 random bytes in base64, as `openssl rand -base64 32` prints them")
        return secret

    def key(self) -> bytes | None:
        """What messages are signed with. Never print this."""
        return None if self.secret is None else _decoded(self.secret)


def _decoded(secret: SecretStr) -> bytes:
    """Standard Webhooks writes its secrets as `whsec_` and base64; nothing for what is not base64."""
    try:
        return base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except ValueError:
        return b""


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",  # of .env and MASKMILL_CONFIG/MASKMILL_SECRETS_DIR themselves; see `_refuse_unknown_variables`
        frozen=True,
        hide_input_in_errors=True,
    )

    redis: RedisSettings = RedisSettings()
    s3: S3Settings = S3Settings()
    model: ModelSettings = ModelSettings()
    plan: PlanSettings = PlanSettings()
    worker: WorkerSettings = WorkerSettings()
    limits: LimitSettings = LimitSettings()
    jobs: JobSettings = JobSettings()
    engine: EngineSettings = EngineSettings()
    metrics: MetricsSettings = MetricsSettings()
    notify: NotifySettings = NotifySettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of the module docstring."""
        return init_settings, *(source for _, source in _sources())


def _sources() -> list[tuple[str, PydanticBaseSettingsSource]]:
    """Every source with the name that `explain` gives it, first wins."""
    config, secrets = os.environ.get(f"{ENV_PREFIX}CONFIG"), os.environ.get(f"{ENV_PREFIX}SECRETS_DIR")
    for name, place in (("CONFIG", config), ("SECRETS_DIR", secrets)):
        if place and not Path(place).exists():
            raise SettingsError(f"{ENV_PREFIX}{name} names {place}, which does not exist: correct or unset it")
    sources: list[tuple[str, PydanticBaseSettingsSource]] = [
        ("environment", EnvSettingsSource(Settings)),
        (".env", DotEnvSettingsSource(Settings)),
    ]
    if secrets:
        sources.append(
            (secrets, NestedSecretsSettingsSource(Settings, secrets_dir=secrets))  # type: ignore[arg-type]
        )
    if config:
        sources.append((config, TomlConfigSettingsSource(Settings, toml_file=config)))
    return sources


def load(**overrides: Any) -> Settings:
    """Settings from all sources; `overrides` (whole groups) win over everything.

    Raises:
        SettingsError: names every offending variable, never its value.
    """
    _refuse_unknown_variables()
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"  {ENV_PREFIX}{'__'.join(str(part) for part in e['loc']).upper()}: {e['msg']}" for e in error.errors()
        ]
        raise SettingsError("settings are not valid:\n" + "\n".join(lines)) from error
    except ValueError as error:  # a source that cannot be parsed: broken TOML, or a list that is not JSON
        raise SettingsError(f'settings cannot be read: {error}; lists are written as JSON: ["a", "b"]') from error


def _refuse_unknown_variables() -> None:
    """A misspelt variable that is silently ignored costs its owner an afternoon."""
    known = {f"{ENV_PREFIX}CONFIG", f"{ENV_PREFIX}SECRETS_DIR"}
    groups = tuple(f"{ENV_PREFIX}{group.upper()}" for group in Settings.model_fields)
    unknown = [
        name
        for name in os.environ
        if name.startswith(ENV_PREFIX)
        and name not in known
        and name not in groups
        and not name.startswith(tuple(f"{group}__" for group in groups))
    ]
    if unknown:
        raise SettingsError(
            f"no such setting: {', '.join(sorted(unknown))}; `worker config` lists the names of all settings"
        )


@dataclass(frozen=True)
class Explained:
    """One effective setting."""

    variable: str
    value: str
    origin: str
    description: str


def explain(settings: Settings) -> Iterator[Explained]:
    """Every setting with its effective value (secrets as stars) and where it came from."""
    sources = [(name, source()) for name, source in _sources()]
    for group_name in Settings.model_fields:
        group: _Group = getattr(settings, group_name)
        for name, field in type(group).model_fields.items():
            origin = next((o for o, tree in sources if name in (tree.get(group_name) or {})), "default")
            yield Explained(
                variable=f"{ENV_PREFIX}{group_name}__{name}".upper(),
                value=_shown(getattr(group, name)),
                origin=origin,
                description=field.description or "",
            )


def _shown(value: Any) -> str:
    """`SecretStr` hides itself; everything else is printed as it would be typed."""
    if value is None or value == ():
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
