"""Restore Frames in a running ComfyUI, and restore_frames of the one-node job."""

from __future__ import annotations

import av
import numpy as np
import pytest

from .conftest import FRAME_RATE, FRAMES
from .test_behaviour import encode_video, failure, load_video, one_node


def restore(nth=2, **loads):
    """Restore kept frames that nothing was made of: the source itself is what to expect."""
    wanted = {"all": {"select_every_nth_frame": 1}, "kept": {"select_every_nth_frame": 2}} | loads
    inputs = {
        "source_frames": ["all", 0],
        "images": ["kept", 0],
        "select_every_nth_frame": nth,
    }
    return {name: load_video(**values) for name, values in wanted.items()} | {
        "restore": {"class_type": "ADV2V_RestoreFrames", "inputs": inputs},
        "encode": encode_video(["restore", 0], format="mkv-ffv1"),
        "mask": {"class_type": "MaskToImage", "inputs": {"mask": ["restore", 1]}},
        "masks": encode_video(["mask", 0], format="mkv-ffv1"),
    }


def frames_of(path):
    with av.open(str(path)) as container:
        return np.stack([each.to_ndarray(format="rgb24") for each in container.decode(video=0)])


def test_restored_frames_look_like_the_source(server):
    entry = server.run(restore())
    made, masks = (
        frames_of(server.files({"outputs": {node: entry["outputs"][node]}})[-1])
        for node in ("encode", "masks")
    )
    source = frames_of(server.folder / "input" / "clip.mp4")
    assert made.shape == masks.shape == source.shape
    assert len(made) == FRAMES
    assert np.abs(made.astype(int) - source).mean() < 4
    assert not masks[::2].any()


@pytest.mark.parametrize(
    ("nth", "kept", "sentence"),
    [
        (3, {"select_every_nth_frame": 2}, "of which select_every_nth_frame 3 keeps"),
        (2, {"select_every_nth_frame": 2, "width": 64, "height": 128}, "another aspect ratio"),
    ],
)
def test_other_counts_and_sizes_are_refused(server, nth, kept, sentence):
    assert sentence in failure(server, restore(nth, kept=kept))


def test_no_source_is_refused_before_running(server):
    prompt = restore()
    del prompt["restore"]["inputs"]["source_frames"]
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == 400
    (error,) = answer["node_errors"]["restore"]["errors"]
    assert error["extra_info"]["input_name"] == "source_frames"


def test_colours_of_other_counts_are_refused(server):
    prompt = restore()
    inputs = {"images": ["kept", 0], "source": ["all", 0], "strength": 1.0}
    prompt["restore"] = {"class_type": "ADV2V_MatchSource", "inputs": inputs}
    del prompt["mask"], prompt["masks"]
    assert f"source has {FRAMES} frames and images {FRAMES // 2}" in failure(server, prompt)


def test_the_one_node_restores_frames(server):
    entry = server.run(one_node(select_every_nth_frame=4, restore_frames=True))
    with av.open(str(server.files(entry)[-1])) as container:
        assert container.streams.video[0].average_rate == FRAME_RATE
        assert sum(1 for _ in container.decode(video=0)) == FRAMES
