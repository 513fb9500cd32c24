"""Which images are up to date and need not be done again."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from worker.contract.errors import ObjectMissing, StoreUnavailable
from worker.contract.messages import OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo
from worker.runner.up_to_date import JOB, MODEL, OPTIONS, SOURCE_ETAG, existing_outcome

SOURCE, ONE, TWO = S3Url("b", "in/a.jpg"), S3Url("b", "out/a.png"), S3Url("b", "out/cutout/a.png")
WANTED = {MODEL: "m1", OPTIONS: "o1", JOB: "job"}
MADE = WANTED | {SOURCE_ETAG: "etag"}


@dataclass
class Store:
    metadata: dict[S3Url, dict[str, str]] = field(default_factory=dict)
    etag: str | None = "etag"
    asked: list[S3Url] = field(default_factory=list)

    def head(self, place):
        self.asked.append(place)
        if place == SOURCE and self.etag is not None:
            return ObjectInfo(place.key, 1, self.etag, {})
        if place not in self.metadata:
            raise ObjectMissing(str(place))
        return ObjectInfo(place.key, 1, "of the output", self.metadata[place])


def kind(store):
    return existing_outcome(store, SOURCE, [ONE, TWO], WANTED)


def test_what_this_job_made_is_done_and_what_another_made_is_skipped():
    assert kind(Store({ONE: MADE, TWO: MADE})) is OutcomeKind.OK
    assert kind(Store({ONE: MADE | {JOB: "other"}, TWO: MADE})) is OutcomeKind.SKIPPED
    assert kind(Store({ONE: MADE | {JOB: "other"}, TWO: MADE | {JOB: "third"}})) is OutcomeKind.SKIPPED


@pytest.mark.parametrize("changed", [{MODEL: "m2"}, {OPTIONS: "o2"}, {SOURCE_ETAG: "older"}])
@pytest.mark.parametrize("place", [ONE, TWO])
def test_what_was_made_of_or_by_something_else_is_done_again(changed, place):
    assert kind(Store({ONE: MADE, TWO: MADE, place: MADE | changed})) is None


@pytest.mark.parametrize("present", [{}, {ONE: MADE}, {TWO: MADE}, {ONE: MADE, TWO: {}}])
def test_an_output_that_is_missing_or_not_ours_is_made(present):
    store = Store(present)

    assert kind(store) is None
    assert SOURCE not in store.asked  # no unnecessary requests


def test_a_source_that_changed_or_is_gone():
    made = {ONE: MADE, TWO: MADE}
    assert kind(Store(made, etag="newer")) is None
    with pytest.raises(ObjectMissing, match=r"in/a\.jpg"):
        kind(Store(made, etag=None))


def test_a_store_that_is_down_is_not_taken_for_a_missing_output():
    store = Store()

    def down(place):
        raise StoreUnavailable("503")

    store.head = down
    with pytest.raises(StoreUnavailable):
        kind(store)
