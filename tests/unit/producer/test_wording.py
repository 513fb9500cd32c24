from __future__ import annotations

import re

import pytest

from producer.wording import cost_fields, cost_in_words, counts_in_words, iso_time
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobOptions
from worker.contract.settings import JobSettings

OPTIONS = JobOptions(source="s3://a/", dest="s3://b/")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"total": 12, "ok": 12}, "12 of 12 images done: 12 ok"),
        ({"total": 12, "ok": 5, "failed": 1, "cancelled": 6}, "6 of 12 images done: 5 ok, 1 failed; 6 cancelled"),
        ({"total": 12, "skipped": 1, "dead": 1}, "2 of 12 images done: 1 skipped, 1 dead; 10 left"),
        ({"total": 2000, "cancelled": 1500}, "0 of 2,000 images done; 1,500 cancelled, 500 left"),
        ({"total": None}, "0 of ? images done"),
        ({"total": 0}, "0 of 0 images done"),
    ],
)
def test_the_counts_add_up_to_the_images_of_the_job(counts, words):
    text = counts_in_words(JobView(job="j", status=JobStatus.RUNNING, options=OPTIONS, created_at=0.0, **counts))

    assert text == words
    _, total, *parts = (int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*|\?", text.replace("?", "0")))
    assert sum(parts) == total


def test_times_are_utc_with_z():
    assert iso_time(1_700_000_000.5) == "2023-11-14T22:13:20.500Z"
    assert iso_time(None) is None


def test_costs_have_their_currency():
    priced = JobSettings(price_per_core_hour=0.05, currency="EUR")

    assert cost_in_words(10.0, priced) == "10 core-hours, 0.5 EUR"
    assert cost_in_words(0.123, JobSettings(price_per_core_hour=1)) == "0.12 core-hours, 0.123 (no currency set)"
    assert cost_in_words(0.123, JobSettings()) == "0.12 core-hours"
    assert cost_fields(10.0, priced) == {"cost": 0.5, "currency": "EUR"}
    assert cost_fields(10.0, JobSettings()) == cost_fields(None, priced) == {}
