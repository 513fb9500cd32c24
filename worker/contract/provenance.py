"""What every output carries in its metadata: what it was made of. So that it can be told whether it is up to date."""

from __future__ import annotations

from collections.abc import Mapping

SOURCE_ETAG = "maskmill-source-etag"
MODEL = "maskmill-model"
OPTIONS = "maskmill-options"
JOB = "maskmill-job"


def made_alike(metadata: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether an output was made by the same model with the same options; what is not in `wanted` does not matter."""
    return all(metadata.get(name) == wanted[name] for name in (MODEL, OPTIONS) if name in wanted)
