"""The sizes of chunks, and their halving when memory runs out.

The devices are fakes.
"""

import logging

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models.batching import ChunkSizes, ShrinkingBatch


class Device:
    """Runs parts of at most `room` rows, and remembers the sizes that it was asked for."""

    def __init__(self, room):
        self.room = room
        self.asked = []

    def run(self, part):
        self.asked.append(len(part))
        if len(part) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.tensor([float(row) for row in part])


@pytest.mark.parametrize(
    ("rows", "size", "room", "asked"),
    [
        (0, 8, 8, []),
        (1, 8, 1, [1]),
        (8, 8, 8, [8]),
        (20, 8, 8, [8, 8, 4]),
        (20, 8, 4, [8, 4, 4, 4, 4, 4]),
        (9, 8, 3, [8, 4, 2, 2, 2, 2, 1]),
        (3, 8, 1, [3, 1, 1, 1]),
        (5, 1, 1, [1, 1, 1, 1, 1]),
        (7, 5, 1, [5, 2, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_parts_shrink_until_they_fit_and_stay_small(rows, size, room, asked):
    device = Device(room)
    parts = list(ShrinkingBatch("rows").run(device.run, range(rows), size))
    assert device.asked == asked
    assert torch.cat([*parts, torch.empty(0)]).tolist() == list(range(rows))


def test_memory_that_runs_out_later_on():
    device = Device(4)

    def run(part):
        if part[0] >= 4:
            device.room = 2
        return device.run(part)

    parts = list(ShrinkingBatch("rows").run(run, range(10), 4))
    assert device.asked == [4, 4, 2, 2, 2]
    assert torch.cat(parts).tolist() == list(range(10))


def test_one_row_too_many_is_a_sentence():
    parts = ShrinkingBatch("frames of the VAE").run(Device(0).run, range(4), 4)
    with pytest.raises(
        AnimateDiffV2VError,
        match="too little memory for one of the frames of the VAE: use a smaller width and height",
    ) as caught:
        list(parts)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_other_errors_pass_through_untouched():
    def run(part):
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        list(ShrinkingBatch("rows").run(run, range(4), 4))


def test_the_log_says_so_once(caplog):
    with caplog.at_level(logging.WARNING):
        list(ShrinkingBatch("frames of the VAE").run(Device(4).run, range(20), 8))
    assert [record.getMessage() for record in caplog.records] == [
        "The device's memory ran out: continuing with 4 frames of the VAE at a time."
    ]


@pytest.mark.parametrize(
    ("device", "frames", "side", "passes"),
    [
        ("cpu", 2, 32, 2),
        ("cpu", 8, 32, 2),
        ("cpu", 9, 32, 1),
        ("cpu", 16, 64, 1),
        ("cuda", 16, 64, 2),
    ],
)
def test_both_prompts_go_together_on_accelerators_and_with_few_pixels(device, frames, side, passes):
    usual = ChunkSizes.default(torch.device(device), pixels=frames * side * side)
    assert usual.passes == passes
