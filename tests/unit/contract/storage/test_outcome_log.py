from __future__ import annotations

import pytest

from support.fakes import FakeStore
from worker.contract.errors import ContractError
from worker.contract.messages import Outcome, OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage import outcome_log
from worker.contract.storage.s3 import ObjectInfo

DEST = S3Url("b", "masks/")


class ListedStore(FakeStore):
    def list(self, folder):
        head = str(folder)
        return [ObjectInfo(url.removeprefix(head), 1, "e", {}) for url in self.objects if url.startswith(head)]


def written(*parts):
    store = ListedStore()
    for number, outcomes in enumerate(parts):
        lines = [outcome if isinstance(outcome, str) else outcome.model_dump_json() for outcome in outcomes]
        outcome_log.write_part(store, DEST, "job", epoch=0, first_id=f"{number}-0", lines=lines)
    return store


def outcome(index: int, kind: OutcomeKind = OutcomeKind.OK) -> Outcome:
    return Outcome(index=index, key=f"{index}.jpg", kind=kind)


def test_kinds_are_those_of_the_outcomes():
    store = written([outcome(0), outcome(1, OutcomeKind.FAILED)], [outcome(1), outcome(2, OutcomeKind.DEAD)])

    kinds = [(index, kind) for _, index, kind in outcome_log.kinds_newest_first(store, DEST, "job")]

    assert kinds == [(found.index, found.kind) for found in outcome_log.newest_first(store, DEST, "job")]
    assert kinds[0] == (2, OutcomeKind.DEAD)


def test_outcomes_with_the_same_id_from_two_primaries_are_both_kept():
    store = ListedStore()
    for number in (1, 2, 2):
        line = outcome(number).model_dump_json()
        outcome_log.write_part(store, DEST, "job", epoch=0, first_id="5-0", lines=[line])

    assert {found.index for found in outcome_log.newest_first(store, DEST, "job")} == {1, 2}
    assert len(outcome_log.part_names(store, DEST, "job")) == 2, "written again, a part replaces itself"


@pytest.mark.parametrize("line", ['{"index": 1}', '{"index": 1, "kind": "splendid"}', "[1]", "not JSON"])
def test_a_line_that_is_not_an_outcome_is_quoted(line):
    with pytest.raises(ContractError, match="is not an outcome"):
        list(outcome_log.kinds_newest_first(written([line]), DEST, "job"))
