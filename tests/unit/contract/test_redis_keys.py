from __future__ import annotations

import pytest

from worker.contract import redis_keys
from worker.contract.errors import JobNotFound, SettingsError


def test_names_of_users_that_are_not_text_are_refused():
    """A shell passes bytes that are not UTF-8 as lone surrogates."""
    with pytest.raises(JobNotFound, match="not valid Unicode text"):
        redis_keys.job_keys("p", "\udcff")
    with pytest.raises(SettingsError, match=r"--job-key .* is not valid Unicode text"):
        redis_keys.job_key("p", "\udcff")

    assert redis_keys.job("p:", "ü") == "p:job:{ü}"
