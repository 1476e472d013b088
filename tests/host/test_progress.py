"""Messages to the frontend while a job runs: progress, animated preview, end."""

from __future__ import annotations

import io
import re
from itertools import groupby, pairwise

import numpy as np
import pytest
from PIL import Image, ImageSequence

from .comfy_server import message
from .conftest import FRAMES, SIZE
from .test_behaviour import encode_video, failure, frames_of, graph, load_video, one_node, sampler

WINDOWS = {
    "class_type": "ADV2V_ContextOptions",
    "inputs": {
        "length": 4,
        "overlap": 2,
        "stride": 1,
        "schedule": "standard_static",
        "fuse": "pyramid",
        "closed_loop": False,
    },
}
JOBS = {
    "one node": (one_node(seed=401, num_inference_steps=8), "job"),
    "sampler": (graph(sample=sampler(seed=401, steps=8)), "sample"),
    "windows": (
        graph(
            sample=sampler(seed=402, steps=4, context_options=["windows", 0]),
            windows=WINDOWS,
        ),
        "sample",
    ),
    "loading": (
        {"load": load_video(skip_first_frames=1), "encode": encode_video(["load", 0])},
        "load",
    ),
    "encoding": (
        {"load": load_video(skip_first_frames=2), "encode": encode_video(["load", 0])},
        "encode",
    ),
}


# What a node says that it is doing, in this order.
ENCODING, DECODING = r"Encoded \d of 8 frames", r"Decoded \d of 8 frames"
STAGES = {
    "job": [
        "Loading the checkpoint…",
        "Reading the video…",
        ENCODING,
        "Preparing the first step…",
        r"Sampling step \d of \d",
        "Decoding the frames…",
        DECODING,
        r"Wrote AnimateDiffV2V_\d+_?\.mp4",
        r"8 frames in \d+\.\d s",
    ],
    "sample": [
        "Encoding the frames…",
        ENCODING,
        "Preparing the first step…",
        r"Sampling step \d of \d",
        "Decoding the frames…",
        DECODING,
        r"8 frames in \d+\.\d s",
    ],
}


@pytest.mark.parametrize(("prompt", "node_id"), JOBS.values(), ids=JOBS)
def test_the_bar_rises_to_the_end(server, prompt, node_id):
    with server.watched() as watcher:
        server.run(prompt, client=watcher.client)
        watcher.until(lambda: watcher.of("execution_success"))
        shares = watcher.shares(node_id)
    assert shares[-1] == 1
    assert all(before <= after for before, after in pairwise(shares))
    # One bar from the beginning, not one for each phase that starts again.
    assert shares[0] < (0.9 if len(shares) > 2 else 1.1)
    lines = [text.split("\n\n")[0] for node, text in watcher.said if node == node_id]
    stages = STAGES.get(node_id, [])
    seen = [next((each for each in stages if re.fullmatch(each, line)), line) for line in lines]
    assert [stage for stage, _ in groupby(seen)] == stages


def preview(server, prompt, **extra):
    with server.watched() as watcher:
        server.run(prompt, client=watcher.client, **extra)
        watcher.until(lambda: watcher.of("execution_success"))
    return watcher.pictures


def test_all_frames_play_while_sampling(server):
    pictures = preview(server, graph(sample=sampler(seed=403)))
    told, data = pictures[0]
    assert told["node_id"] == "sample"
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.n_frames == FRAMES // 2
        assert picture.info["loop"] == 0
        shapes = []
        for index in range(picture.n_frames):
            picture.seek(index)
            shapes.append((picture.size, picture.convert("RGB").tobytes()))
    assert shapes[0][0] == (256, 256 * SIZE[1] // SIZE[0] + 1)
    assert len({pixels for _, pixels in shapes}) > 1


def test_the_miniatures_colours_are_those_of_the_result(server):
    """Its latents are not Stable Diffusion 1.5's, whose colours ComfyUI's previewers know."""
    prompt = one_node(
        video="miniature_clip.mp4",
        select_every_nth_frame=8,
        denoise=0.1,  # so that every step has the colours of the result
        seed=409,
        prompt="a red square on a blue striped background",
    )
    with server.watched() as watcher:
        entry = server.run(prompt, client=watcher.client)
        watcher.until(lambda: watcher.of("execution_success"))
        _, data = watcher.pictures[-1]
    made = frames_of(server.files(entry)[0])
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.n_frames == len(made)
        shown = mean_colour(frame.convert("RGB") for frame in ImageSequence.Iterator(picture))
    assert np.abs(shown - mean_colour(made)).max() < 20, (shown, mean_colour(made))


def mean_colour(pictures):
    return np.mean([np.asarray(each, np.float32).mean((0, 1)) for each in pictures], axis=0)


def test_one_frame_is_shown_as_comfyui_shows_it(server):
    prompt = graph(load=load_video(frame_load_cap=1), sample=sampler(seed=404))
    _, data = preview(server, prompt)[0]
    assert data[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize("method", ["none", "auto", "taesd"])
def test_the_preview_method_is_obeyed(server, method):
    """TAESD without its file falls back, as in ComfyUI's own sampler."""
    prompt = graph(sample=sampler(seed=405, negative=method))
    before = len(server.log())
    with server.watched() as watcher:
        extra = {"preview_method": method}
        body = {"prompt": prompt, "client_id": watcher.client, "extra_data": extra}
        status, answer = server.post("/prompt", body)
        assert status == 200
        server.wait(answer["prompt_id"])
        watcher.until(lambda: watcher.of("execution_success"))
        pictures = watcher.pictures
    assert bool(pictures) == (method != "none")
    assert ("TAESD previews enabled" in server.log()[before:]) == (method == "taesd")


@pytest.mark.parametrize("name", ["one node", "sampler"])
def test_stopping_while_sampling_leaves_comfyui_usable(server, name):
    prompts = {
        "one node": one_node(seed=406, num_inference_steps=1000),
        "sampler": graph(sample=sampler(seed=406, steps=1000)),
    }
    before = len(server.log())
    with server.watched() as watcher:
        prompt_id = server.queue(prompts[name], client=watcher.client)
        watcher.until(lambda: watcher.pictures)
        server.post("/interrupt", {})
        entry = server.wait(prompt_id)
    assert message(entry, "execution_interrupted")["node_id"] in ("job", "sample")
    assert "Traceback" not in server.log()[before:]
    server.run(one_node(seed=407))


def test_an_error_leaves_comfyui_usable(server):
    # Linked, so that it is not known before.
    windows = {**WINDOWS, "inputs": WINDOWS["inputs"] | {"length": ["length", 0]}}
    prompt = graph(
        sample=sampler(seed=408, context_options=["windows", 0]),
        windows=windows,
        length={"class_type": "PrimitiveInt", "inputs": {"value": 64}},
    )
    sentence = failure(server, prompt)
    assert "context length is 64" in sentence and "at most 32" in sentence
    server.run(one_node(seed=408))
