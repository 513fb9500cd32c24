"""A place of its own for each test within the services that all tests share."""

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
class Place:
    """Settings with a Redis key prefix and a bucket that nobody else uses."""

    environment: dict[str, str]
    settings: Settings
    bucket: str


def fresh_place(standalone: Standalone) -> Place:
    """A new prefix and a new, empty bucket."""
    name = f"t{secrets.token_hex(4)}"
    environment = standalone.environment() | {"MASKMILL_REDIS__PREFIX": f"{name}:"} | MODEL
    with mock.patch.dict(os.environ, environment):
        loaded = settings.load()
    return Place(environment, loaded, name)


def make_bucket(place: Place) -> None:
    """Create the place's bucket; Redis tests do without."""
    with ObjectStore(place.settings.s3) as store:
        store.ensure_bucket(place.bucket)
