"""Resizing stays in Pillow, outside the graph: inside, it takes 4 to 15 times as long (infra/decisions, pitfall 13)."""

from __future__ import annotations

from integration.model.tiny_network import SIZE, build, save
from worker.model.inference.graph import prepare


def test_the_graph_takes_pixels_of_its_own_size_and_resizes_nothing(tmp_path):
    prepared = prepare(save(build(), tmp_path))

    assert list(prepared.model.input(0).shape) == [1, SIZE, SIZE, 3]
    assert not [op for op in prepared.model.get_ops() if op.get_type_name() == "Interpolate"]
