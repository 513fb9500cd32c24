"""The record of what was made: only pictures that are new or changed are missing, also after a crash."""

from __future__ import annotations

import pytest

from producer.sources.item import Item
from worker.contract.outputs import OutputKind, OutputOptions
from worker.umbrella import made
from worker.umbrella.made import MadeRecord

CUTOUT = OutputOptions(outputs=(OutputKind.CUTOUT,))
ITEM = Item("sub/ü b.jpg", 10, "", 1234.5)


@pytest.fixture
def dest(tmp_path):
    (tmp_path / "out" / "sub").mkdir(parents=True)
    (tmp_path / "out" / "sub" / "ü b.png").write_bytes(b"output")
    return tmp_path / "out"


@pytest.fixture
def opened(tmp_path, dest):
    return lambda: MadeRecord(tmp_path / "state", tmp_path / "photos", dest)


def test_what_was_made_is_up_to_date_in_the_next_run(opened, dest):
    with opened() as record:
        assert not record.is_up_to_date(ITEM, "recipe", dest, CUTOUT)
        record.add(ITEM, "recipe")

    with opened() as record:
        assert record.is_up_to_date(ITEM, "recipe", dest, CUTOUT)


@pytest.mark.parametrize(
    ("item", "recipe"),
    [(ITEM._replace(size=11), "recipe"), (ITEM._replace(modified=1234.75), "recipe"), (ITEM, "other")],
    ids=["size", "time", "options"],
)
def test_a_change_makes_it_missing(opened, dest, item, recipe):
    with opened() as record:
        record.add(ITEM, "recipe")

        assert not record.is_up_to_date(item, recipe, dest, CUTOUT)


def test_a_deleted_output_is_missing(opened, dest):
    with opened() as record:
        record.add(ITEM, "recipe")
        (dest / "sub" / "ü b.png").unlink()

        assert not record.is_up_to_date(ITEM, "recipe", dest, CUTOUT)


def test_every_kind_of_output_must_be_there(opened, dest):
    both = OutputOptions(outputs=(OutputKind.MASK, OutputKind.CUTOUT))
    with opened() as record:
        record.add(ITEM, "recipe")

        assert not record.is_up_to_date(ITEM, "recipe", dest, both)


def test_a_line_that_a_crash_cut_off_costs_only_its_picture(opened, dest):
    with opened() as record:
        record.add(ITEM, "recipe")
        path = record.path
    with path.open("a") as file:
        file.write('["other.jpg", 1')

    with opened() as record:
        assert record.is_up_to_date(ITEM, "recipe", dest, CUTOUT)
        record.add(ITEM, "new recipe")
    with opened() as record:
        assert record.is_up_to_date(ITEM, "new recipe", dest, CUTOUT)


def test_other_places_have_another_record(tmp_path, dest, opened):
    with opened() as record, MadeRecord(tmp_path / "state", tmp_path / "other photos", dest) as other:
        record.add(ITEM, "recipe")

        assert record.path != other.path and not other.is_up_to_date(ITEM, "recipe", dest, CUTOUT)


def test_the_file_does_not_grow_for_ever(opened, monkeypatch):
    monkeypatch.setattr(made, "_SPARE_LINES", 10)
    for number in range(5):
        with opened() as record:
            for _ in range(20):
                record.add(ITEM, f"recipe {number}")

    assert len(record.path.read_text().splitlines()) <= 2 * 20 + 10
