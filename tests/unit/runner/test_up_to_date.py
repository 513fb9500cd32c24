"""Which images are up to date and need not be done again."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from worker.contract.errors import ObjectMissing, StoreUnavailable
from worker.contract.messages import OutcomeKind
from worker.contract.provenance import JOB, MODEL, OPTIONS, SOURCE_ETAG, SOURCE_MODIFIED, SOURCE_SIZE
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo
from worker.runner.up_to_date import existing_outcome

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


# -- servers without ETags, or with two for one object ------------------------------------------------------------

SIZE_AND_TIME = {SOURCE_SIZE: "5", SOURCE_MODIFIED: "1700000000"}


def kind_of(made: dict[str, str], *, etag: str = "", size: int | None = 5, modified: float | None = 1700000000.7):
    """Return the outcome of an image whose source has these facts now, and the number of GET requests."""

    class One(Store):
        gets = 0

        def head(self, place):
            return ObjectInfo(place.key, size, etag, {}, modified) if place == SOURCE else super().head(place)

        def content_etag(self, place):
            self.gets += 1
            return "of get" if etag else ""

    store = One({ONE: WANTED | made, TWO: WANTED | made})
    return kind(store), store.gets


def test_without_an_etag_size_and_time_decide():
    assert kind_of(SIZE_AND_TIME) == (OutcomeKind.OK, 0)
    assert kind_of(SIZE_AND_TIME, size=6) == (None, 0)
    assert kind_of(SIZE_AND_TIME, modified=1700000001.0) == (None, 0)


@pytest.mark.parametrize("facts", [{"modified": None}, {"size": None}])
def test_without_etag_and_time_nothing_is_up_to_date(facts):
    assert kind_of({}, **facts) == (None, 0)
    assert kind_of(SIZE_AND_TIME, **facts) == (None, 0)


def test_the_etag_of_get_counts_where_head_gives_another():
    assert kind_of({SOURCE_ETAG: "of get"} | SIZE_AND_TIME, etag="of get-1") == (OutcomeKind.OK, 2)
    assert kind_of({SOURCE_ETAG: "older"} | SIZE_AND_TIME, etag="of get-1") == (None, 1)


def test_an_etag_decides_alone_where_there_is_one():
    assert kind_of({SOURCE_ETAG: "e"}, etag="e", modified=None) == (OutcomeKind.OK, 0)
    assert kind_of({SOURCE_ETAG: "e"} | SIZE_AND_TIME, etag="e", modified=1.0) == (OutcomeKind.OK, 0)
    assert kind_of({SOURCE_ETAG: "e"} | SIZE_AND_TIME, etag="") == (None, 0)
