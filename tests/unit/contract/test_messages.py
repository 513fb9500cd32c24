from __future__ import annotations

import pytest

from worker.contract.errors import BadMessage
from worker.contract.messages import ChunkMessage, JobOptions, OutputKind


def message(**changes):
    return {"schema_version": 1, "job": "j-1", "chunk": 3, "start": 48, "keys": ["a/b.jpg"], **changes}


def test_a_message_survives_the_wire():
    sent = ChunkMessage(job="j-1", chunk=3, start=48, keys=("a/b.jpg", "naïve #1 100%.jpg"))

    assert ChunkMessage.read(sent.model_dump(mode="json")) == sent


def test_unknown_fields_of_a_newer_producer_are_ignored():
    assert ChunkMessage.read(message(colour="red")).chunk == 3


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "text",
        message(schema_version=2),
        {k: v for k, v in message().items() if k != "schema_version"},
        message(keys=[]),
        message(keys=["k"] * 65),
        message(keys=["k" * 1025]),
        message(keys=[""]),
        message(keys=[7]),
        message(chunk=-1),
        message(job="../etc"),
        message(job="x" * 65),
    ],
)
def test_what_is_no_chunk_message_is_refused(payload):
    with pytest.raises(BadMessage):
        ChunkMessage.read(payload)


def test_a_refusal_names_the_field_and_not_the_content():
    with pytest.raises(BadMessage, match="chunk") as caught:
        ChunkMessage.read(message(chunk="secret-content"))

    assert "secret-content" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a.jpg", "a.png"),
        ("x/y/a.b.JPG", "x/y/a.b.png"),
        ("x.y/noext", "x.y/noext.png"),
        (".hidden", ".hidden.png"),
        ("a//b.jpg", "a//b.png"),
        ("./a.jpg", "./a.png"),
    ],
)
def test_outputs_keep_the_tree(key, expected):
    one = JobOptions(source="s3://a/", dest="s3://b/")
    both = JobOptions(source="s3://a/", dest="s3://b/", outputs=(OutputKind.MASK, OutputKind.CUTOUT))

    assert one.output_key(key, OutputKind.MASK) == expected
    assert both.output_key(key, OutputKind.CUTOUT) == f"cutout/{expected}"


def test_the_digest_depends_on_what_is_written_only():
    mask = JobOptions(source="s3://a/", dest="s3://b/")
    elsewhere = JobOptions(source="s3://c/", dest="s3://d/")
    both = JobOptions(source="s3://a/", dest="s3://b/", outputs=(OutputKind.MASK, OutputKind.CUTOUT))

    assert mask.digest() == elsewhere.digest() != both.digest()
