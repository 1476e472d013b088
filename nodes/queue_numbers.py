"""The numbers by which ComfyUI sorts waiting prompts."""

from __future__ import annotations

from collections.abc import Sequence


def number_in_front_of(prompt_id: str | None, waiting: Sequence[tuple[float, str]]) -> float | None:
    """Return a queue number that puts a new prompt directly in front of a waiting one.

    None when the prompt is not waiting.

    >>> number_in_front_of("b", [(3, "a"), (4, "b")])
    3.5

    Args:
        prompt_id: the id of a prompt.
        waiting: the numbers by which ComfyUI sorts its queue, ascending, with the prompts' ids.
    """
    numbers = [number for number, _ in waiting]
    for index, (number, each) in enumerate(waiting):
        if each == prompt_id:
            return number - min(1, number - numbers[index - 1] if index else 1) / 2
    return None
