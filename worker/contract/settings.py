"""The settings of producer and worker: one tree with the prefix `MASKMILL_`, nested with `__`.

Sources, the first that has a value wins: the environment; `.env` in the working directory; the folder named by
`MASKMILL_SECRETS_DIR`, with one file per setting; the TOML file named by `MASKMILL_CONFIG`; the services that run on
this machine, if no other source names a Redis or an S3 server; the default. `explain()` returns the source of every
value. Secrets are `SecretStr` throughout and are never printed.
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
    InitSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from worker.contract import local_services, sentinel_url
from worker.contract.errors import SettingsError
from worker.contract.input_size import InputSize
from worker.contract.sentinel_url import SentinelAddress
from worker.contract.spelling import did_you_mean

ENV_PREFIX = "MASKMILL_"

_KEY_BYTES = 24, 64
"""Shortest and longest signing secret, in bytes (Standard Webhooks 1.0)."""

_LONGEST_PAUSE = 20.0
"""Longest pause between two attempts of botocore, in seconds."""

_ATTEMPTS_SUMMED = 20
"""Pauses that are summed one by one; later ones are the longest."""

_SERVICE_FIELDS = (
    *(("redis", name) for name in ("url", "username", "password", "sentinel_username", "sentinel_password")),
    *(("s3", name) for name in ("endpoint_url", "access_key_id", "secret_access_key")),
)
"""Settings that say which services are meant: with one of them set, those of this machine are not used."""

Precision = Literal["auto", "fp32", "fp16", "int8", "int8wo"]
InferencePrecision = Literal["auto", "f32", "bf16", "f16"]
NativeKernels = Literal["auto", "off", "deformable_convolution", "layer_norm", "window_attention"]
"""Which native operations may run: all of them, none, or one alone."""


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class RedisSettings(_Group):
    """Redis: broker, result backend and ledger. Redis 6.2 or later, or Valkey; Redis Cluster is not supported."""

    url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description=(
            "Address of Redis, redis://host:port/db or rediss:// for TLS; of its Sentinels, "
            "sentinel://host:26379,host:26379,host:26379/PRIMARY/db or sentinels:// for TLS. Without credentials, "
            "since it appears in messages."
        ),
    )
    username: str = Field(default="", description="ACL user; empty selects the default user of the server.")
    password: SecretStr = Field(
        default=SecretStr(""), description="Password of the ACL user or of the server; empty if there is none."
    )
    sentinel_username: str = Field(
        default="", description="ACL user at the Sentinels, if they have users of their own; empty: their default user."
    )
    sentinel_password: SecretStr = Field(
        default=SecretStr(""), description="Password at the Sentinels; empty if they have none."
    )
    ca_file: Path | None = Field(
        default=None,
        description="CA certificate (PEM) for rediss:// or sentinels://; empty selects those of the system.",
    )
    cert_file: Path | None = Field(
        default=None, description="Client certificate (PEM) for rediss:// or sentinels://, if the servers require one."
    )
    key_file: Path | None = Field(default=None, description="Private key (PEM) of the client certificate.")
    prefix: str = Field(
        default="maskmill:",
        pattern=r"^[A-Za-z0-9:_-]*$",
        description="Prefix of every key in Redis, which must be unique to each installation that shares the server.",
    )
    timeout_seconds: float = Field(
        default=15.0,
        gt=0,
        description="Seconds to wait for the reply to a command before the connection counts as dead.",
    )
    failover_seconds: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description=(
            "Seconds in all that a call of a producer or of a model process waits while Redis fails over to another "
            "primary; 0: fail at once."
        ),
    )
    wait_replicas: int = Field(
        default=0,
        ge=0,
        le=100,
        description=(
            "Replicas that must confirm (WAIT) that they have a new job before it counts as submitted, and the end of "
            "a job before it counts as ended; 0: none, a failover may lose what was not replicated yet."
        ),
    )
    wait_seconds: float = Field(
        default=1.0, gt=0, le=60, description="Seconds to wait for the confirmation of the replicas."
    )

    @field_validator("url")
    @classmethod
    def _no_secret_in_url(cls, url: str) -> str:
        if sentinel_url.is_sentinel(url):
            sentinel_url.parse(url)
            return url
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError(f"must look like redis://host:6379/0, rediss://host:6379/0 or {sentinel_url.FORM}")
        if parts.username or parts.password:
            raise ValueError(
                "must not contain credentials: set MASKMILL_REDIS__USERNAME and MASKMILL_REDIS__PASSWORD instead"
            )
        if any(name.startswith("ssl_") or name in ("username", "password") for name, _ in parse_qsl(parts.query)):
            raise ValueError(
                "must not contain TLS or login parameters: use the other MASKMILL_REDIS__ settings instead"
            )
        return url

    @model_validator(mode="after")
    def _tls_is_whole(self) -> RedisSettings:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("set both MASKMILL_REDIS__CERT_FILE and MASKMILL_REDIS__KEY_FILE, or neither")
        if (self.ca_file or self.cert_file) and not self.url.startswith(("rediss://", "sentinels://")):
            # Certificates without TLS would suggest an encrypted connection.
            raise ValueError("certificates require TLS: write rediss:// or sentinels:// in MASKMILL_REDIS__URL")
        return self

    @model_validator(mode="after")
    def _wait_ends_before_the_timeout(self) -> RedisSettings:
        if self.wait_replicas and self.wait_seconds >= self.timeout_seconds:
            raise ValueError("MASKMILL_REDIS__WAIT_SECONDS must be less than MASKMILL_REDIS__TIMEOUT_SECONDS")
        return self

    @model_validator(mode="after")
    def _sentinel_is_whole(self) -> RedisSettings:
        secret = self.sentinel_password.get_secret_value()
        if (self.sentinel_username or secret) and not sentinel_url.is_sentinel(self.url):
            raise ValueError(
                "MASKMILL_REDIS__SENTINEL_USERNAME and MASKMILL_REDIS__SENTINEL_PASSWORD are for Sentinels: write "
                f"{sentinel_url.FORM} in MASKMILL_REDIS__URL"
            )
        if self.sentinel_username and not secret:
            raise ValueError("set MASKMILL_REDIS__SENTINEL_PASSWORD with MASKMILL_REDIS__SENTINEL_USERNAME")
        return self

    def sentinels(self) -> SentinelAddress | None:
        """Return where the Sentinels are; None if the URL names the server itself."""
        return sentinel_url.parse(self.url) if sentinel_url.is_sentinel(self.url) else None

    def secret_url(self) -> str:
        """Return the URL with credentials and TLS parameters, as redis-py and Celery expect it. Never print it.

        Behind Sentinels, the name of the primary takes the place of its host: see `ledger.primary`.
        """
        url, behind = self.url, self.sentinels()
        if behind is not None:
            url = f"{'rediss' if behind.tls else 'redis'}://{behind.primary}/{behind.database}"
        parts = urlsplit(url)
        password = self.password.get_secret_value()
        login = f"{quote(self.username, safe='')}:{quote(password, safe='')}@" if self.username or password else ""
        query = parts.query
        if parts.scheme == "rediss":
            files = {"ssl_ca_certs": self.ca_file, "ssl_certfile": self.cert_file, "ssl_keyfile": self.key_file}
            tls = {"ssl_cert_reqs": "required"} | {name: str(file) for name, file in files.items() if file}
            query = "&".join(filter(None, (query, urlencode(tls))))
        return urlunsplit((parts.scheme, login + parts.netloc, parts.path or "/0", query, ""))


class S3Settings(_Group):
    """The object store. Without keys, boto3 searches the AWS_* variables, the profile and the instance role."""

    endpoint_url: str | None = Field(
        default=None, description="URL of an S3-compatible server; empty selects the AWS endpoint of the region."
    )
    region: str = Field(
        default="us-east-1", description="Region of the buckets; most self-hosted servers accept the default."
    )
    access_key_id: SecretStr | None = Field(default=None, description="Access key, set together with the secret key.")
    secret_access_key: SecretStr | None = Field(
        default=None, description="Secret key, set together with the access key."
    )
    session_token: SecretStr | None = Field(
        default=None, description="Session token of temporary credentials; empty for permanent ones."
    )
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        default="auto", description="How URLs name the bucket; most self-hosted servers need path."
    )
    ca_file: Path | None = Field(
        default=None, description="CA certificates (PEM) for an https:// endpoint; empty selects those of botocore."
    )
    connect_timeout_seconds: float = Field(
        default=5.0, gt=0, description="Seconds to wait for a connection before the next attempt."
    )
    read_timeout_seconds: float = Field(
        default=60.0,
        gt=0,
        description=(
            "Seconds to wait for more data of a response before the next attempt. The body of an object may take so "
            "long in all, and a second more for every 32 KiB."
        ),
    )
    attempts: int = Field(
        default=5, ge=1, description="Attempts per request, the first included, with increasing pauses between them."
    )

    @property
    def longest_request_seconds(self) -> float:
        """Longest time from a request to its answer in seconds, all attempts and the pauses between them included.

        A pause lasts at most 1, 2, 4, ... 20 s (mode `standard` of botocore). The body of an object may then take
        `read_timeout_seconds` and a second for every 32 KiB.
        """
        pauses = sum(min(_LONGEST_PAUSE, 2.0**number) for number in range(min(self.attempts - 1, _ATTEMPTS_SUMMED)))
        pauses += _LONGEST_PAUSE * max(0, self.attempts - 1 - _ATTEMPTS_SUMMED)
        return self.attempts * (self.connect_timeout_seconds + self.read_timeout_seconds) + pauses

    allow: tuple[str, ...] = Field(
        default=(),
        description=(
            'Buckets and prefixes that may be accessed, such as ["bucket", "bucket/prefix/"]; empty allows all.'
        ),
    )


class ModelSettings(_Group):
    """The network to run."""

    source: str = Field(
        default="default",
        description=(
            "The network: a name that `worker model list --known` shows, builtin:NAME, or a bundle in a folder, "
            "s3://bucket/prefix or hf://owner/name[@revision]. `default` is u2netp if it was fetched to this machine, "
            "else builtin:starter."
        ),
    )
    name: str | None = Field(
        default=None, description="Name of the model, required only if the source holds more than one."
    )
    size: InputSize | None = Field(
        default=None,
        description=(
            "Input size of the network in pixels, HEIGHTxWIDTH or one number for a square, multiples of 32; empty "
            "selects the largest in the source."
        ),
    )
    precision: Precision = Field(
        default="auto",
        description="Variant on disk; auto selects the best for this CPU and its memory, as `worker plan` shows.",
    )
    inference_precision: InferencePrecision = Field(
        default="auto",
        description="Arithmetic of the floating-point part; auto selects bf16 on CPUs that have it, else f32.",
    )
    kernels: NativeKernels = Field(
        default="auto",
        description=(
            "Native operations that may run: auto, off, or one alone. auto uses all that are built and that this CPU "
            "supports."
        ),
    )

    @field_validator("size")
    @classmethod
    def _size_suits_networks(cls, size: InputSize | None) -> InputSize | None:
        if size is not None and not size.is_multiple_of(32):
            raise ValueError(f"{size} is not a size of a network: height and width must be multiples of 32")
        return size

    cache_dir: Path = Field(
        default_factory=lambda: local_services.cache_home() / "maskmill",
        description="Folder for downloaded bundles, compiled models and the results of `worker tune`.",
    )


class PlanSettings(_Group):
    """How a node is divided. Empty values are computed; `worker plan` shows them with the reasons."""

    processes: int | None = Field(default=None, ge=1, description="Worker processes on this node; empty: computed.")
    streams: int | None = Field(
        default=None, ge=1, description="Inference streams of each worker process; empty: computed."
    )
    threads: int | None = Field(
        default=None, ge=1, description="Inference threads of each worker process, over all streams; empty: computed."
    )
    memory_per_stream_mib: int | None = Field(
        default=None,
        ge=1,
        description="Peak memory of an inference stream in MiB; empty: as measured for the size and precision.",
    )
    memory_per_process_mib: int | None = Field(
        default=None,
        ge=1,
        description="Peak memory of a process without its streams in MiB; empty: as measured for size and precision.",
    )


class WorkerSettings(_Group):
    """The processes of a worker node."""

    grace_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Seconds between SIGTERM and SIGKILL on shutdown, in which images in flight are finished.",
    )
    stagger_seconds: float = Field(
        default=0.2, ge=0, description="Seconds between the starts of two processes of the node."
    )
    restart_limit: int = Field(
        default=5, ge=1, description="Starts of one process within ten minutes after which the node gives up."
    )
    images_ahead: int = Field(
        default=2,
        ge=1,
        le=16,
        description="Images in flight beyond streams + 1, to hide the latency of S3 and decoding; each needs memory.",
    )
    image_time_limit_seconds: float = Field(
        default=300.0, ge=1, description="Seconds without a finished image after which a model process is killed."
    )
    max_memory_mib: int | None = Field(
        default=None,
        ge=64,
        description="Resident memory in MiB above which a model process is replaced between chunks; empty: no limit.",
    )
    node_name: str = Field(
        default_factory=socket.gethostname,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="Name of this node, unique to each `worker start` of the fleet; empty selects the host name.",
    )
    process_name: str = Field(default="worker", description="Process name in logs; set by the supervisor.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Lowest level of maskmill's own log lines to print."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Format of log lines: text with key=value pairs, or one JSON object per line."
    )


class LimitSettings(_Group):
    """Limits for images, which are untrusted input. Larger ones fail with the code `too_large`."""

    max_object_mib: int = Field(default=64, ge=1, description="Largest input object in MiB, checked before download.")
    max_megapixels: int = Field(default=100, ge=1, description="Largest image in megapixels, checked before decoding.")
    picture_memory_mib: int | None = Field(
        default=None,
        ge=16,
        description=(
            "Memory in MiB for all images in flight in one worker process; an image that needs more by itself is "
            "refused, others wait. Empty: what `worker plan` leaves beside the network."
        ),
    )


class JobSettings(_Group):
    """Jobs: defaults of `producer submit`, and how long Redis keeps job records."""

    chunk_images: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Images per message; empty selects about 25 s of work at the measured speed.",
    )
    result_minutes: int = Field(
        default=15,
        ge=1,
        description="Minutes that Celery keeps a chunk's result; later, the job record answers for the chunk.",
    )
    keep_days: int = Field(default=30, ge=1, description="Days that Redis keeps the record of an ended job.")
    tenants: tuple[str, ...] = Field(
        default=(),
        description=(
            'Prefixes of destinations, such as ["bucket/team-a/", "bucket/team-b/"]: the workers are shared equally '
            "between those with work, and then between the jobs of each. Jobs outside of them are shared by bucket."
        ),
    )
    price_per_core_hour: float | None = Field(
        default=None,
        ge=0,
        description=(
            "Price of one core for one hour, for the costs in the dry run, `producer status`, the job summary "
            "(manifest.json) and the report; empty: no costs."
        ),
    )
    currency: str = Field(
        default="",
        max_length=8,
        pattern=r"^[^\s\d]*$",
        description="Currency of the price, such as EUR, which is shown with every cost.",
    )


class QueueTimingSettings(_Group):
    """Queue timings: how soon lost work is noticed. Use the same values on every node and for the producer."""

    lease_seconds: int = Field(
        default=120,
        ge=2,
        description=(
            "Seconds without renewal after which the broker delivers a message again; workers renew four times in "
            "this time."
        ),
    )
    silence_seconds: float = Field(
        default=60.0,
        ge=1,
        description="Seconds without a sign of life after which a chunk that has no message in the broker is lost.",
    )
    reconcile_seconds: float = Field(default=15.0, gt=0, description="Seconds between two scans for lost chunks.")
    leader_seconds: float = Field(
        default=15.0,
        ge=1,
        description=(
            "Seconds after which another node takes over the role of a dead leader, which renews it five times in "
            "this time."
        ),
    )
    feed_seconds: float = Field(
        default=0.5,
        gt=0,
        description="Seconds between two checks of the queue by the leader, up to 4 times as many while it is full.",
    )


class MetricsSettings(_Group):
    """Prometheus metrics and health probes of a node, served by its steward."""

    port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of /metrics, /healthz and /readyz; empty: not served."
    )
    address: str = Field(
        default="127.0.0.1", description="Address to listen on; only this host by default, 0.0.0.0 in a container."
    )


class NotifySettings(_Group):
    """Notifications of ended jobs, sent to the address given with `--notify`."""

    secret: SecretStr | None = Field(
        default=None, description="Secret that signs notifications: base64 of 24 to 64 random bytes."
    )
    allow_http: bool = Field(
        default=False,
        description="Whether http:// addresses are allowed; others on the network can read their content.",
    )
    attempts: int = Field(
        default=6, ge=1, le=20, description="Attempts per notification, with increasing pauses between them."
    )
    timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Seconds that one attempt may take in all, however slowly bytes arrive.",
    )
    ca_file: Path | None = Field(
        default=None, description="CA certificate (PEM) for https:// addresses; empty selects those of the system."
    )

    @field_validator("secret")
    @classmethod
    def _is_a_key(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and not _KEY_BYTES[0] <= len(_decoded(secret)) <= _KEY_BYTES[1]:
            raise ValueError("must be 24 to 64 random bytes in base64, as `openssl rand -base64 32` prints them")
        return secret

    def key(self) -> bytes | None:
        """Return the key that signs notifications, or None without a secret. Never print it."""
        return None if self.secret is None else _decoded(self.secret)


def _decoded(secret: SecretStr) -> bytes:
    """Return the bytes of a secret in base64, with or without the prefix `whsec_` of Standard Webhooks.

    Text that is not base64 gives no bytes.
    """
    try:
        return base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
    except ValueError:
        return b""


class Settings(BaseSettings):
    """The tree of all settings."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",  # for MASKMILL_CONFIG, MASKMILL_SECRETS_DIR and .env; see `_refuse_unknown_names`
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
    engine: QueueTimingSettings = QueueTimingSettings()
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
        """Return the sources in the order of the module docstring."""
        return init_settings, *(source for _, source in _sources())


def _written_sources() -> list[tuple[str, PydanticBaseSettingsSource]]:
    """Return the sources that people write, with the names that `explain` shows."""
    config, secrets = os.environ.get(f"{ENV_PREFIX}CONFIG"), os.environ.get(f"{ENV_PREFIX}SECRETS_DIR")
    for name, path in (("CONFIG", config), ("SECRETS_DIR", secrets)):
        if path and not Path(path).exists():
            raise SettingsError(f"{ENV_PREFIX}{name} is {path}, which does not exist: correct or unset it")
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


def names_services() -> bool:
    """Return whether the environment, `.env` or a file names a Redis or an S3 server, or credentials for one.

    Raises:
        SettingsError: a source cannot be read.
    """
    try:
        trees = [source() for _, source in _written_sources()]
    except ValueError as error:
        raise _unreadable(error) from error
    return any(name in (tree.get(group) or {}) for tree in trees for group, name in _SERVICE_FIELDS)


def _sources() -> list[tuple[str, PydanticBaseSettingsSource]]:
    """Return every source with the name that `explain` shows. The first that has a value wins."""
    sources = _written_sources()
    running = local_services.running_here()
    if running is not None and not names_services():
        sources.append((f"maskmill {running.command}", InitSettingsSource(Settings, dict(running.settings))))
    return sources


def load(**overrides: Any) -> Settings:
    """Load the settings from all sources. `overrides` (whole groups) take precedence over every source.

    Raises:
        SettingsError: a setting is invalid or unknown. The text names every such variable, never its value.
    """
    try:
        _refuse_unknown_names()
        return Settings(**overrides)
    except ValidationError as error:
        lines = [f"  {_invalid(e)}" for e in error.errors()]
        raise SettingsError("invalid settings:\n" + "\n".join(lines)) from error
    except ValueError as error:  # a source cannot be parsed: invalid TOML, or a list that is not JSON
        raise _unreadable(error) from error


def _unreadable(error: ValueError) -> SettingsError:
    return SettingsError(f'settings cannot be read: {error}; write lists as JSON: ["a", "b"]')


def _invalid(error: Any) -> str:
    """Return the variable of an invalid setting, and why it is invalid."""
    name = f"{ENV_PREFIX}{'__'.join(str(part) for part in error['loc']).upper()}"
    if error["type"] == "extra_forbidden":
        return f"{name}: no such setting{did_you_mean(name, _all_variables())}"
    return f"{name}: {error['msg']}"


def _all_variables() -> list[str]:
    """Return the variable of every setting."""
    groups = {name: field.annotation for name, field in Settings.model_fields.items()}
    return [
        f"{ENV_PREFIX}{group}__{name}".upper()
        for group, kind in groups.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for name in kind.model_fields
    ]


def _refuse_unknown_names() -> None:
    """Refuse names with our prefix, or nearly our prefix, that are no settings: a typo must not be ignored silently.

    The fields of a group are checked by its model. Names are compared without case, as they are read.
    """
    unknown: list[str] = []
    for origin, source in _sources():
        place = "" if origin == "environment" else f" in {origin}"
        if isinstance(source, TomlConfigSettingsSource):
            groups = [name for name in source.toml_data if name not in Settings.model_fields]
            unknown += [f"[{name}]{place}{did_you_mean(name, Settings.model_fields)}" for name in groups]
        elif isinstance(source, EnvSettingsSource):
            names = sorted(name.upper() for name in source.env_vars if _is_typo(name.upper()))
            unknown += [f"{name}{place}{did_you_mean(name, _all_variables())}" for name in names]
    if unknown:
        raise SettingsError(f"no such setting: {', '.join(unknown)}; `worker config` lists all settings")


def _is_typo(name: str) -> bool:
    """Return whether a variable is meant as a setting, by its beginning, and names no group of settings."""
    if not name.startswith(ENV_PREFIX):
        return "__" in name and bool(did_you_mean(name.partition("_")[0], [ENV_PREFIX.rstrip("_")], similarity=0.8))
    is_group = name.removeprefix(ENV_PREFIX).partition("__")[0].lower() in Settings.model_fields
    return name not in (f"{ENV_PREFIX}CONFIG", f"{ENV_PREFIX}SECRETS_DIR") and not is_group


@dataclass(frozen=True)
class EffectiveSetting:
    """A setting with its effective value and the source of it."""

    variable: str
    value: str
    origin: str
    description: str


def explain(settings: Settings) -> Iterator[EffectiveSetting]:
    """Yield every setting with its effective value and source. Secrets are shown as stars."""
    sources = [(name, source()) for name, source in _sources()]
    for group_name in Settings.model_fields:
        group: _Group = getattr(settings, group_name)
        for name, field in type(group).model_fields.items():
            origin = next((o for o, tree in sources if name in (tree.get(group_name) or {})), "default")
            yield EffectiveSetting(
                variable=f"{ENV_PREFIX}{group_name}__{name}".upper(),
                value=_shown(getattr(group, name)),
                origin=origin,
                description=field.description or "",
            )


def _shown(value: Any) -> str:
    """Return a value as it is typed in a source. `SecretStr` masks itself."""
    if value is None or value == ():
        return ""
    if isinstance(value, InputSize):
        return value.short
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
