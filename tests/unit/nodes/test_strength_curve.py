"""Values of inputs that take a strength, and the curve that the node shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from animatediff_v2v.pipeline import AnimateDiffV2VError
from animatediff_v2v.pipeline.curve import Curve

from .declared import without_comfyui


@pytest.fixture(scope="module")
def node():
    with without_comfyui():
        from animatediff_v2v.nodes import strength_curve

        yield strength_curve


def test_numbers_curves_and_lists_are_strengths(node):
    curve = Curve("0: 0.2, 8: 1")
    assert node.strength_of("denoise", 0.5) == 0.5
    assert node.strength_of("denoise", curve) is curve
    for numbers in ([0.5, 1], (0.5, 1), np.array([0.5, 1]), torch.tensor([0.5, 1])):
        assert node.strength_of("denoise", numbers) == Curve.of_values([0.5, 1.0])
    assert node.strength_of("denoise", np.float32(0.5)) == 0.5
    for wrong in ("0.5", [], ["a"], None, np.array(["a"]), torch.zeros(2, 2)):
        with pytest.raises(AnimateDiffV2VError, match=r"denoise is .*; it must be a number"):
            node.strength_of("denoise", wrong)


@pytest.mark.parametrize(
    ("text", "count", "last"),
    [("0: 0.2, 24: 1.0", 25, 1.0), ("0: 0, -1: 1", 17, 1.0), ("0: 0.5", 17, 0.5)],
)
def test_the_picture_shows_the_frames_that_are_named(node, text, count, last):
    values = node.describe_curve({"curve": text})["values"]
    assert (len(values), values[-1]) == (count, last)


def test_the_picture_of_a_curve_over_the_steps_shows_the_noise_schedule(node):
    shown = node.describe_curve({"curve": "0%: 1, 50%: 0 hold, 100%: 0.5"})
    assert shown["is_over_steps"] and len(shown["values"]) == 101
    assert shown["values"][49:51] == [1.0, 0.0] and shown["values"][75] == 0.25
    assert not node.describe_curve({"curve": "0: 0.5"})["is_over_steps"]


def test_a_frame_far_away_is_not_shown(node):
    with pytest.raises(AnimateDiffV2VError, match="Frame 999999999 is too far away to be shown"):
        node.describe_curve({"curve": "0: 0, 999999999: 1"})


def test_a_text_that_is_no_curve_has_no_picture(node):
    with pytest.raises(AnimateDiffV2VError, match="names no frame"):
        node.describe_curve({"curve": "fox"})
