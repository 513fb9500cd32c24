"""The metadata of every output, which says from what it was made and thus whether it is up to date.

A source is recognised by its ETag. Where the server sends none, by its size and the time of its last change together;
where it sends neither ETag nor time, it is never recognised, and its outputs are made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

SOURCE_ETAG = "maskmill-source-etag"
SOURCE_SIZE = "maskmill-source-size"
SOURCE_MODIFIED = "maskmill-source-modified"
"""Whole Unix seconds: a listing has milliseconds, an answer to GET or HEAD has seconds."""

MODEL = "maskmill-model"
OPTIONS = "maskmill-options"
JOB = "maskmill-job"


def same_model_and_options(metadata: Mapping[str, str], expected: Mapping[str, str]) -> bool:
    """Return whether the model and options digests in an output's metadata equal the expected ones.

    A digest that `expected` does not contain is not compared.
    """
    return all(metadata.get(name) == expected[name] for name in (MODEL, OPTIONS) if name in expected)


def source_facts(*, etag: str, size: int | None, modified: float | None) -> dict[str, str]:
    """Return the metadata that describes the source of an output, as far as its server describes it."""
    facts = {SOURCE_ETAG: etag, SOURCE_SIZE: size, SOURCE_MODIFIED: None if modified is None else int(modified)}
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def same_source(metadata: Mapping[str, str], source: Mapping[str, str], content_etag: Callable[[], str]) -> bool:
    """Return whether an output was made from a source.

    Args:
        metadata: of the output.
        source: facts of the source now, as HEAD or a listing gives them (`source_facts`).
        content_etag: asks for the ETag that GET gives. Called only if size and time are the same and the ETags are not:
            some servers and gateways give HEAD another ETag than GET, from which the metadata was made.
    """
    made, now = metadata.get(SOURCE_ETAG), source.get(SOURCE_ETAG)
    if made and made == now:
        return True
    if any(metadata.get(name) != source.get(name) or name not in source for name in (SOURCE_SIZE, SOURCE_MODIFIED)):
        return False
    return made == (now and content_etag())
