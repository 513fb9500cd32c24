from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer import collisions
from producer.collisions import CollisionCheck
from worker.contract.messages import JobOptions
from worker.contract.outputs import OutputKind

OPTIONS = JobOptions(source="s3://a/", dest="s3://b/")


def found(keys):
    with CollisionCheck() as check:
        for key in keys:
            check.add(key, OPTIONS.collision_keys(key))
        return sorted(check.found())


def test_collisions_are_found_in_any_order():
    assert found(["d/a.jpg", "x.jpg", "d/a.png"]) == [(0, 2, False)]
    assert found(["b.jpg", "a.png", "z.jpg", "a.jpg", "b.gif"]) == [(0, 4, False), (1, 3, False)]


def test_a_repeated_key_is_a_duplicate():
    assert found(["a.jpg", "a.jpg", "a.png", "a.jpg"]) == [(0, 1, True), (0, 2, False), (0, 3, True)]


def test_equal_names_in_different_folders_do_not_collide():
    assert found(["a.jpg", "x/a.jpg", "x/y/a.jpg", "x/y/b.a.jpg", "x/y/b.jpg"]) == []


@pytest.mark.parametrize("block", [24, 48])
def test_keys_on_disk_are_compared_too(monkeypatch, block):
    monkeypatch.setattr(collisions, "_BLOCK_BYTES", block)
    keys = [f"{number}.jpg" for number in range(3000)] + ["7.png", "2999.gif"]

    assert found(keys) == [(7, 3000, False), (2999, 3001, False)]


names = st.text("ab.", min_size=1, max_size=4).map(lambda stem: f"{stem}.") | st.text("ab", min_size=1, max_size=2)
keys = st.lists(
    st.tuples(st.lists(names, max_size=2), names, st.sampled_from(["jpg", "png"])).map(
        lambda parts: "/".join((*parts[0], f"{parts[1]}.{parts[2]}"))
    ),
    max_size=12,
)


@given(keys)
def test_all_collisions_and_no_others_are_found(listing):
    outputs = [OPTIONS.output_key(key, OutputKind.MASK) for key in listing]
    expected = [
        (outputs.index(output), index, listing[outputs.index(output)] == listing[index])
        for index, output in enumerate(outputs)
        if outputs.index(output) != index
    ]

    assert found(listing) == sorted(expected)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(collisions, "_BLOCK_BYTES", 240)

    def peak(count):
        tracemalloc.start()
        try:
            with CollisionCheck() as check:
                for number in range(count):
                    check.add(f"{number}.jpg", [f"{number}.png"])
                assert list(check.found()) == []
                return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(40_000) < 512 << 10
