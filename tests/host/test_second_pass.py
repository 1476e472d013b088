"""A second pass at a larger size: refine of the one-node job, and a graph with an upscale model."""

from __future__ import annotations

import av
import pytest
import torch
from safetensors.torch import save_file

from .conftest import FRAMES, SIZE
from .test_behaviour import graph, one_node, sampler


def shape_of(server, entry):
    with av.open(str(server.files(entry)[-1])) as container:
        (stream,) = container.streams.video
        return stream.width, stream.height, sum(1 for _ in container.decode(stream))


@pytest.mark.parametrize("upscale", ["image", "latent"])
def test_the_one_node_refines(server, upscale):
    prompt = one_node(refine=1.5, refine_upscale=upscale, num_inference_steps=1)
    width, height = (int(1.5 * side) for side in SIZE)
    with server.watched() as watcher:
        entry = server.run(prompt, client=watcher.client)
        watcher.until(lambda: watcher.of("execution_success"))
    assert shape_of(server, entry) == (width, height, FRAMES // 2)
    lines = [text.split("\n\n")[0] for node, text in watcher.said if node == "job"]
    sampling = dict.fromkeys(line for line in lines if line.startswith("Sampling"))
    assert list(sampling) == [f"Sampling step 1 of 1, pass {number} of 2" for number in (1, 2)]


def test_an_upscale_model_goes_between_two_samplers(server):
    """As the help page of the sampler says."""
    folder = server.folder / "models" / "upscale_models"
    folder.mkdir(exist_ok=True)
    # A Real-ESRGAN of the compact kind, which adds nothing to its enlarged input.
    save_file(
        {
            "body.0.weight": torch.zeros(4, 3, 3, 3),
            "body.0.bias": torch.zeros(4),
            "body.1.weight": torch.zeros(4),
            "body.2.weight": torch.zeros(12, 4, 3, 3),
            "body.2.bias": torch.zeros(12),
        },
        folder / "twice.safetensors",
    )
    prompt = graph(
        first=sampler(steps=1),
        upscaler={
            "class_type": "UpscaleModelLoader",
            "inputs": {"model_name": "twice.safetensors"},
        },
        enlarged={
            "class_type": "ImageUpscaleWithModel",
            "inputs": {"upscale_model": ["upscaler", 0], "image": ["first", 0]},
        },
        scaled={
            "class_type": "ImageScaleBy",
            "inputs": {"image": ["enlarged", 0], "upscale_method": "lanczos", "scale_by": 0.75},
        },
        sample=sampler(images=["scaled", 0], steps=1, denoise=0.35),
    )
    width, height = (int(1.5 * side) for side in SIZE)
    assert shape_of(server, server.run(prompt)) == (width, height, FRAMES // 2)
