from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.collisions import CollisionCheck
from worker.contract.errors import OutputCollision
from worker.contract.messages import JobOptions, OutputKind

OPTIONS = JobOptions(source="s3://a/", dest="s3://b/")


def check(keys):
    collisions = CollisionCheck()
    for key in keys:
        collisions.add(key, OPTIONS.output_key(key, OutputKind.MASK))


def test_rivals_are_both_named():
    with pytest.raises(OutputCollision, match=r"'d/a.jpg' and 'd/a.png'.*'d/a.png'"):
        check(["d/a.jpg", "d/a.png"])


def test_a_folder_between_rivals_does_not_hide_them():
    with pytest.raises(OutputCollision):
        check(["d/a.jpg", "d/a.m/1.jpg", "d/a.m/2.jpg", "d/a.png"])


def test_equal_names_in_different_folders_are_no_rivals():
    check(["a.jpg", "x/a.jpg", "x/y/a.jpg", "x/y/b.a.jpg", "x/y/b.jpg"])


names = st.text("ab.", min_size=1, max_size=4).map(lambda stem: f"{stem}.") | st.text("ab", min_size=1, max_size=2)
keys = st.lists(
    st.tuples(st.lists(names, max_size=2), names, st.sampled_from(["jpg", "png"])).map(
        lambda parts: "/".join((*parts[0], f"{parts[1]}.{parts[2]}"))
    ),
    unique=True,
    max_size=12,
)


@given(keys)
def test_exactly_the_collisions_there_are_get_found(listing):
    outputs = [OPTIONS.output_key(key, OutputKind.MASK) for key in listing]
    expected = len(set(outputs)) < len(outputs)

    try:
        check(sorted(listing))
        found = False
    except OutputCollision:
        found = True

    assert found == expected
