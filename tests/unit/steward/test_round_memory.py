"""What is remembered of jobs lasts for a round of looks without them, and takes a limited memory."""

from __future__ import annotations

from worker.steward.round_memory import RoundMemory


def test_a_value_is_forgotten_after_a_whole_round_without_its_name():
    memory = RoundMemory[int]()
    memory.keep({"a": 1}, ends_round=False)
    memory.keep({"b": 2}, ends_round=True)
    memory.keep({"a": 3}, ends_round=False)
    assert (memory.get("a"), memory.get("b"), memory.values()) == (3, 2, {"a": 3, "b": 2})

    memory.keep({}, ends_round=True)

    assert (memory.get("a"), memory.get("b")) == (3, None)
    memory.keep({}, ends_round=True)
    assert memory.values() == {}


def test_a_round_of_one_look_forgets_all_names_that_it_lacks():
    memory = RoundMemory[int]()
    for values in ({"a": 1, "b": 1}, {"b": 2}):
        memory.keep(values, ends_round=True)
        assert memory.values() == values


def test_no_more_names_than_allowed_are_remembered_and_those_for_good():
    memory = RoundMemory[int](most=2)
    for number in range(3):
        memory.keep(dict.fromkeys("abcd", number), ends_round=True)
        assert memory.values() == {"a": number, "b": number}
