"""Licences of the locked distributions. `make licences` prints them; `make audit` checks for known vulnerabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.licences import CHOSEN, PROGRAMS, allowed, locked, may_be_used, report

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("lock", ["requirements.lock", "dev.lock"])
def test_every_locked_distribution_has_an_allowed_licence(lock):
    found = list(report(ROOT / lock))

    assert len(found) > 40
    assert [(name, terms) for name, _, terms in found if not may_be_used(name, terms)] == []


def test_programs_of_tests_are_not_installed_with_the_product():
    assert not (PROGRAMS | CHOSEN) & set(locked(ROOT / "requirements.lock"))


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ("MIT", True),
        ("Apache-2.0 AND BSD-2-Clause", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("", False),
    ],
)
def test_licence_expressions(terms, expected):
    assert allowed(terms) is expected
