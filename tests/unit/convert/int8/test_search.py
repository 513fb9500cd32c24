"""The order in which parts of a network are put back in float, and the figures that are kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import pytest

from worker.convert.int8.outcome import LIMIT, Figures, Outcome, Step
from worker.convert.int8.rounding_noise import LayerNoise
from worker.convert.int8.search import search, within_limit


def figures(iou: float, mae: float = 0.001) -> Figures:
    return Figures(iou, iou - 0.1, mae, 12, 0.3)


@dataclass
class Network:
    """A candidate with 20 layers of equal cost; it holds once `needed` of them are in float."""

    needed: int
    answer: bool = False
    """Whether the answer is quantised."""
    holds_with_float_answer: bool = False
    maps: bool = False
    """Whether residual sums are quantised."""
    holds_with_float_maps: bool = False
    in_float: list[str] = field(default_factory=list)
    float_answer_calls: int = 0
    float_maps_calls: int = 0

    def float_maps(self) -> bool:
        self.float_maps_calls += 1
        return self.maps

    def float_answer(self) -> bool:
        self.float_answer_calls += 1
        return self.answer

    def noise(self) -> list[LayerNoise]:
        return [LayerNoise(f"layer {index}", 0.1 / (index + 1), 0.0) for index in range(20)]

    def float_layers(self, layers) -> None:
        self.in_float += [one.name for one in layers]

    def products(self) -> dict[str, int]:
        return {f"layer {index}": 10 for index in range(20)}

    def judge(self) -> Figures:
        good = (
            len(self.in_float) >= self.needed
            or (self.holds_with_float_answer and self.float_answer_calls)
            or (self.holds_with_float_maps and self.float_maps_calls)
        )
        return figures(0.99 if good else 0.7 + 0.01 * len(self.in_float))


def test_a_network_that_holds_stays_in_int8():
    network = Network(needed=0)

    found = search(network, "all layers in INT8")

    assert found.holds and not network.in_float and not network.float_answer_calls
    assert [step.what for step in found.steps] == ["all layers in INT8"]
    assert (found.float_layers, found.float_share) == ((), 0)


def test_the_worst_layers_go_first_in_growing_groups_until_it_holds():
    network, told = Network(needed=3), []

    found = search(network, "all", told.append)

    assert found.holds
    assert [step.float_layers for step in found.steps] == [0, 1, 2, 4]
    assert found.steps == tuple(told)
    assert found.float_layers == ("layer 0", "layer 1", "layer 2", "layer 3") == tuple(network.in_float)
    assert found.float_share == 0.2
    assert found.steps[-1].what == "all, 4 noisy layers in float"


def test_the_answer_is_put_in_float_before_any_layer():
    network = Network(needed=99, answer=True, holds_with_float_answer=True)

    found = search(network, "all")

    assert found.holds and not network.in_float
    assert [step.what for step in found.steps] == ["all", "all, the answer in float"]


def test_sums_and_resizing_are_put_in_float_first():
    network = Network(needed=99, maps=True, answer=True, holds_with_float_maps=True)

    found = search(network, "all")

    assert found.holds and not network.in_float and not network.float_answer_calls
    assert [step.what for step in found.steps] == ["all", "all, sums and resizing in float"]


def test_what_is_in_float_stays_in_float():
    network = Network(needed=1, maps=True, answer=True)

    found = search(network, "all")

    assert [step.what for step in found.steps] == [
        "all",
        "all, sums and resizing in float",
        "all, sums and resizing in float, the answer in float",
        "all, sums and resizing in float, the answer in float, 1 noisy layers in float",
    ]


def test_the_search_ends_when_half_of_the_products_would_be_in_float():
    network = Network(needed=11)

    found = search(network, "all")

    assert not found.holds
    assert len(network.in_float) == 8
    assert found.float_share == 0.4
    assert len(found.float_layers) == 8


@pytest.mark.parametrize(
    ("iou", "mae", "holds"),
    [
        (0.98, 0.02, True),
        (0.9799, 0.001, False),
        (0.99, 0.0201, False),
        (float("nan"), 0.0, False),
        (1, float("nan"), 0),
    ],
)
def test_both_limits_count(iou, mae, holds):
    assert (LIMIT.iou, LIMIT.mae) == (0.98, 0.02)
    assert within_limit(figures(iou, mae)) == holds


def outcome(*, holds: bool) -> Outcome:
    steps = (
        Step("all", figures(0.9), 0),
        Step("answer", figures(0.97), 0),
        Step("more", figures(0.99 if holds else 0.95), 1),
    )
    return Outcome(holds, steps, 0.6, ({"layer": "conv", "channels": [3], "means": [226.0]},), ("conv",), 0.25)


def test_the_outcome_survives_the_way_from_the_child_process():
    assert Outcome.read(asdict(outcome(holds=True))) == outcome(holds=True)


def test_the_facts_name_every_step_and_what_was_changed():
    facts = outcome(holds=True).as_dict()

    assert facts["offered"] is True
    assert facts["summary"].startswith("INT8 holds: more: IoU 0.9900 (worst 0.8900), MAE 0.0010 on 12")
    assert [step["iou"] for step in facts["steps"]] == [0.9, 0.97, 0.99]
    assert facts["constants_taken_off"][0]["channels"] == [3]
    assert (facts["float_layers"], facts["float_share"]) == (["conv"], 0.25)


def test_what_is_not_offered_is_said_with_the_best_figures():
    facts = outcome(holds=False).as_dict()

    assert facts["offered"] is False
    assert facts["summary"] == (
        "INT8 is not offered: the best of 3 forms, answer, has IoU 0.9700 (worst 0.8700), MAE 0.0010 on 12 "
        "photographs; the limits are IoU 0.98 and MAE 0.02"
    )
