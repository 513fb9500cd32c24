"""An installation for each test: its own Redis key prefix and bucket within the services that all tests share."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from unittest import mock

from worker.contract import settings
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone

MODEL = {"MASKMILL_MODEL__SOURCE": "builtin:contrast"}
"""Its masks of drawn pictures are exact and the same on every machine; the default model is a trained one."""


@dataclass(frozen=True)
class Installation:
    """Settings with a Redis key prefix and a bucket that no other test uses."""

    environment: dict[str, str]
    settings: Settings
    bucket: str

    def with_settings(self, changes: Mapping[str, str]) -> Installation:
        """Return the same installation with more or other settings."""
        environment = self.environment | dict(changes)
        return Installation(environment, load_settings(environment), self.bucket)


def new_installation(standalone: Standalone) -> Installation:
    """Return an installation with a new prefix and a new bucket name; `make_bucket` creates the bucket."""
    name = f"t{secrets.token_hex(4)}"
    environment = standalone.environment() | {"MASKMILL_REDIS__PREFIX": f"{name}:"} | MODEL
    return Installation(environment, load_settings(environment), name)


def make_bucket(installation: Installation) -> None:
    """Create the bucket of an installation. Tests that use only Redis do not need it."""
    with ObjectStore(installation.settings.s3) as store:
        store.ensure_bucket(installation.bucket)


def load_settings(environment: Mapping[str, str]) -> Settings:
    """Return the settings that a process with these variables loads."""
    with mock.patch.dict(os.environ, environment):
        return settings.load()
