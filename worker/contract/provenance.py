"""The metadata of every output, which says from what it was made and thus whether it is up to date."""

from __future__ import annotations

from collections.abc import Mapping

SOURCE_ETAG = "maskmill-source-etag"
MODEL = "maskmill-model"
OPTIONS = "maskmill-options"
JOB = "maskmill-job"


def same_model_and_options(metadata: Mapping[str, str], expected: Mapping[str, str]) -> bool:
    """Return whether the model and options digests in an output's metadata equal the expected ones.

    A digest that `expected` does not contain is not compared.
    """
    return all(metadata.get(name) == expected[name] for name in (MODEL, OPTIONS) if name in expected)
