from __future__ import annotations

import gzip
import io

import pytest

from producer.sources import line_reader, list_formats
from producer.sources.item import Item
from producer.sources.list_formats import ListFormat
from worker.contract.errors import SourceError


def read(text, form=None):
    body = text if isinstance(text, bytes) else text.encode()
    return [item for _, item in list_formats.read_entries(io.BytesIO(body), form, "list")]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("a.txt", "txt"),
        ("a.LST", "txt"),
        ("a.csv.gz", "csv"),
        ("s3://b/x.ndjson", "jsonl"),
        ("manifest.json", "inventory"),
    ],
)
def test_the_format_follows_from_the_name(place, expected):
    assert list_formats.format_from_name(place) == expected


def test_text_lines_are_keys_unchanged():
    text = "\ufeffa b.jpg\r\n\n  c.jpg \n#d%20e.jpg\nf\u2028g.jpg\n\x85h.jpg"

    assert [item.key for item in read(text)] == ["a b.jpg", "  c.jpg ", "#d%20e.jpg", "f\u2028g.jpg", "\x85h.jpg"]
    assert read("a.jpg") == [Item("a.jpg", None, "", None)]


def test_csv_has_a_header_and_quoted_fields():
    text = 'Size,Key,ETag,Last_Modified,note\n7,"a, ""b"".jpg","""e1""",1970-01-01T00:01:00Z,x\n,"c\nd.jpg",,,\n\n'

    assert read(text, ListFormat.CSV) == [Item('a, "b".jpg', 7, "e1", 60.0), Item("c\nd.jpg", None, "", None)]
    assert read("url\ns3://b/a%20.jpg\n", ListFormat.CSV)[0].key == "s3://b/a%20.jpg"


def test_json_lines_are_strings_or_objects():
    text = '"a.jpg"\n{"url": "s3://b/c.jpg", "size": 5}\n\n{"key":"d.jpg","etag":"e","extra":{"x":1}}\n'

    assert read(text) == [Item("a.jpg"), Item("s3://b/c.jpg", 5), Item("d.jpg", None, "e")]


@pytest.mark.parametrize(
    ("text", "form", "match"),
    [
        ("a,b\n1,2\n", "csv", "has no column `key` or `url`.*a, b"),
        ("", "csv", "no column `key`"),
        ("key\na,b\n", "csv", "line 2: 2 fields"),
        ('key\n"a\n', "csv", "not CSV"),
        ("key,size\na,big\n", "csv", "line 2.*number of bytes"),
        ("key,last_modified\na,now\n", "csv", "ISO time"),
        ('"a"\n{oops\n', "jsonl", "line 2: not JSON"),
        ("[1]\n", "jsonl", "neither a string nor an object"),
        ('"a"\n""\n', "jsonl", "line 2: an empty text cannot be a key"),
        ('{"name": "a"}\n', "jsonl", "no text under `key`"),
        ('{"key": 5}\n', "jsonl", "no text under `key`"),
        (b"a\nb\xff\n", "txt", "line 2: not UTF-8"),
        ("x" * 70_000, "txt", "line 1: longer than"),
        ("[" * 50_000, "jsonl", "line 1: not JSON"),
        ('"a"\n' + '{"a":' * 10_000, "jsonl", "line 2: not JSON"),
        (r'"a\ud800.jpg"', "jsonl", "line 1: .*not valid Unicode text"),
        (r'{"url": "\udcff"}', "jsonl", "line 1: .*not valid Unicode text"),
        ('{"key": "a", "size": 1e999}', "jsonl", "line 1: inf is not the size"),
        ('{"key": "a", "size": NaN}', "jsonl", "line 1: nan is not the size"),
        ('{"key": "a", "size": [1]}', "jsonl", r"line 1: \[1\] is not the size"),
        ('{"key": "a", "size": true}', "jsonl", "line 1: True is not the size"),
        ('{"key": "a", "size": -1}', "jsonl", "line 1: -1 is not the size"),
        ('{"key": "a", "size": 1.5}', "jsonl", "line 1: 1.5 is not the size"),
        ('{"key": "a", "size": %s}' % ("9" * 100), "jsonl", "line 1: 9+ is not the size"),
        ("key,size\na,-1\n", "csv", "line 2: '-1' is not the size"),
        ("key,size\na,1_000\n", "csv", "line 2: '1_000' is not the size"),
        ('{"key": "a", "etag": {"x": 1}}', "jsonl", "line 1: .*is not an ETag"),
        (r'{"key": "a", "etag": "\ud800"}', "jsonl", "line 1: .*is not an ETag"),
        ('{"key": "a", "etag": "%s"}' % ("e" * 5000), "jsonl", "line 1: .*is not an ETag"),
        ('{"key": "a", "last_modified": [1]}', "jsonl", r"line 1: \[1\] is not a time"),
        ('{"key": "a", "last_modified": "0001-01-01"}', "jsonl", "line 1: .*out of range"),
    ],
)
def test_an_unreadable_line_is_named_with_its_number(text, form, match):
    with pytest.raises(SourceError, match=match):
        read(text, ListFormat(form))


def test_sizes_of_programs_without_whole_numbers_are_read():
    assert [item.size for item in read('{"key": "a", "size": 5.0}\n{"key": "b", "size": " 7 "}\n')] == [5, 7]


def test_keys_are_written_as_a_list_or_refused_by_their_number():
    lines = "".join(list_formats.key_lines(['a "b".jpg', "ü\n.jpg"]))

    assert [item.key for item in read(lines, ListFormat.JSONL)] == ['a "b".jpg', "ü\n.jpg"]
    with pytest.raises(SourceError, match=r"key 2: .*not valid Unicode text"):
        list(list_formats.key_lines(["a.jpg", "\ud800.jpg"]))


def test_gzip_is_recognised_by_its_content(tmp_path):
    (tmp_path / "plain-name.txt").write_bytes(gzip.compress(b"a.jpg\n"))
    with line_reader.open_list(str(tmp_path / "plain-name.txt"), None) as file:
        assert file.read() == b"a.jpg\n"


def test_a_truncated_gzip_is_reported_as_damaged(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"a.jpg\n" * 1000)[:-12])
    with pytest.raises(SourceError, match="damaged"), line_reader.open_list(str(tmp_path / "a.gz"), None) as file:
        file.read()


def test_a_missing_list_is_named(tmp_path):
    with (
        pytest.raises(SourceError, match=r"gone\.txt cannot be read"),
        line_reader.open_list(str(tmp_path / "gone.txt"), None),
    ):
        pass
