from __future__ import annotations

import csv
import io
import json
import os
import secrets
import sys
import tracemalloc

import pytest
from pyarrow import parquet

from producer import tables
from producer.outcomes import as_dict
from worker.contract.errors import SetupError, SourceError
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobOptions, MaskQuality, Outcome, OutcomeKind

OPTIONS = JobOptions(source="s3://a/", dest="s3://b/", outputs=("mask", "cutout"))
VIEW = JobView(job="job", status=JobStatus.FINISHED, options=OPTIONS, total=2, created_at=0.0)
SOFT = MaskQuality(coverage=0.25, soft=0.7, empty=False, full=False, touches_border=True, box=(0.1, 0.2, 0.3, 0.4))
GOOD = Outcome(
    index=0,
    key='a/"x", y.jpg',
    kind=OutcomeKind.OK,
    seconds=1.25,
    stages={"fetch": 0.25, "infer": 0.75},
    quality=SOFT,
    notes=("a", "b"),
    at=1_700_000_000.5,
)
BAD = Outcome(index=1, key="b.jpg", kind=OutcomeKind.FAILED, code="undecodable", message="cut\noff")


def test_every_json_line_has_the_same_fields():
    file = io.StringIO()
    tables.write_jsonl([GOOD, BAD], VIEW, file)

    good, bad = map(json.loads, file.getvalue().splitlines())
    assert list(good) == list(bad)
    assert good["outputs"] == {"mask": 'mask/a/"x", y.png', "cutout": 'cutout/a/"x", y.png'}
    assert (good["flags"], good["needs_review"], good["coverage"]) == (["soft", "border"], True, 0.25)
    assert (good["notes"], bad["notes"]) == (["a", "b"], [])
    assert (good["box"], bad["box"]) == ([0.1, 0.2, 0.3, 0.4], None)
    assert (bad["outcome"], bad["code"], bad["outputs"], bad["flags"]) == ("failed", "undecodable", {}, [])


def test_csv_has_one_column_for_each_fact():
    file = io.StringIO()
    tables.write_csv([GOOD, BAD], VIEW, file)

    good, bad = csv.DictReader(io.StringIO(file.getvalue()))
    assert (good["key"], good["output_cutout"]) == (GOOD.key, 'cutout/a/"x", y.png')
    assert (good["flag_soft"], good["flag_empty"], good["needs_review"]) == ("true", "false", "true")
    assert (good["seconds_infer"], good["finished_at"]) == ("0.75", "2023-11-14T22:13:20.500Z")
    assert (good["notes"], bad["notes"]) == ("a; b", "")
    assert (good["box_left"], good["box_bottom"], bad["box_left"]) == ("0.1", "0.4", "")
    assert (bad["message"], bad["flag_soft"], bad["coverage"], bad["finished_at"]) == ("cut\noff", "", "", "")


def test_parquet_has_types(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_GROUP_ROWS", 1)
    path = tmp_path / "results.parquet"
    with path.open("wb") as file:
        tables.write_parquet([GOOD, BAD], VIEW, file)

    table = parquet.read_table(path)
    assert table.column_names == tables.columns(VIEW)
    assert table["box_right"].to_pylist() == [0.3, None]
    assert table["flag_soft"].to_pylist() == [True, None]
    assert table["finished_at"].to_pylist()[0].timestamp() == GOOD.at
    assert parquet.ParquetFile(path).num_row_groups == 2


def test_parquet_without_pyarrow_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(SetupError, match=r"pip install 'maskmill\[parquet\]'"):
        tables.write_parquet([GOOD], VIEW, io.BytesIO())


def test_a_file_appears_when_it_is_complete_or_not_at_all(tmp_path):
    path = tmp_path / "results.csv"
    with pytest.raises(ZeroDivisionError), tables.atomic_file(path) as part:
        part.write(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []

    with tables.atomic_file(path) as part:
        part.write(b"whole")
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "nowhere" / "results.csv"
    with pytest.raises(SourceError, match="nowhere"), tables.atomic_file(path):
        pass


def test_a_file_is_never_written_through_a_link(tmp_path, monkeypatch):
    """A link at the name of the file is replaced; one at the name of the part is refused."""
    monkeypatch.setattr(secrets, "token_hex", lambda count: "guessed")
    victim, path = tmp_path / "victim", tmp_path / "results.csv"
    victim.write_text("kept")
    path.symlink_to(victim)

    with tables.atomic_file(path) as part:
        part.write(b"whole")
    assert (victim.read_text(), path.read_text(), path.is_symlink()) == ("kept", "whole", False)

    (tmp_path / ".maskmill-guessed").symlink_to(victim)
    with pytest.raises(SourceError, match="cannot be written"), tables.atomic_file(path) as part:
        part.write(b"again")
    assert (victim.read_text(), path.read_text()) == ("kept", "whole")


def test_a_device_or_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(SourceError, match="is not a file"), tables.atomic_file(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("write", [tables.write_jsonl, tables.write_csv])
def test_memory_does_not_grow_with_the_rows(write, tmp_path):
    def peak(rows: int) -> int:
        with (tmp_path / "x").open("w", encoding="utf-8") as file:
            tracemalloc.start()
            write((GOOD.model_copy(update={"index": index}) for index in range(rows)), VIEW, file)
            top = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return top

    assert peak(3000) < peak(1000) + 500_000  # kept, 2,000 rows would take 3 MB


def test_outputs_are_named_even_if_details_were_lost():
    lost = Outcome(index=0, key="a.jpg", kind=OutcomeKind.SKIPPED)

    assert as_dict(lost, VIEW)["outputs"] == {"mask": "mask/a.png", "cutout": "cutout/a.png"}


def test_csv_quotes_a_carriage_return_and_guards_formulas_on_request():
    plain, guarded = io.StringIO(newline=""), io.StringIO(newline="")
    hostile = GOOD.model_copy(update={"key": "=cmd|' /C calc'!A0\rb.png"})

    tables.write_csv([hostile, GOOD], VIEW, plain)
    tables.write_csv([hostile, GOOD], VIEW, guarded, guard_formulas=True)

    assert '"=cmd|' in plain.getvalue() and plain.getvalue().count("\n") == guarded.getvalue().count("\n")
    assert "\r\n" not in plain.getvalue()
    assert next(csv.DictReader(io.StringIO(plain.getvalue(), newline="")))["key"] == hostile.key
    first, second = csv.DictReader(io.StringIO(guarded.getvalue(), newline=""))
    assert (first["key"], second["key"]) == (f"'{hostile.key}", GOOD.key)
