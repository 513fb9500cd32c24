"""The progress of a download from S3, as boto3 reports it."""

from __future__ import annotations

from unit.model.bundle_files import BIN, FILES, XML, manifest
from worker.contract.s3url import S3Url
from worker.contract.settings import ModelSettings
from worker.model.sources import bundles

LARGE = {**FILES, BIN: bytes(range(256)) * (20 << 12)}
"""Weights of 20 MiB: boto3 requests parts of 8 MiB."""


def test_progress_grows_and_ends_with_the_whole_file(installation, store, tmp_path):
    folder = S3Url.folder(f"s3://{installation.bucket}/nets/")
    for name, data in {**LARGE, "manifest.json": manifest(LARGE)}.items():
        store.put(folder / name, data, content_type="application/octet-stream")
    seen: list[tuple[str, int, int]] = []
    settings = ModelSettings(source=str(folder), cache_dir=tmp_path)

    bundles.locate(settings, store, on_progress=lambda *report: seen.append(report))

    assert [name for name, *_ in dict.fromkeys((name, total) for name, _, total in seen)] == [XML, BIN]
    received = [count for name, count, _ in seen if name == BIN]
    assert len(received) > 3
    assert received == sorted(received)
    assert seen[-1] == (BIN, len(LARGE[BIN]), len(LARGE[BIN]))
