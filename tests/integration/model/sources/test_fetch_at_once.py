"""Two processes of a node that need the same bundle at the same time."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

from unit.model.bundle_files import BIN, DIGEST, FILES, XML, FakeObjects, manifest
from worker.contract.settings import ModelSettings
from worker.model.sources import bundles

URL = "s3://models/nets/one/"
WITH_MANIFEST = {**FILES, "manifest.json": manifest(FILES)}


class LoggedObjects(FakeObjects):
    """Lists once all processes are ready, logs every download in a shared file, and downloads slowly."""

    def __init__(self, log: Path, ready) -> None:
        super().__init__(URL, WITH_MANIFEST)
        self._log = log
        self._ready = ready

    def list(self, folder):
        self._ready.wait(60)
        return super().list(folder)

    def download(self, place, path, on_bytes=None):
        with self._log.open("a") as log:
            log.write(f"{os.getpid()} {place.key}\n")
        time.sleep(0.05)
        super().download(place, path, on_bytes)


def _locate_in_process(cache: Path, log: Path, ready, results) -> None:
    results.put(bundles.locate(ModelSettings(source=URL, cache_dir=cache), LoggedObjects(log, ready)).variant.digest)


def test_processes_that_start_at_once_download_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    log = tmp_path / "downloads.log"
    arguments = (tmp_path / "cache", log, context.Barrier(2), results)
    processes = [context.Process(target=_locate_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [p.exitcode for p in processes] == [0, 0]
    assert {results.get(timeout=5) for _ in processes} == {DIGEST}
    downloads = [line.split()[1].removeprefix("nets/one/") for line in log.read_text().splitlines()]
    assert sorted(downloads) == sorted([XML, BIN, *["manifest.json"] * 2])
