"""Fuzz messages, lists, events and pictures: untrusted bytes may raise the documented errors only."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import zlib
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import strategies as st
from PIL import Image

from producer.integrations.s3_events import created_objects
from producer.sources import inventory, list_formats
from producer.sources.list_formats import ListFormat
from support.fuzz import fuzz
from support.heif_files import GRID
from support.hostile import DROPPED, REFUSED, body, chunk, envelope, forged
from support.picture_files.bmp import bmp_files
from support.picture_files.coded import jpeg_files, webp_files
from support.picture_files.gif import gif_files
from support.picture_files.png import png_files
from support.picture_files.tiff import tiff_files
from worker.contract import redis_keys
from worker.contract.errors import BadMessage, ContractError, ImageError, SourceError
from worker.contract.messages import ChunkMessage
from worker.contract.queue import admission
from worker.contract.s3url import S3Url
from worker.contract.settings import LimitSettings
from worker.contract.storage import jsonlines, manifest, outcome_log
from worker.contract.storage.s3 import ObjectInfo
from worker.images.decode import decode

pytestmark = pytest.mark.timeout(0)  # limited by the time budget of `fuzz`

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=12), children, max_size=4),
    max_leaves=12,
)
FIELDS = ("schema_version", "job", "epoch", "chunk", "start", "keys")


def mutated(original: bytes) -> st.SearchStrategy[bytes]:
    """Generate copies with a few bytes changed, removed or inserted, or with the end cut off."""
    edit = st.tuples(st.integers(0, len(original)), st.integers(0, 8), st.binary(max_size=8))

    def apply(edits: list[tuple[int, int, bytes]], end: int | None) -> bytes:
        data = bytearray(original)
        for at, length, new in edits:
            data[at : at + length] = new
        return bytes(data[:end])

    return st.builds(apply, st.lists(edit, min_size=1, max_size=6), st.none() | st.integers(0, len(original)))


def test_messages():
    chunks = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON))

    def check(payload: Any) -> None:
        with contextlib.suppress(BadMessage):
            message = ChunkMessage.read(payload)
            assert ChunkMessage.read(message.model_dump(mode="json")) == message

    valid = {"schema_version": 1, "job": "j", "chunk": 0, "start": 0, "keys": ["k"]}
    plausible = chunks.map(lambda changes: valid | changes)
    assert fuzz(JSON | chunks | plausible, check) > 0


def test_envelopes(tmp_path):
    """Admission of queue entries: an admitted message has every field that kombu relies on."""
    seeds = [forged("job", "a.jpg"), envelope(zlib.compress(body(chunk())), compression=admission.COMPRESSION)]
    kinds = DROPPED | REFUSED
    seeds += [kinds[kind](tmp_path) for kind in kinds if len(kinds[kind](tmp_path)) < 5000]
    parsed = [value for value in map(_parsed, seeds) if isinstance(value, dict)]

    def check(message: Any) -> None:
        with contextlib.suppress(BadMessage):
            admitted = admission.admit(message)
            task = admitted["headers"]["id"]
            assert redis_keys.parse_task_id(task)
            fixed = admission.admit(json.loads(forged("job", "a.jpg")))
            assert _shape(admitted, task) == _shape(fixed, fixed["headers"]["id"])

    changed = st.builds(lambda seed, changes: seed | changes, st.sampled_from(parsed), _some(parsed[0]))
    inner = st.builds(
        lambda seed, part, changes: seed | {part: {**_mapping(seed.get(part)), **changes}},
        st.sampled_from(parsed),
        st.sampled_from(["headers", "properties"]),
        _some(parsed[0]["headers"] | parsed[0]["properties"]),
    )
    text = st.sampled_from([seed.encode() for seed in seeds]).flatmap(mutated).map(_parsed)
    assert fuzz(JSON | changed | inner | text, check) > 0


def _shape(envelope: dict[str, Any], task: str) -> Any:
    """An admitted envelope without the few values that come from the message."""
    headers, properties = dict(envelope["headers"]), dict(envelope["properties"])
    assert headers.pop("compression", admission.COMPRESSION) == admission.COMPRESSION
    assert headers.pop("redelivered", True) is True
    assert headers.pop("argsrepr").startswith(f"({task.split('.', maxsplit=1)[0]!r}, chunk ")
    assert {headers.pop("id"), headers.pop("root_id"), properties.pop("correlation_id")} == {task}
    info = dict(properties.pop("delivery_info"))
    assert info.pop("redelivered", True) is True and info.pop("routing_key") in redis_keys.QUEUES
    assert len(properties.pop("delivery_tag")) <= 64
    return envelope.keys(), headers, properties, info


def _some(fields: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(fields, JSON))


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


CSV = b'\xef\xbb\xbfkey,size,etag,last_modified\na/b.jpg,5,e,2026-01-31T00:00:00Z\n"c,d.jpg",,,\n'
JSONL = b'{"key": "a/b.jpg", "size": 5, "etag": "e", "modified": 1.5}\n"c.jpg"\n{"url": "s3://b/in/d.jpg"}\n'
KEY_LISTS = {ListFormat.TXT: b"a/b.jpg\ns3://b/in/c.jpg\n", ListFormat.CSV: CSV, ListFormat.JSONL: JSONL}


@pytest.mark.parametrize("form", KEY_LISTS)
def test_key_lists(form):
    """What `producer submit --manifest` reads."""
    lines = st.lists(JSON.map(lambda value: json.dumps(value).encode()), max_size=4).map(b"\n".join)

    def check(data: bytes) -> None:
        with contextlib.suppress(SourceError):
            for number, item in list_formats.read_entries(io.BytesIO(data), form, "keys"):
                assert number > 0 and item.key and item.key.encode()

    assert fuzz(mutated(KEY_LISTS[form]) | lines, check) > 0


INVENTORY = json.dumps(
    {
        "sourceBucket": "b",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, LastModifiedDate, ETag, IsLatest",
        "files": [{"key": "data/1.csv.gz", "size": 5, "MD5checksum": "0" * 32}],
    }
).encode()
ROWS = b'"b","in/a%20b.jpg","5","2026-01-31T00:00:00.000Z","e","true"\n"b","x.jpg","","","","false"\n'


def test_inventories():
    columns, root = ["bucket", "key", "size", "lastmodifieddate", "etag", "islatest"], S3Url("b", "in/")

    def check(data: tuple[bytes, bytes]) -> None:
        with contextlib.suppress(SourceError):
            inventory._read_manifest(io.BytesIO(data[0]), "manifest.json")
        with contextlib.suppress(SourceError):
            for item in inventory._rows(io.BytesIO(data[1]), "1.csv", columns, root, Counter()):
                assert item.key.encode()

    assert fuzz(st.tuples(mutated(INVENTORY), mutated(ROWS)), check) > 0


RECORD = {
    "eventName": "ObjectCreated:Put",
    "s3": {"bucket": {"name": "b"}, "object": {"key": "a.jpg", "sequencer": "1"}},
}
EVENTS: tuple[Any, ...] = (
    {"Records": [RECORD]},
    {"Records": [{"body": json.dumps({"Records": [RECORD]})}]},
    {"Type": "Notification", "Message": json.dumps({"Records": [RECORD]})},
    {"detail-type": "Object Created", "detail": {"bucket": {"name": "b"}, "object": {"key": "a.jpg", "etag": "e"}}},
    {"event_type": "create", "key": "/buckets/b/a.jpg", "message": {"new_entry": {"name": "a.jpg", "attributes": {}}}},
)


def test_events():
    """What `submit_created` reads: events of S3, EventBridge, MinIO and SeaweedFS."""
    texts = [json.dumps(event).encode() for event in EVENTS]

    def check(event: Any) -> None:
        with contextlib.suppress(SourceError):
            for found in created_objects(event):
                assert str(found.url).encode() and isinstance(found.state, str)

    changed = st.sampled_from(EVENTS).flatmap(lambda event: _some(event).map(lambda changes: event | changes))
    record = _some(RECORD).map(lambda changes: {"Records": [RECORD | changes]})
    assert fuzz(JSON | changed | record | st.sampled_from(texts).flatmap(mutated), check) > 0


class OneObject:
    """A store that returns the same bytes for every key."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def get(self, place: S3Url, *, max_bytes: int) -> tuple[bytes, ObjectInfo]:
        return self.body, ObjectInfo(place.key, len(self.body), "etag", {})

    def list(self, folder: S3Url) -> list[ObjectInfo]:
        return [ObjectInfo("part.jsonl.gz", len(self.body), "etag", {})]


PLACE = S3Url("bucket", "out/")
LINES = b'{"key": "a/b.jpg", "size": 5, "etag": "e"}\n{"key": "c.jpg", "size": null, "etag": ""}\n'
OUTCOMES = (
    b'{"index":0,"key":"a.jpg","kind":"ok","outputs":["a.png"]}\n{"index":1,"key":"b","kind":"failed","code":"x"}\n'
)


@pytest.mark.parametrize(
    "original", [LINES, OUTCOMES, b'{"total": 3, "options": {}}'], ids=["manifest", "results", "facts"]
)
def test_lists_in_s3(original):
    packed = gzip.compress(original, mtime=0)

    def check(data: bytes) -> None:
        store: Any = OneObject(data)
        for read in (
            lambda: manifest.read_part(store, PLACE, "job", 0, 2),
            lambda: list(outcome_log.newest_first(store, PLACE, "job")),
            lambda: list(outcome_log.kinds_newest_first(store, PLACE, "job")),
            lambda: outcome_log.read_json(store, PLACE, "job", "job.json"),
        ):
            with contextlib.suppress(ContractError):
                read()

    lines = mutated(original)
    assert fuzz(mutated(packed) | lines | lines.map(gzip.compress), check) > 0


def test_a_decompression_bomb_in_a_list_is_refused():
    packer = zlib.compressobj(9, wbits=31)
    body = b"".join([*(packer.compress(bytes(2**20)) for _ in range(300)), packer.flush()])
    store: Any = OneObject(body)

    with pytest.raises(ContractError, match="TooLarge"):
        list(jsonlines.read_lines(store, PLACE))


def picture(kind: str, mode: str, **options: Any) -> bytes:
    data = io.BytesIO()
    Image.effect_noise((24, 16), 60).convert(mode).save(data, kind, **options)
    return data.getvalue()


def planes() -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 1 << 16, (3, 16, 24), np.uint16)
    tifffile.imwrite(data, pixels, photometric="rgb", planarconfig="separate", compression="zlib")
    return data.getvalue()


PICTURES = {
    "jpeg": picture("JPEG", "RGB"),
    "progressive": picture("JPEG", "RGB", progressive=True),
    "cmyk": picture("JPEG", "CMYK"),
    "png": picture("PNG", "RGBA"),
    "palette": picture("PNG", "P"),
    "gif": picture("GIF", "P"),
    "webp": picture("WEBP", "RGBA"),
    "avif": picture("AVIF", "RGB"),
    "tiff": picture("TIFF", "RGB", compression="tiff_lzw"),
    "bmp": picture("BMP", "RGB"),
    "planes": planes(),
    "heic": GRID,  # without the extra it is refused by its first bytes
}


def pictures() -> list[bytes]:
    """Return files of each format and of each kind of TIFF, to change bytes of."""
    some = [*png_files(30), *tiff_files(each=1), *jpeg_files(12), *webp_files(8), *gif_files(12), *bmp_files(30)]
    return [*PICTURES.values(), *(file.data for file in some)]


def test_pictures():
    limits = LimitSettings(max_object_mib=1, max_megapixels=1)

    def check(data: bytes) -> None:
        with contextlib.suppress(ImageError):
            decode(data, limits)

    assert fuzz(st.sampled_from(pictures()).flatmap(mutated), check) > 0
