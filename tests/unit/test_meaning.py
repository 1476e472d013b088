"""What the miniature shows on a few clips that it was never trained on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

COUNT = 8


@pytest.fixture(scope="module")
def meaning():
    path = Path(__file__).parents[2] / "benchmarks" / "meaning.py"
    spec = importlib.util.spec_from_file_location("meaning", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["meaning"] = module
    spec.loader.exec_module(module)
    return module


def assert_holds(rows):
    for row in rows:
        assert row.holds, f"{row.name}: {row.value}, to be {row.bound}"


@pytest.fixture(scope="module")
def clips(meaning):
    return meaning.held_out_clips(COUNT)


def test_the_codec_gives_back_what_it_got(meaning, clips):
    assert_holds(meaning.codec_row(clips))


def test_prompt_and_structure_at_once(meaning, clips):
    """Floors that the committed weights clear; the aims stand in benchmarks/meaning.py."""
    wanted = [clip.wanted for clip in clips]
    for what, names in (
        ("object", [scene.colour for scene in wanted]),
        ("background", [scene.background for scene in wanted]),
    ):
        right = [meaning.has_colour(c, what, name) for c, name in zip(clips, names, strict=True)]
        assert np.mean(right) >= 0.85
    measures = meaning.measures
    paths = [measures.path_correlation(clip.seen, clip.restyled_seen) for clip in clips]
    assert np.median(paths) >= 0.75
    shapes = [measures.shape_name(clip.restyled_seen) == clip.scene.shape for clip in clips]
    assert np.mean(shapes) >= 0.6


def test_the_motion_module_calms_the_picture(meaning, clips):
    assert meaning.flicker_share(clips[:4]) <= 0.8


def test_guidance_and_negative_prompt(meaning, clips):
    assert_holds(meaning.guidance_row(clips[:4]))


def test_style_lora_grows_with_its_strength(meaning, clips):
    assert_holds(meaning.style_row(clips[:2]))


def test_measures_tell_the_truth_of_drawn_scenes(meaning):
    measures = meaning.measures
    for clip in meaning.held_out_clips(32):
        scene, seen = clip.scene, clip.seen[::5]
        assert measures.shape_name(seen) == scene.shape
        for frame in seen:
            assert measures.colour_name(frame.object_colour) == scene.colour
            assert measures.colour_name(frame.background_colour) == scene.background
        assert measures.flicker(clip.frames, scene).max() < 1e-3
