"""Stream outcomes to JSON lines, CSV or Parquet."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, BinaryIO

from producer.outcomes import as_dict
from worker.contract.console import json_for
from worker.contract.errors import SetupError, SourceError
from worker.contract.job import JobView
from worker.contract.messages import FLAGS, Outcome, OutcomeKind
from worker.contract.stages import Stage

_FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a cell that spreadsheets take for a formula (OWASP, CSV injection)."""

_GROUP_ROWS = 10_000
_BOX = ("box_left", "box_top", "box_right", "box_bottom")
_text = json.JSONEncoder(ensure_ascii=False).encode
_STAGES = [stage.value for stage in Stage if stage is not Stage.RECORD]
"""RECORD is left out: an outcome is complete before it is recorded."""


class TableFormat(StrEnum):
    """File format of outcomes."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


def as_row(outcome: Outcome, view: JobView) -> dict[str, Any]:
    """Return column -> value; every image of a job has the same columns, and an unknown value is None."""
    fields, assessed = as_dict(outcome, view), outcome.quality is not None
    return {
        **{name: fields[name] for name in ("index", "key", "outcome", "code", "message")},
        **{f"output_{kind.value}": fields["outputs"].get(kind.value) for kind in view.options.outputs},
        "finished_at": fields["finished_at"],
        "seconds": fields["seconds"],
        **{f"seconds_{stage}": outcome.stages.get(stage) for stage in _STAGES},
        "coverage": fields["coverage"],
        "soft": fields["soft"],
        **dict(zip(_BOX, fields["box"] or (None,) * len(_BOX), strict=True)),
        **{f"flag_{flag}": flag in fields["flags"] if assessed else None for flag in FLAGS},
        "needs_review": fields["needs_review"],
        "notes": "; ".join(outcome.notes),
    }


def columns(view: JobView) -> list[str]:
    """Return the names of the columns of a job's table."""
    return list(as_row(Outcome(index=0, key="", kind=OutcomeKind.OK), view))


def write_jsonl(outcomes: Iterable[Outcome], view: JobView, file: IO[str]) -> None:
    """Write one JSON object per line."""
    for outcome in outcomes:
        file.write(json_for(file, _text(as_dict(outcome, view))) + "\n")


def write_csv(outcomes: Iterable[Outcome], view: JobView, file: IO[str], *, guard_formulas: bool = False) -> None:
    """Write a header line, then one line per image.

    Times are in ISO 8601 (UTC, with Z), booleans are `true` or `false`, and an unknown value is empty. Texts with
    a line feed or a carriage return are quoted.

    Args:
        outcomes: one per line.
        view: the job.
        file: to write to.
        guard_formulas: put an apostrophe before texts that a spreadsheet would run as a formula.
    """
    writer = csv.writer(_LineFeeds(file), lineterminator=_LineFeeds.TERMINATOR)
    cell = _guarded if guard_formulas else _cell
    writer.writerow(columns(view))
    for outcome in outcomes:
        writer.writerow(map(cell, as_row(outcome, view).values()))


def write_parquet(outcomes: Iterable[Outcome], view: JobView, file: BinaryIO) -> None:
    """Write a Parquet file in row groups of 10,000, so that memory does not grow with the job.

    Raises:
        SetupError: pyarrow is not installed.
    """
    pa, pq = _pyarrow()
    schema = pa.schema([(name, _arrow_type(pa, name)) for name in columns(view)])
    rows = (_typed(as_row(outcome, view)) for outcome in outcomes)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(itertools.islice(rows, _GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file beside `path`, and rename it to `path` if the block ends without an exception.

    Nothing is written through a link: the new file has a random name and is opened only if nothing has that name, and a
    link at `path` is replaced, not followed.

    Raises:
        SourceError: the file cannot be written, or `path` is a folder, a device or a pipe.
    """
    if path.exists() and not path.is_file():
        raise SourceError(f"{path} is not a file: give the name of a file")
    part = path.with_name(f".maskmill-{secrets.token_hex(6)}")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise SourceError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _typed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose time is a `datetime`, as Parquet stores it."""
    at = row["finished_at"]
    return row | {"finished_at": at and datetime.fromisoformat(at)}


class _LineFeeds:
    """Ends lines with a line feed. The csv module quotes a carriage return only if it is part of its line end."""

    TERMINATOR = "\r\n"

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, line: str) -> None:
        """Write a line that the csv module has ended."""
        self._file.write(line.removesuffix(self.TERMINATOR) + "\n")


def _guarded(value: Any) -> Any:
    is_formula = isinstance(value, str) and value.startswith(_FORMULA_PREFIXES)
    return f"'{value}" if is_formula else _cell(value)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value


def _arrow_type(pa: Any, column: str) -> Any:
    if column == "index":
        return pa.int64()
    if column == "finished_at":
        return pa.timestamp("ms", tz="UTC")
    if column.startswith("flag_") or column == "needs_review":
        return pa.bool_()
    return pa.float64() if column.startswith("seconds") or column in ("coverage", "soft", *_BOX) else pa.string()


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise SetupError(
            "writing Parquet needs pyarrow, which is not installed: pip install 'maskmill[parquet]', "
            "or use --format csv"
        ) from error
    return pa, pq
