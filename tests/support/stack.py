"""A installation of its own for each test within the services that all tests share."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from unittest import mock

from worker.contract import settings
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone

MODEL = {"MASKMILL_MODEL__SOURCE": "builtin:contrast"}
"""Its masks of drawn pictures are exact, and the same everywhere; the default model is a trained one."""


@dataclass(frozen=True)
class Installation:
    """Settings with a Redis key prefix and a bucket that nobody else uses."""

    environment: dict[str, str]
    settings: Settings
    bucket: str


def new_installation(standalone: Standalone) -> Installation:
    """A new prefix and a new, empty bucket."""
    name = f"t{secrets.token_hex(4)}"
    environment = standalone.environment() | {"MASKMILL_REDIS__PREFIX": f"{name}:"} | MODEL
    with mock.patch.dict(os.environ, environment):
        loaded = settings.load()
    return Installation(environment, loaded, name)


def make_bucket(installation: Installation) -> None:
    """Create the installation's bucket; Redis tests do without."""
    with ObjectStore(installation.settings.s3) as store:
        store.ensure_bucket(installation.bucket)
