"""The numbers by which ComfyUI sorts the prompts that wait."""

from __future__ import annotations

from collections.abc import Sequence


def number_in_front_of(prompt_id: str | None, waiting: Sequence[tuple[float, str]]) -> float | None:
    """Return a number between those of a waiting prompt and of the one in front of it.

    waiting: the numbers by which ComfyUI sorts its queue, ascending, each with its prompt's id.
    None when the prompt does not wait.
    """
    numbers = [number for number, _ in waiting]
    for place, (number, each) in enumerate(waiting):
        if each == prompt_id:
            return number - min(1, number - numbers[place - 1] if place else 1) / 2
    return None
