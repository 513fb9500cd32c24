"""Outputs of a running job come into a folder once each, when they are done, and complete."""

from __future__ import annotations

import gzip
import json

from producer.delivery import Delivery
from unit.producer.test_download import DEST, Store, job
from worker.contract import outcome_codec
from worker.contract.messages import OutcomeKind, OutputKind
from worker.contract.storage import manifest

KEYS = ["a.jpg", "sub/b c.jpg", "ü.jpg", "d.jpg"]


class RunningJob:
    """A job in a fake ledger and store; `done` gives images their outcomes and outputs."""

    def __init__(self, folder, outputs=(OutputKind.CUTOUT,), keys=KEYS) -> None:
        self.keys, self.store = keys, Store()
        self.states = bytearray(len(keys))
        self.reads = 0
        self.view = job(len(keys), outputs).model_copy(update={"ok": 0})
        lines = "".join(json.dumps({"key": key}) + "\n" for key in keys)
        part = f"{manifest.job_folder(DEST, 'job')}manifest/part-00000.jsonl.gz"
        self.store.objects[part] = gzip.compress(lines.encode())
        self.folder = folder / "out"
        self.delivery = Delivery(self.store, self, self.view, self.folder)

    def outcome_blocks(self, name, total):
        self.reads += 1
        yield bytes(self.states)

    def done(self, *indices: int, kind: OutcomeKind = OutcomeKind.OK) -> None:
        for index in indices:
            self.states[index] = outcome_codec.NUMBERS[kind]
            self.view = self.view.model_copy(update={kind.value: getattr(self.view, kind.value) + 1})
            for output in self.view.options.outputs if kind is not OutcomeKind.FAILED else ():
                key = self.view.options.output_key(self.keys[index], output)
                self.store.objects[str(DEST / key)] = f"{output} {index}".encode()

    def collected(self) -> list[str]:
        return [image.key for image in self.delivery.collect(self.view)]

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())


def test_each_image_is_delivered_once_and_as_soon_as_it_is_done(tmp_path):
    running = RunningJob(tmp_path)
    assert running.collected() == []

    running.done(2, 1)
    assert running.collected() == ["sub/b c.jpg", "ü.jpg"]
    assert running.files() == ["sub/b c.png", "ü.png"]

    running.done(0, kind=OutcomeKind.FAILED)
    running.done(3, kind=OutcomeKind.SKIPPED)
    assert running.collected() == ["d.jpg"], "outputs that were up to date are outputs too"
    assert running.delivery.images == 3


def test_nothing_is_read_while_nothing_is_new(tmp_path):
    running = RunningJob(tmp_path)
    running.done(0)
    running.collected()
    reads = running.reads

    assert running.collected() == [] and running.reads == reads


def test_all_kinds_of_output_come_together(tmp_path):
    running = RunningJob(tmp_path, outputs=(OutputKind.MASK, OutputKind.CUTOUT))
    running.done(0)

    (image,) = running.delivery.collect(running.view)

    assert [file.key for file in image.files] == ["mask/a.png", "cutout/a.png"]
    assert running.files() == ["cutout/a.png", "mask/a.png"]


def test_an_output_that_has_vanished_is_said_to_be_gone(tmp_path):
    running = RunningJob(tmp_path)
    running.done(0)
    del running.store.objects[str(DEST / "a.png")]

    (image,) = running.delivery.collect(running.view)

    assert image.files[0].gone and running.files() == []


def test_a_key_that_leaves_the_folder_is_no_file_and_stops_no_other(tmp_path):
    running = RunningJob(tmp_path, keys=["../../evil.jpg", "b.jpg"])
    running.done(0, 1)

    evil, good = running.delivery.collect(running.view)

    assert "cannot be a file below" in evil.problem and not good.problem
    assert running.files() == ["b.png"] and not list(tmp_path.parent.glob("evil*"))


def test_an_output_whose_folder_is_a_file_says_so_and_the_others_come(tmp_path):
    running = RunningJob(tmp_path, keys=["k.jpg", "k.png/inner.jpg", "z.jpg"])
    running.done(0)
    running.collected()
    running.done(1, 2)

    inner, last = running.delivery.collect(running.view)

    assert "k.png/inner.png cannot be written" in inner.problem and not last.problem
    assert running.files() == ["k.png", "z.png"] and running.collected() == []


def test_a_job_that_is_still_listed_delivers_nothing(tmp_path):
    running = RunningJob(tmp_path)
    running.view = running.view.model_copy(update={"total": None})

    assert running.collected() == [] and running.reads == 0
