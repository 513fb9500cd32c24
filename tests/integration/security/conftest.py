"""Fixture: one secured Redis for all tests in this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.redis_users import SecuredRedis, secured_redis


@pytest.fixture(scope="package")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRedis]:
    with secured_redis(tmp_path_factory.mktemp("secured")) as server:
        yield server
