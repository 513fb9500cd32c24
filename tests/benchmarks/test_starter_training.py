"""Train the starter model in miniature. PyTorch is not a dependency of this project: `make starter` installs it."""

from __future__ import annotations

import csv
import importlib

import numpy as np
import pytest

from support.training import small_library
from worker.training import library, train
from worker.training.network import Starter, parameters

torch = importlib.import_module("torch")

pytestmark = pytest.mark.benchmarks


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(train, "PHASES", ((0.5, 32), (1.0, 64)))
    monkeypatch.setattr(train, "BATCH", 4)
    monkeypatch.setattr(train, "_SAVE_STEPS", 2)
    monkeypatch.setattr(train, "_SHOW_STEPS", 2)
    monkeypatch.setattr(library, "load", lambda folder, part: small_library())


def weights(path) -> dict:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_an_interrupted_training_run_ends_with_the_same_weights(tmp_path, small):
    config = train.TrainingConfig(images=32, seed=1, loaders=0, bf16=False)
    whole = weights(train.train(tmp_path, tmp_path / "whole", config, lambda line: None))

    def interrupt(line: str) -> None:
        if line.startswith("6/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(tmp_path, tmp_path / "halves", config, interrupt)
    again = weights(train.train(tmp_path, tmp_path / "halves", config, lambda line: None))

    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    with (tmp_path / "halves" / train.CURVE).open(encoding="utf-8", newline="") as file:
        assert [row["images"] for row in csv.DictReader(file)][-1] == "32"


def test_a_different_training_run_is_not_resumed(tmp_path, small):
    train.train(tmp_path, tmp_path / "out", train.TrainingConfig(8, loaders=0, bf16=False), lambda line: None)

    with pytest.raises(ValueError, match="holds a training run of 8 images"):
        train.train(tmp_path, tmp_path / "out", train.TrainingConfig(16, loaders=0, bf16=False), lambda line: None)


def test_the_logits_have_the_size_of_the_picture():
    network = Starter().eval()

    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 64, 96)).shape == (2, 1, 64, 96)
    assert parameters(network) < 800_000
