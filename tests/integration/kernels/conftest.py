from __future__ import annotations

import pytest

from support import kernels


@pytest.fixture(scope="session")
def library() -> None:
    kernels.need_library()
