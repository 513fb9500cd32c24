"""Arguments of the Python API: one text is one item, a value of a wrong type is refused and named."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from producer.client import Client
from producer.integrations import orchestrator
from producer.integrations.s3_events import submit_created
from producer.sources.filters import Filters, choose
from producer.sources.item import Item
from producer.sources.list_formats import ListFormat
from producer.sources.resolve import SourceSpec
from producer.sources.units import SampleSize, texts
from worker.contract.errors import SettingsError, SourceError
from worker.contract.s3url import S3Url

CLIENT = Client.__new__(Client)
"""A client without connections: its arguments are checked before they are needed."""


def test_one_text_is_one_item():
    assert texts("keys", "a.jpg") == texts("keys", ["a.jpg"]) == texts("keys", Path("a.jpg")) == ("a.jpg",)
    assert texts("keys", (name for name in "ab")) == ("a", "b")
    filters = Filters(include="*.jpg", exclude=["old/*"])
    assert (filters.include, filters.exclude) == (("*.jpg",), ("old/*",))
    assert SourceSpec("s3://b/p/").places == ("s3://b/p/",)
    assert SourceSpec([Path("a.jpg"), "b.jpg"]).places == ("a.jpg", "b.jpg")


def test_filters_read_texts_as_the_options_do():
    filters = Filters(min_size="10k", max_size=10, newer_than="2026-01-31", sample="1%")

    assert (filters.min_size, filters.max_size, filters.sample) == (10240, 10, SampleSize(share=0.01))
    assert filters.newer_than == datetime(2026, 1, 31, tzinfo=UTC).timestamp()
    assert Filters(newer_than=datetime(2026, 1, 31, tzinfo=UTC)) == Filters(newer_than="2026-01-31")
    assert Filters(sample=500).sample == Filters(sample="500").sample == SampleSize(count=500)
    assert SourceSpec("s3://b/", Path("keys"), "csv").manifest_format is ListFormat.CSV


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Filters(include=3), "include takes texts, not 3"),
        (lambda: Filters(exclude=["*.jpg", None]), "exclude takes texts, not None"),
        (lambda: Filters(min_size=b"10"), "min_size takes a number of bytes, or a text such as 10k, not b'10'"),
        (lambda: Filters(max_size="many"), "'many' is not a size"),
        (lambda: Filters(newer_than=True), "newer_than takes Unix seconds, a date, or an age such as 7d"),
        (lambda: Filters(sample=0), "a sample of 0 is out of range"),
        (lambda: Filters(sample=0.5), "sample takes a number of images, or a share such as 1%"),
        (lambda: Filters(min_size=-1), "min_size takes a number of bytes"),
        (lambda: Filters(max_size="9" * 400), "a size of 9+... is out of range"),
        (lambda: Filters(newer_than=float("nan")), "newer_than takes Unix seconds"),
        (lambda: Filters(newer_than=float("inf")), "newer_than takes Unix seconds"),
        (lambda: Filters(newer_than="9" * 400 + "d"), "an age of 9+... is out of range"),
        (lambda: Filters(sample=SampleSize(share=float("nan"))), "a sample of nan% is out of range"),
        (lambda: Filters(sample=SampleSize(count=-5)), "a sample of -5 is out of range"),
        (lambda: Filters(seed=float("nan")), "seed takes a whole number, not nan"),
        (lambda: CLIENT.wait("j", timeout=float("nan")), "timeout takes a finite number from 0, not nan"),
        (lambda: CLIENT.wait("j", timeout=float("inf")), "timeout takes a finite number from 0, not inf"),
        (lambda: CLIENT.wait("j", timeout=-1), "timeout takes a finite number from 0, not -1"),
        (lambda: CLIENT.wait("j", timeout="60"), "timeout takes a finite number from 0, not '60'"),
        (lambda: CLIENT.wait("j", poll_seconds=0), r"poll_seconds takes a finite number from 0\.01, not 0"),
        (lambda: CLIENT.wait("j", poll_seconds=float("nan")), "poll_seconds takes a finite number"),
        (lambda: CLIENT.jobs(0), "limit takes a whole number from 1 to 1,000,000, not 0"),
        (lambda: CLIENT.jobs(True), "limit takes a whole number from 1 to 1,000,000, not True"),
        (lambda: CLIENT.jobs(2.5), "limit takes a whole number from 1 to 1,000,000, not 2.5"),
        (lambda: CLIENT.jobs(10**30), "limit takes a whole number from 1 to 1,000,000"),
        (lambda: Filters(limit=0), "limit takes a number of images from 1"),
        (lambda: Filters(limit="3"), "limit takes a number of images from 1"),
        (lambda: SourceSpec(3), "the source takes texts, not 3"),
        (lambda: SourceSpec("s3://b/", filters={"limit": 3}), r"filters takes Filters\(...\), not {'limit': 3}"),
        (lambda: SourceSpec("s3://b/", "keys", "cvs"), "manifest_format 'cvs' is not one of txt, csv, jsonl"),
        (lambda: orchestrator.output_options("cutout"), "outputs takes a mapping of fields.*not 'cutout'"),
        (lambda: orchestrator.job_policy(["high"]), "policy takes a mapping of fields"),
        (lambda: CLIENT.results("j", kinds="faild"), "'faild' is not a valid OutcomeKind; known outcomes: ok, skipped"),
        (lambda: CLIENT.plan("s3://b/", "s3://c/", outputs={"format": "webp"}), r"outputs takes OutputOptions\(...\)"),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_argument(call, message, monkeypatch):
    monkeypatch.setattr(CLIENT, "_store", None, raising=False)
    monkeypatch.setattr(CLIENT, "_ledger", type("Any", (), {"view": lambda self, job: None})(), raising=False)

    with pytest.raises(SettingsError, match=message):
        call()


def test_a_limit_may_be_larger_than_any_listing():
    assert [item.key for item in choose([Item("a.jpg")], Filters(limit=10**30), Counter())] == ["a.jpg"]


def test_a_key_that_is_not_text_is_refused_by_its_number():
    with pytest.raises(SourceError, match=r"key 2: .*not valid Unicode text"):
        CLIENT.plan("s3://a/", "s3://b/", keys=["a.jpg", "\ud800.jpg"])


def test_unknown_fields_of_a_pipeline_are_refused():
    with pytest.raises(ValueError, match="did you mean format"):
        orchestrator.output_options({"fromat": "webp"})
    with pytest.raises(ValueError, match="did you mean max_failed"):
        orchestrator.job_policy({"max_fail": 3})
    with pytest.raises(TypeError, match="polcy"):
        submit_created(CLIENT, {}, "s3://a/", "s3://b/", polcy=None)


def test_a_path_is_no_destination():
    with pytest.raises(SourceError, match=r"not an S3 URL: .*masks.*; write 's3://bucket/prefix/'"):
        S3Url.folder(Path("./masks"))
