from __future__ import annotations

import errno
import gzip
import json
import secrets
from pathlib import Path

import pytest

from producer.download import download, download_all
from support.fakes import FakeStore
from worker.contract.errors import ObjectArchived, ObjectMissing, SourceError, StoreUnavailable
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobOptions, OutcomeKind, OutputKind
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest

DEST = S3Url("out", "masks/")


class Store(FakeStore):
    def download(self, place: S3Url, path: Path) -> None:
        if str(place) not in self.objects:
            raise ObjectMissing(f"{place} does not exist")
        part = path.with_name(f".{secrets.token_hex(4)}")
        try:
            part.write_bytes(self.objects[str(place)])
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


class FakeLedger:
    def __init__(self, kinds: list[OutcomeKind | None]) -> None:
        self._kinds = kinds
        self.asked: list[tuple[int, int]] = []

    def outcomes(self, job: str, first: int, count: int) -> list[OutcomeKind | None]:
        self.asked.append((first, count))
        return self._kinds[first : first + count]


def job(total: int | None, outputs: tuple[OutputKind, ...] = (OutputKind.MASK,)) -> JobView:
    options = JobOptions(source="s3://in/", dest=str(DEST), outputs=outputs)
    return JobView(job="job", status=JobStatus.RUNNING, options=options, chunk_images=16, created_at=0.0, total=total)


def store_with(keys: list[str], outputs: dict[str, bytes]) -> Store:
    lines = "".join(json.dumps({"key": key, "size": 1, "etag": ""}) + "\n" for key in keys)
    part = manifest.job_folder(DEST, "job") / "manifest/part-00000.jsonl.gz"
    return Store({str(part): gzip.compress(lines.encode())} | {str(DEST / key): data for key, data in outputs.items()})


def test_only_outputs_of_finished_images_are_fetched(tmp_path):
    kinds = [OutcomeKind.OK, OutcomeKind.FAILED, OutcomeKind.SKIPPED, OutcomeKind.DEAD, OutcomeKind.CANCELLED, None]
    keys = [f"d/{index}.jpg" for index in range(6)]
    store = store_with(keys, {f"d/{index}.png": b"%d" % index for index in range(6)})

    paths = [fetched.path for fetched in download(store, FakeLedger(kinds), job(6), tmp_path / "new")]

    assert paths == [tmp_path / "new/d/0.png", tmp_path / "new/d/2.png"]
    assert [path.read_bytes() for path in paths] == [b"0", b"2"]
    assert sorted(tmp_path.rglob("*.png")) == paths


def test_every_kind_of_output_is_fetched(tmp_path):
    store = store_with(["a.jpg"], {"mask/a.png": b"m", "cutout/a.png": b"c"})

    both = job(1, (OutputKind.MASK, OutputKind.CUTOUT))
    paths = [fetched.path for fetched in download(store, FakeLedger([OutcomeKind.OK]), both, tmp_path)]

    assert paths == [tmp_path / "mask/a.png", tmp_path / "cutout/a.png"]


@pytest.mark.parametrize(
    "key",
    ["../evil.jpg", "a/../../evil.jpg", "a/../b.jpg", "/etc/evil.jpg", "a\0b.jpg", "//evil.jpg", "a//b.jpg", "./a.jpg"],
)
def test_keys_that_lead_out_of_the_folder_are_refused(tmp_path, key):
    folder = tmp_path / "inside"
    everything = dict.fromkeys((job(1).options.output_key(key, OutputKind.MASK), key), b"evil")

    [fetched] = download(store_with([key], everything), FakeLedger([OutcomeKind.OK]), job(1), folder)

    assert "cannot be a file below" in fetched.problem

    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("key", ["..a/b..c.jpg", "naïve #1 100%.jpg", "...jpg", "..", "a/..", "~/x.jpg"])
def test_unusual_keys_stay_below_the_folder(tmp_path, key):
    output = job(1).options.output_key(key, OutputKind.MASK)

    [fetched] = download(store_with([key], {output: b"x"}), FakeLedger([OutcomeKind.OK]), job(1), tmp_path)

    assert fetched.path.resolve().is_relative_to(tmp_path)
    assert fetched.path.read_bytes() == b"x"


def test_outcomes_requested_in_batches_stay_aligned(tmp_path):
    total = 2030
    kinds = [OutcomeKind.OK if index in (0, 999, 1000, 2029) else OutcomeKind.FAILED for index in range(total)]
    keys = [f"{index}.jpg" for index in range(total)]
    store = store_with(keys, {f"{index}.png": b"x" for index in range(total)})
    ledger = FakeLedger(kinds)

    found = list(download(store, ledger, job(total), tmp_path))

    assert [fetched.path.name for fetched in found] == ["0.png", "999.png", "1000.png", "2029.png"]
    assert ledger.asked == [(0, 1000), (1000, 1000), (2000, 30)]


def test_existing_files_are_replaced(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old and longer")

    list(download(store_with(["a.jpg"], {"a.png": b"new"}), FakeLedger([OutcomeKind.OK]), job(1), tmp_path))

    assert (tmp_path / "a.png").read_bytes() == b"new"


def test_a_missing_output_is_reported(tmp_path):
    store = store_with(["a.jpg", "b.jpg"], {"b.png": b"b"})

    first, second = download(store, FakeLedger([OutcomeKind.OK] * 2), job(2), tmp_path)

    assert first.gone and not first.path.exists()
    assert not second.gone and second.path.read_bytes() == b"b"


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "d").write_bytes(b"a file")
    store = store_with(["d/a.jpg"], {"d/a.png": b"x"})

    [fetched] = download(store, FakeLedger([OutcomeKind.OK]), job(1), tmp_path)

    assert "cannot be written" in fetched.problem and (tmp_path / "d").read_bytes() == b"a file"


def test_links_below_the_folder_are_not_followed(tmp_path):
    (tmp_path / "outside/deep").mkdir(parents=True)
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")  # the folder itself may be a link
    (tmp_path / "real/d").symlink_to(tmp_path / "outside")
    (tmp_path / "outside/victim").write_bytes(b"kept")
    (tmp_path / "real/b.png").symlink_to(tmp_path / "outside/victim")
    outputs = {"d/a.png": b"x", "d/deep/c.png": b"x", "b.png": b"new"}
    ledger = FakeLedger([OutcomeKind.OK] * 3)

    found = list(download(store_with(["d/a.jpg", "d/deep/c.jpg", "b.jpg"], outputs), ledger, job(3), tmp_path / "out"))

    assert [f"{tmp_path}/out/d is a link" in fetched.problem for fetched in found] == [True, True, False]
    assert sorted(path.name for path in (tmp_path / "outside").rglob("*")) == ["deep", "victim"]
    assert (tmp_path / "outside/victim").read_bytes() == b"kept"
    assert (tmp_path / "real/b.png").read_bytes() == b"new"


LONG = "ü" * 150 + ".jpg"  # 304 bytes; a file system takes 255


@pytest.mark.parametrize("odd", ["2//x.jpg", "../x.jpg", "k.png/inner.jpg", LONG])
def test_an_output_that_cannot_be_a_file_does_not_stop_the_others(tmp_path, odd):
    keys = ["1.jpg", "k.jpg", odd, "z.jpg"]
    outputs = {job(1).options.output_key(key, OutputKind.MASK): b"x" for key in keys}
    seen = []

    done = download_all(store_with(keys, outputs), FakeLedger([OutcomeKind.OK] * 4), job(4), tmp_path, seen.append)

    assert (done.files, done.gone, done.failed) == (3, 0, 1)
    assert len(seen) == 4
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 3


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (ObjectArchived("restore it"), False),
        (StoreUnavailable("500", of_object=True), False),
        (StoreUnavailable("away"), True),
        (OSError(errno.EACCES, "not allowed"), False),
        (OSError(errno.ENOSPC, "disk full"), True),
    ],
)
def test_only_what_every_output_would_meet_stops_a_download(tmp_path, monkeypatch, error, stops):
    store = store_with(["a.jpg", "b.jpg"], {"a.png": b"x", "b.png": b"x"})
    whole = store.download

    def failing(place, path):
        if place.key.endswith("a.png"):
            raise error
        whole(place, path)

    monkeypatch.setattr(store, "download", failing)
    ledger = FakeLedger([OutcomeKind.OK] * 2)
    if stops:
        with pytest.raises((SourceError, StoreUnavailable)):
            download_all(store, ledger, job(2), tmp_path)
    else:
        done = download_all(store, ledger, job(2), tmp_path)
        assert (done.files, done.failed) == (1, 1)


def test_a_job_that_is_still_being_listed_has_no_outputs(tmp_path):
    with pytest.raises(SourceError, match="still being listed"):
        list(download(store_with([], {}), FakeLedger([]), job(None), tmp_path))
