"""Count the up-to-date images of a plan: exactly if there are few, estimated from a sample if there are many."""

from __future__ import annotations

import pytest

from producer.backgrounds import OutputRequest
from producer.sources.item import Item
from producer.sources.upload import upload_folder
from producer.uptodate import SAMPLE, UpToDate, UpToDateCheck
from worker.contract import output_names
from worker.contract.errors import ObjectMissing
from worker.contract.messages import JobOptions
from worker.contract.outputs import OutputOptions
from worker.contract.provenance import MODEL, OPTIONS, SOURCE_ETAG, SOURCE_MODIFIED, SOURCE_SIZE
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo

IN, OUT = S3Url("b", "in/"), S3Url("b", "out/")
MASK = JobOptions(source=str(IN), dest=str(OUT))
BOTH = JobOptions(source=str(IN), dest=str(OUT), outputs=("mask", "cutout"))


class Bucket:
    """Objects by URL, with the answer to a HEAD request; counts HEAD requests and listed objects."""

    def __init__(self):
        self.objects: dict[str, ObjectInfo] = {}
        self.heads = self.listed = 0

    def add(self, place: S3Url, etag: str = "e", size: int = 5, **metadata: str) -> None:
        self.objects[str(place)] = ObjectInfo(place.key, size, etag, metadata)

    def output(self, key: str, options: JobOptions = MASK, etag: str = "e", model: str = "m") -> None:
        self.add(OUT / key, **{SOURCE_ETAG: etag, OPTIONS: options.digest(), MODEL: model})

    def list(self, folder, *, after=""):
        for name, found in sorted(self.objects.items()):
            if name.startswith(str(folder)) and name > str(folder / after):
                self.listed += 1
                yield ObjectInfo(name.removeprefix(str(folder)), found.size, found.etag, {})

    def head(self, place):
        self.heads += 1
        if str(place) not in self.objects:
            raise ObjectMissing(f"{place} does not exist")
        return self.objects[str(place)]

    def content_etag(self, place):
        return self.head(place).etag


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


def check(bucket, items, options=MASK, *, root=IN, models=("m",)) -> UpToDate:
    found = UpToDateCheck(bucket, options, root, options_digest=options.digest(), models=models)
    for item in items:
        found.add(item)
    return found.result()


def test_every_reason_for_work_counts(bucket):
    items = [Item(f"{name}.jpg", 5, "e") for name in ("fresh", "source", "options", "model", "missing", "no_metadata")]
    bucket.output("fresh.png")
    bucket.output("source.png", etag="of another picture")
    bucket.output("options.png", BOTH)
    bucket.output("model.png", model="another")
    bucket.add(OUT / "no_metadata.png")

    assert check(bucket, items) == UpToDate(1, "5 with outputs, all checked")


def test_all_outputs_of_an_image_must_exist(bucket):
    for kind in ("mask", "cutout"):
        bucket.output(f"{kind}/a.png", BOTH)
    bucket.output("mask/b.png", BOTH)

    assert check(bucket, [Item("a.jpg", 5, "e"), Item("b.jpg", 5, "e")], BOTH).images == 1


def test_a_missing_etag_is_requested(bucket):
    for key in ("a", "b", "c"):
        bucket.output(f"{key}.png")
    bucket.add(IN / "a.jpg", "e")
    bucket.add(IN / "b.jpg", "another")

    assert check(bucket, [Item("a.jpg"), Item("b.jpg"), Item("c.jpg")]).images == 1


def test_without_workers_any_model_counts_and_the_plan_says_so(bucket):
    bucket.output("a.png", model="whatever")

    found = check(bucket, [Item("a.jpg", 5, "e")], models=())

    assert found == UpToDate(1, "1 with outputs, all checked; no worker is live, so any model counts")


def test_an_empty_destination_costs_one_listing(bucket):
    bucket.add(IN / "a.jpg")

    assert check(bucket, [Item("a.jpg", 5, "e")]).images == 0
    assert (bucket.heads, bucket.listed) == (0, 0)


def test_job_folders_are_skipped(bucket):
    for index in range(50):
        bucket.add(OUT / f"{output_names.JOB_PREFIX}job/{index}")
    for key in ("A", "_", "_maskmilla", "z"):
        bucket.output(f"{key}.png")

    assert check(bucket, [Item(f"{key}.jpg", 5, "e") for key in ("A", "_", "_maskmilla", "z")]).images == 4
    assert bucket.listed == 5  # four outputs and the first of the rest


@pytest.mark.parametrize("stale", [slice(0, 600), slice(1400, 2000)])
def test_many_images_are_estimated_from_a_sample(bucket, stale):
    items = [Item(f"{index}.jpg", 5, "e") for index in range(3000)]
    for item in items[:2000]:
        bucket.output(f"{item.key[:-4]}.png", etag="old" if item in items[stale] else "e")

    found = check(bucket, items)

    assert bucket.heads == SAMPLE
    assert found.images == pytest.approx(1400, rel=0.2)
    assert found.basis == f"estimated: 2,000 with outputs, {found.images // 20} of 100 checked are up to date"


def test_a_local_file_that_changed_since_its_upload_is_work(bucket, tmp_path):
    copies = upload_folder(OUT, tmp_path)
    options = JobOptions(source=str(copies), dest=str(OUT))
    for name in ("same", "changed", "new", "gone"):
        file = tmp_path / f"{name}.jpg"
        file.write_bytes(b"12345")
        if name != "new":
            bucket.add(copies / file.name, **{"maskmill-mtime-ns": str(file.stat().st_mtime_ns)})
        bucket.output(f"{name}.png", options)
    (tmp_path / "changed.jpg").write_bytes(b"54321!")
    (tmp_path / "gone.jpg").unlink()

    items = [Item(f"{name}.jpg", 5) for name in ("same", "changed", "new", "gone")]
    assert check(bucket, items, options, root=tmp_path) == UpToDate(1, "4 with outputs, all checked")


def test_a_new_background_leaves_no_image_up_to_date(bucket, tmp_path):
    picture = tmp_path / "studio.png"
    picture.write_bytes(b"picture")
    request = OutputRequest(OutputOptions(outputs=("composite",)), picture)
    bucket.output("a.png")

    assert request.with_background_if_uploaded(bucket, OUT) is None
    found = UpToDateCheck(bucket, MASK, IN, options_digest=None, models=())
    found.add(Item("a.jpg", 5, "e"))
    assert found.result().images == 0

    bucket.upload = lambda file, place: bucket.add(place, "of the picture")
    assert request.with_background(bucket, OUT) == request.with_background_if_uploaded(bucket, OUT)
    assert request.with_background_if_uploaded(bucket, OUT).background_etag == "of the picture"


def test_without_etags_size_and_time_of_the_source_decide(bucket):
    made = {SOURCE_SIZE: "5", SOURCE_MODIFIED: "100", OPTIONS: MASK.digest(), MODEL: "m"}
    for name in ("same", "other"):
        bucket.objects[str(IN / f"{name}.jpg")] = ObjectInfo(name, 5, "", {}, 100.0 if name == "same" else 200.0)
        bucket.add(OUT / f"{name}.png", **made)

    assert check(bucket, [Item("same.jpg"), Item("other.jpg")]).images == 1
