from __future__ import annotations

import pytest

from producer.sources.units import SampleSize, parse_sample, parse_size, parse_time
from worker.contract.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", 500),
        ("0", 0),
        ("10k", 10240),
        ("1M", 1 << 20),
        ("10MiB", 10 << 20),
        ("10MB", 10_000_000),
        ("1.5 GiB", 3 << 29),
        ("2T", 2 << 40),
        ("7B", 7),
        ("1m", 1 << 20),
    ],
)
def test_sizes(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "1 M M", "1e3", "ten"])
def test_an_invalid_size_is_refused(text):
    with pytest.raises(SettingsError, match="10MiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7d", 1e9 - 7 * 86400),
        ("36h", 1e9 - 36 * 3600),
        ("2w", 1e9 - 14 * 86400),
        ("0.5h", 1e9 - 1800),
        ("1970-01-02", 86400.0),
        ("1970-01-01T01:00", 3600.0),
        ("1970-01-01T01:00+01:00", 0.0),
        ("30m", 1e9 - 1800),
    ],
)
def test_times(text, expected):
    assert parse_time(text, now=1e9) == expected


@pytest.mark.parametrize("text", ["", "7", "d", "yesterday", "2026-13-01", "7y"])
def test_an_invalid_time_is_refused(text):
    with pytest.raises(SettingsError, match="7d"):
        parse_time(text)


def test_samples():
    assert parse_sample("500") == SampleSize(count=500)
    assert parse_sample("2.5%") == SampleSize(share=0.025)


@pytest.mark.parametrize("text", ["", "%", "0", "0%", "101%", "-1", "1.5", "2000000", "nan%"])
def test_an_invalid_sample_is_refused(text):
    with pytest.raises(SettingsError, match="%"):
        parse_sample(text)
