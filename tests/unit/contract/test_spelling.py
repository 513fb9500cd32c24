"""Unknown fields: refused where a program fills a model, ignored where another version has written it."""

from __future__ import annotations

import ast
import inspect

import pytest
from pydantic import ValidationError

from producer.sources.filters import Filters
from producer.sources.resolve import SourceSpec
from worker.contract.job import JobView
from worker.contract.messages import JobOptions, JobPolicy, read_policy
from worker.contract.outputs import OutputKind, OutputOptions

STORED = {"source": "s3://in/", "dest": "s3://out/"}


@pytest.mark.parametrize(
    ("model", "fields", "message"),
    [
        (OutputOptions, {"fromat": "webp"}, r"OutputOptions has no field 'fromat'; did you mean format\?"),
        (OutputOptions, {"qualty": 80, "crop": True}, "did you mean quality"),
        (JobPolicy, {"max_fail": 3}, r"JobPolicy has no field 'max_fail'; did you mean max_failed\?"),
        (JobPolicy, {"zzz": 3}, "JobPolicy has no field 'zzz'"),
    ],
)
def test_an_unknown_field_is_refused(model, fields, message):
    for refuse in (lambda: model(**fields), lambda: model.model_validate(fields)):
        with pytest.raises(ValidationError, match=message):
            refuse()


def test_fields_of_a_later_version_are_read_from_a_record():
    assert JobOptions.model_validate(STORED | {"later": 1}) == JobOptions.model_validate(STORED)
    assert read_policy('{"max_failed": 3, "later": 1}') == JobPolicy(max_failed=3)
    assert read_policy({"later": {}}) == JobPolicy()
    view = {
        "job": "j",
        "status": "running",
        "options": STORED,
        "created_at": 0.0,
        "policy": {"priority": "low", "x": 1},
    }
    assert JobView.model_validate(view).policy == JobPolicy(priority="low")
    with pytest.raises(ValidationError, match="priority"):
        read_policy({"priority": "x"})


def test_one_kind_of_output_may_be_given_as_a_text():
    assert OutputOptions(outputs="cutout").outputs == (OutputKind.CUTOUT,)
    assert OutputOptions(outputs=OutputKind.MASK).outputs == (OutputKind.MASK,)
    assert OutputOptions(outputs=["mask", "cutout"]).outputs == ("mask", "cutout")
    with pytest.raises(ValidationError, match="'mask', 'cutout' or 'composite'"):
        OutputOptions(outputs="mask,cutout")


@pytest.mark.parametrize("kind", [OutputOptions, JobPolicy, Filters, SourceSpec])
def test_the_constructor_that_type_checkers_see_has_every_field(kind):
    """The constructor stands under `if TYPE_CHECKING`: Python never sees it."""
    tree = ast.parse(inspect.getsource(kind))
    [shown] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    names = [argument.arg for argument in (*shown.args.args[1:], *shown.args.kwonlyargs)]

    assert names == list(getattr(kind, "model_fields", None) or kind.__dataclass_fields__)
