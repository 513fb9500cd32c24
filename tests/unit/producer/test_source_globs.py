from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.sources.globs import is_glob, literal_folder, matcher, to_regex


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.jpg", ["a.jpg", "d/e/a.jpg", ".jpg", "a.JPG"], ["a.jpg/b", "a.jpgx"]),
        ("/*.jpg", ["a.jpg"], ["d/a.jpg"]),
        ("IMG*.{jpg,tar.gz}", ["IMG1.JPG", "IMG.tar.GZ"], ["img1.jpg", "IMG.tarxgz"]),
        ("*.j?g", ["a.jpg"], ["a.JPG"]),
        ("*.{jpg", ["a.{jpg"], ["a.jpg"]),
        ("d/*.jpg", ["d/a.jpg"], ["d/e/a.jpg", "x/d/a.jpg"]),
        ("**/*.jpg", ["a.jpg", "d/a.jpg", "d/e/a.jpg"], ["a.png"]),
        ("d/**", ["d/a", "d/e/f"], ["d", "dd/a"]),
        ("d/**/e/*.jpg", ["d/e/a.jpg", "d/x/y/e/a.jpg"], ["d/xe/a.jpg", "de/a.jpg"]),
        ("a?.jpg", ["ab.jpg", "aü.jpg"], ["a.jpg", "a/.jpg"]),
        ("[a-c]*.{jpg,png}", ["a.jpg", "cx.png"], ["d.jpg", "a.gif"]),
        ("[!a]*.jpg", ["b.jpg"], ["a.jpg"]),
        ("[*].jpg", ["*.jpg"], ["a.jpg"]),
        ("{a}.jpg", ["{a}.jpg"], ["a.jpg"]),
        ("a[b.jpg", ["a[b.jpg"], ["ab.jpg"]),
        ("[]].jpg", ["].jpg"], ["[.jpg"]),
        ("[z-a].jpg", [], ["z.jpg", "-.jpg"]),
        ("a+(b).jpg", ["a+(b).jpg"], ["aab.jpg"]),
        ("*", ["line\nfeed.jpg"], []),
    ],
)
def test_globs(pattern, yes, no):
    matches = matcher([pattern])

    assert [key for key in yes if not matches(key)] == []
    assert [key for key in no if matches(key)] == []


def test_case_can_be_ignored_everywhere():
    assert matcher(["Photos/img*.jpg"], ignore_case=True)("photos/IMG_1.JPG")
    assert not matcher(["Photos/img*.jpg"])("photos/IMG_1.JPG")


def test_any_of_several_globs_is_enough():
    matches = matcher(["*.jpg", "d/*.png"])

    assert [matches(key) for key in ("x/a.jpg", "d/a.png", "a.png")] == [True, True, False]
    assert not matcher([])("a")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("p/**/*.jpg", ("p/", "")),
        ("p/20*/x", ("p/", "20")),
        ("*.jpg", ("", "")),
        ("p/a.jpg", ("p/", "a.jpg")),
        ("p/{a,b}/x", ("p/", "")),
        ("p/{a}/[x", ("p/{a}/", "")),
    ],
)
def test_the_literal_part(pattern, expected):
    assert literal_folder(pattern) == expected


def test_what_is_a_glob():
    assert all(is_glob(text) for text in ("a*", "a?", "[a]", "{a,b}"))
    assert not any(is_glob(text) for text in ("{a}", "a", "a/b.jpg"))


@given(st.text("ab*?[]!-.", max_size=8).filter(lambda pattern: "**" not in pattern), st.text("ab.-!", max_size=6))
def test_within_a_folder_globs_agree_with_the_standard_library(pattern, name):
    expected = re.match(fnmatch.translate(pattern), name) is not None

    assert (re.fullmatch(to_regex(pattern), name, re.DOTALL) is not None) == expected


@given(st.text("ab*?/[]!-.{},^\\&|~", max_size=10), st.text(max_size=5))
def test_any_text_can_be_a_pattern(pattern, key):
    matcher([pattern])(key)
