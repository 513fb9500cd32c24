"""The error of an integration without its package names the package to install."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(("module", "name"), [("airflow", "Apache Airflow"), ("dagster", "Dagster")])
def test_a_missing_package_is_named_with_its_extra(module, name, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"producer.integrations.{module}", raising=False)

    with pytest.raises(ImportError, match=rf"needs {name}.*: pip install 'maskmill\[{module}\]'"):
        importlib.import_module(f"producer.integrations.{module}")
