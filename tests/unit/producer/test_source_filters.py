from __future__ import annotations

import itertools
from collections import Counter

import pytest

from producer.sources.filters import Filters, choose
from producer.sources.item import Item, Skip
from producer.sources.units import SampleSize
from worker.contract.errors import SourceError


def pick(keys, filters=None, **facts):
    skipped = Counter()
    items = (key if isinstance(key, Item) else Item(key, 1, "", 1.0) for key in keys)
    return [item.key for item in choose(items, filters or Filters(**facts), skipped)], dict(skipped)


def test_only_image_names_pass_and_the_others_are_counted():
    keys = ["a.jpg", "b.JPEG", "c.txt", "d", "e/f.heic", ".jpg", "_maskmill/j/input/x.jpg", "g.jpg.bak"]

    assert pick(keys) == (["a.jpg", "b.JPEG", "e/f.heic"], {Skip.NOT_AN_IMAGE: 4})
    assert pick(["d", "c.txt", "_maskmill/x"], any_suffix=True) == (["d", "c.txt"], {})


@pytest.mark.parametrize("any_suffix", [False, True])
def test_markers_are_passed_over_and_counted(any_suffix):
    markers = ["sub/", "sub_$folder$", "deep/er/", "deep/er_$folder$", ""]
    items = [*(Item(key, size) for key in markers for size in (0, None)), Item("._a.jpg", 120), Item("x/._b.jpg", 4096)]
    pictures = [Item("a.jpg", 1), Item("x/_b.jpg", 1), Item("empty.jpg", 0)]

    found, skipped = pick([*items, *pictures], any_suffix=any_suffix)

    assert (found, skipped) == (["a.jpg", "x/_b.jpg", "empty.jpg"], {Skip.MARKER: 12})
    with_content = [Item("odd/", 5), Item("odd_$folder$", 5)]
    assert pick(with_content, any_suffix=True) == (["odd/", "odd_$folder$"], {})


def test_exclude_wins_over_include():
    found, skipped = pick(["a/1.jpg", "a/2.png", "b/3.jpg"], include=("*.jpg",), exclude=("b/**",))

    assert (found, skipped) == (["a/1.jpg"], {Skip.NOT_INCLUDED: 1, Skip.EXCLUDED: 1})


def test_sizes_and_times_are_inclusive():
    items = [Item(f"{size}.jpg", size, "", float(size)) for size in range(5)]

    assert pick(items, min_size=1, max_size=3) == (["1.jpg", "2.jpg", "3.jpg"], {Skip.TOO_SMALL: 1, Skip.TOO_LARGE: 1})
    assert pick(items, newer_than=3.0) == (["3.jpg", "4.jpg"], {Skip.TOO_OLD: 3})


@pytest.mark.parametrize(
    ("facts", "match"), [({"min_size": 1}, "size of 'a.jpg'.*--head"), ({"newer_than": 1.0}, "last_modified.*--head")]
)
def test_unknown_sizes_and_times_are_refused(facts, match):
    with pytest.raises(SourceError, match=match):
        pick([Item("a.jpg")], **facts)


def test_a_limit_ends_the_listing():
    endless = (Item(f"{number}.jpg", 1) for number in itertools.count())

    assert [item.key for item in choose(endless, Filters(limit=3), Counter())] == ["0.jpg", "1.jpg", "2.jpg"]


KEYS = [f"{number:05d}.jpg" for number in range(4000)]


def test_a_fraction_is_approximate_and_reproducible():
    found, skipped = pick(KEYS, sample=SampleSize(share=0.1))

    assert 320 < len(found) < 480
    assert skipped == {Skip.NOT_SAMPLED: len(KEYS) - len(found)}
    assert set(found) == set(pick(reversed(KEYS), sample=SampleSize(share=0.1))[0])
    assert set(found) < set(pick(KEYS, sample=SampleSize(share=0.2))[0])
    assert found != pick(KEYS, sample=SampleSize(share=0.1), seed=1)[0]
    assert found == sorted(found)


def test_a_sample_has_the_exact_size_in_listing_order():
    found, skipped = pick(KEYS, sample=SampleSize(count=100))

    assert len(found) == 100 and found == sorted(found)
    assert skipped == {Skip.NOT_SAMPLED: len(KEYS) - 100}
    assert set(found) == set(pick(reversed(KEYS), sample=SampleSize(count=100))[0])
    assert set(found) < set(pick(KEYS, sample=SampleSize(count=200))[0])
    assert pick(KEYS[:3], sample=SampleSize(count=100))[0] == KEYS[:3]
    numbers = [int(key[:5]) for key in found]
    assert 1500 < sum(numbers) / len(numbers) < 2500, "drawn from everywhere"
