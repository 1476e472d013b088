"""The order of the requests of several keys."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from animatediff_v2v.api.queue.turns import Turns


def waiting(names):
    """Return turns with these requests: "a" is of key a, "A" of the same key with low priority."""
    turns = Turns()
    for sequence, name in enumerate(names):
        turns.add(made(name, sequence))
    return turns


def made(name, sequence):
    return SimpleNamespace(
        id=f"{name}{sequence}",
        owner=name.lower(),
        is_low_priority=name.isupper(),
        sequence=sequence,
    )


def order(turns):
    return " ".join(sorted(turns._positions, key=turns.position))


@pytest.mark.parametrize(
    ("came", "goes"),
    [
        ("aaa", "a0 a1 a2"),
        ("aaabb", "a0 b3 a1 b4 a2"),
        ("aaabc", "a0 b3 c4 a1 a2"),
        ("abab", "a0 b1 a2 b3"),
        ("AAab", "a2 b3 A0 A1"),
        ("AAB", "A0 B2 A1"),
    ],
)
def test_keys_take_turns(came, goes):
    assert order(waiting(came)) == goes


def test_a_new_key_waits_for_one_request_of_each_other_key():
    turns = waiting("a" * 100)
    for number in range(10):
        turns.begun(f"a{number}")
        if number < 9:
            turns.remove(f"a{number}")
    turns.add(made("b", 100))
    order = sorted((each for each in turns._positions if each != "a9"), key=turns.position)
    assert order[:3] == ["a10", "b100", "a11"]


def test_a_key_that_was_just_served_comes_last():
    turns = waiting("ab")
    turns.begun("a0")
    turns.add(made("a", 2))
    turns.add(made("c", 3))
    turns.remove("a0")
    turns.begun("b1")
    turns.remove("b1")
    turns.add(made("b", 4))
    assert order(turns) == "a2 c3 b4"


def test_a_cancelled_request_costs_no_turn():
    turns = waiting("a" * 50)
    for number in range(50):
        turns.remove(f"a{number}")
    turns.add(made("b", 50))
    turns.add(made("b", 51))
    turns.add(made("a", 52))
    assert order(turns) == "b50 a52 b51"
