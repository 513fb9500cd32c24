from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from worker.contract.errors import BadMessage, ContractError
from worker.contract.job import JobView
from worker.contract.messages import ChunkMessage, JobOptions, MaskQuality, Outcome, OutputKind
from worker.contract.s3url import S3Url


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
        message(schema_version=0),
        message(schema_version=True),
        message(schema_version="1"),
        {k: v for k, v in message().items() if k != "schema_version"},
        message(keys=[]),
        message(keys=["k"] * 257),
        message(keys=[7]),
        message(chunk=-1),
        message(job="../etc"),
        message(job="x" * 65),
    ],
)
def test_anything_but_a_chunk_message_is_refused(payload):
    with pytest.raises(BadMessage):
        ChunkMessage.read(payload)


@pytest.mark.parametrize("key", ["", "k" * 1025])
def test_a_key_that_s3_does_not_allow_does_not_hold_up_its_neighbours(key):
    """The pipeline fails this image alone."""
    assert ChunkMessage.read(message(keys=["a.jpg", key])).keys == ("a.jpg", key)


def test_a_later_release_reads_messages_queued_before(monkeypatch):
    monkeypatch.setattr(ChunkMessage, "SCHEMA", 2)

    assert [ChunkMessage.read(message(schema_version=version)).chunk for version in (1, 2)] == [3, 3]


def test_a_refusal_names_the_field_but_not_its_content():
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


def test_the_digest_depends_only_on_the_outputs():
    mask = JobOptions(source="s3://a/", dest="s3://b/")
    elsewhere = JobOptions(source="s3://c/", dest="s3://d/")
    both = JobOptions(source="s3://a/", dest="s3://b/", outputs=(OutputKind.MASK, OutputKind.CUTOUT))

    assert mask.digest() == elsewhere.digest() != both.digest()


PLAIN_JSON = (
    '{"outputs":["mask"],"format":"png","mask_format":null,"quality":90,"background":"#ffffff","background_etag":"",'
    '"exif":"strip","crop":false,"crop_margin":"0px","threshold":null,"refine":false,"max_side":null,"name":"",'
    '"source":"s3://in/photos/","dest":"s3://out/masks/"}'
)
RICH_JSON = (
    '{"outputs":["cutout","composite"],"format":"webp","mask_format":null,"quality":90,'
    '"background":"s3://bg/studio.jpg","background_etag":"e1","exif":"strip","crop":true,"crop_margin":"0px",'
    '"threshold":null,"refine":false,"max_side":null,"name":"{dir}/{stem}-{kind}.{ext}",'
    '"source":"s3://b/","dest":"s3://out/a b/ü#%+/"}'
)


@pytest.mark.parametrize(("text", "digest"), [(PLAIN_JSON, "c9c1dab929154874"), (RICH_JSON, "42d7d7f95d40dd31")])
def test_the_json_and_the_digest_of_options_do_not_change(text, digest):
    """Both are in Redis, in S3 and in the metadata of outputs: a change would redo every image of every bucket."""
    options = JobOptions.model_validate_json(text)

    assert options.model_dump_json() == text
    assert options.digest() == digest
    assert JobOptions.model_validate(options.model_dump()) == JobOptions.model_validate(json.loads(text)) == options
    record = {"job": "j", "status": "listing", "created_at": "0", "options": text}
    assert JobView.read(record, "j").options == options


def test_source_and_destination_are_parsed_once_as_folders():
    options = JobOptions(source="s3://in/photos", dest=S3Url("out"))

    assert (options.source, options.dest) == (S3Url("in", "photos/"), S3Url("out"))
    assert json.loads(options.model_dump_json(include={"source", "dest"})) == {
        "source": "s3://in/photos/",
        "dest": "s3://out/",
    }


@pytest.mark.parametrize("place", ["photos/", "http://in/photos/", 7])
def test_a_source_outside_s3_is_refused_with_its_field(place):
    with pytest.raises(ValidationError, match="source"):
        JobOptions(source=place, dest="s3://out/")
    record = {"job": "j", "status": "running", "created_at": "0"}
    with pytest.raises(ContractError, match="source"):
        JobView.read(record | {"options": json.dumps({"source": place, "dest": "s3://out/"})}, "j")


def test_options_of_a_newer_producer_are_read():
    wire = JobOptions(source="s3://a/", dest="s3://b/").model_dump() | {"sharpen": 3}

    assert JobOptions.model_validate(wire) == JobOptions(source="s3://a/", dest="s3://b/")


def test_options_of_an_older_producer_get_the_defaults():
    old = {"source": "s3://a/", "dest": "s3://b/", "outputs": ["mask", "cutout"]}

    assert JobOptions.model_validate(old).template == "{kind}/{dir}/{stem}.{ext}"


@pytest.mark.parametrize(
    ("change", "flags", "review"),
    [
        ({}, (), False),
        ({"touches_border": True}, ("border",), False),
        ({"empty": True, "coverage": 0.0}, ("empty",), True),
        ({"full": True, "touches_border": True}, ("full", "border"), True),
        ({"soft": 0.8}, ("soft",), True),
    ],
)
def test_a_mask_that_needs_review_is_flagged(change, flags, review):
    plain = {"coverage": 0.3, "soft": 0.1, "empty": False, "full": False, "touches_border": False}
    quality = MaskQuality(**plain | change)

    assert (quality.flags, quality.needs_review) == (flags, review)


def test_an_outcome_without_quality_is_read():
    outcome = Outcome.model_validate({"index": 0, "key": "a", "kind": "ok"})

    assert outcome.quality is None
