from __future__ import annotations

import pytest
from pydantic import BaseModel, ValidationError

from worker.contract.errors import SourceError
from worker.contract.s3url import S3Url


@pytest.mark.parametrize(
    "text",
    ["", "photos", "/photos", "bucket/key", "s3:/b/k", "s3:/x", "s3://", "s3:///k", "http://b/k", "http://x/y"],
)
def test_text_that_is_no_s3_url_is_refused(text):
    with pytest.raises(SourceError, match="s3://bucket/prefix/"):
        S3Url.parse(text)


def test_a_url_that_is_not_text_is_refused():
    with pytest.raises(SourceError, match="not valid Unicode text"):
        S3Url.parse("s3://b/\udcff.jpg")


@pytest.mark.parametrize(
    ("text", "key", "folder"),
    [
        ("s3://b", "", ""),
        ("s3://b/", "", ""),
        ("s3://b/k", "k", "k/"),
        ("s3://b/k/", "k/", "k/"),
        ("s3://b//k", "/k", "/k/"),
    ],
)
def test_urls_are_read_and_written(text, key, folder):
    url = S3Url.parse(text)

    assert (url.bucket, url.key) == ("b", key)
    assert S3Url.parse(str(url)) == url
    assert S3Url.folder(text).key == url.as_folder().key == folder
    assert str(S3Url("b", "in/") / "../a b") == "s3://b/in/../a b"


class Record(BaseModel):
    place: S3Url


def test_a_model_reads_and_writes_the_text():
    url = S3Url("b", "a b/ü#%+.jpg")

    for record in (Record(place=url), Record.model_validate({"place": str(url)})):
        assert record.place == url
        assert record.model_dump() == record.model_dump(mode="json") == {"place": str(url)}
        assert record.model_dump_json() == '{"place":"s3://b/a b/ü#%+.jpg"}'
        assert Record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("value", ["secret", "s3://", 7, None, {"bucket": "b", "key": "k"}])
def test_a_model_refuses_anything_else_and_names_the_field(value):
    with pytest.raises(ValidationError, match=r"place\n.*write s3://bucket/prefix/"):
        Record(place=value)
