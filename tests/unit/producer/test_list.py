"""`producer list` on terminals of different widths."""

from __future__ import annotations

import io
from typing import Any

import pytest

from producer.cli import jobs
from worker.contract import console
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobOptions, JobPolicy

JOB = "20260131-120000-a1b2c3"


def listed(monkeypatch: pytest.MonkeyPatch, *, width: int, folder: str = "") -> str:
    """Return what `producer list` prints about one job on a terminal of this width."""
    options = JobOptions(source="s3://shop/photos/", dest="s3://shop/masks-of-the-winter-sale/")
    view = JobView(
        job=JOB,
        status=JobStatus.FINISHED,
        options=options,
        policy=JobPolicy(folder=folder).model_dump(),
        total=12_345,
        ok=12_345,
        created_at=1769860800.0,
    )

    class Stored:
        def __init__(self, *_: Any) -> None: ...
        def __enter__(self) -> Stored:
            return self

        def __exit__(self, *_: object) -> None: ...
        def newest(self, limit: int) -> list[JobView]:
            return [view]

    screen = io.StringIO()
    monkeypatch.setattr(jobs, "Ledger", Stored)
    monkeypatch.setattr(console, "out", console.SafeConsole(file=screen, width=width, force_terminal=True))
    jobs.list_command.callback(limit=20, as_json=False)
    return screen.getvalue()


def test_at_80_columns_the_time_gives_way_to_the_outputs(monkeypatch):
    lines = listed(monkeypatch, width=80).splitlines()

    assert "submitted" not in lines[0]
    assert JOB in lines[1] and "12,345" in lines[1]
    assert len(lines) <= 3, "a place of usual length takes two lines"
    assert max(map(len, lines[1:])) <= 80


def test_a_wide_terminal_shows_the_time(monkeypatch):
    lines = listed(monkeypatch, width=140).splitlines()

    assert "2026-01-31T12:00Z" in lines[1] and "s3://shop/masks-of-the-winter-sale/" in lines[1]


def test_a_job_whose_outputs_go_to_a_folder_shows_the_folder(monkeypatch):
    text = listed(monkeypatch, width=140, folder="/home/ada/cutouts")

    assert "/home/ada/cutouts" in text and "s3://" not in text
