"""Speed Options in a graph, and previews by TAESD, the tiny VAE that ComfyUI's setting asks for."""

from __future__ import annotations

import av
import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import save_file

from .comfy_server import ComfyServer, message
from .conftest import write_clip
from .test_behaviour import graph, one_node, refusal, sampler
from .test_progress import preview

SPEED_OFF = {
    "deep_cache_interval": 1,
    "guidance_start": 0.0,
    "guidance_end": 1.0,
    "fp8_weights": False,
    "compile": False,
}


def speed(**values):
    return {"class_type": "ADV2V_Speed", "inputs": SPEED_OFF | values}


def with_speed(seed, **values):
    return graph(sample=sampler(seed=seed, steps=4, speed=["speed", 0]), speed=speed(**values))


def pictures(server, prompt):
    """Return the decoded frames of a prompt's video: files differ, as they contain the prompt."""
    (path,) = server.files(server.run(prompt))
    with av.open(str(path)) as container:
        return [frame.to_ndarray().tobytes() for frame in container.decode(video=0)]


def test_as_the_node_comes_it_changes_nothing(server):
    plain = pictures(server, graph(sample=sampler(seed=501, steps=4)))
    assert pictures(server, with_speed(501)) == plain


@pytest.mark.parametrize(
    "values",
    [{"deep_cache_interval": 2}, {"guidance_end": 0.6}, {"fp8_weights": True}],
    ids=str,
)
def test_an_option_changes_the_result_and_leaves_the_exact_one_as_it_was(server, values):
    plain = pictures(server, graph(sample=sampler(seed=502, steps=4)))
    changed = pictures(server, with_speed(502, **values))
    assert changed != plain
    assert pictures(server, graph(sample=sampler(seed=502, steps=4, negative=" "))) == plain


def test_the_one_node_takes_them_too(server):
    values = {"deep_cache_interval": 2, "fp8_weights": True}
    prompt = {**one_node(seed=503, speed=["speed", 0]), "speed": speed(**values)}
    assert message(server.run(prompt), "execution_success")


@pytest.mark.parametrize(
    ("values", "name", "sentence"),
    [
        (
            {"guidance_start": 0.6, "guidance_end": 0.5},
            "guidance_end",
            "it must be from 0.6 to 1",
        ),
        ({"deep_cache_interval": 0}, "deep_cache_interval", ""),
    ],
)
def test_what_cannot_be_is_refused_in_the_graph(server, values, name, sentence):
    found = refusal(server, with_speed(504, **values))
    assert name in found and sentence in found[name]


def taesd_decoder():
    """A tiny decoder with seeded random weights under the names of the original file."""
    torch.manual_seed(0)
    layers = AutoencoderTiny().decoder.layers.state_dict()
    # There the first layer, which bounds the latents, has a number of its own.
    numbered = {tuple(key.split(".", 1)): tensor for key, tensor in layers.items()}
    return {f"{int(number) + 1}.{rest}": tensor for (number, rest), tensor in numbered.items()}


def test_a_tiny_vae_makes_the_previews_where_comfyui_is_set_to_it(server, tmp_path, weights):
    with ComfyServer(
        server.comfyui, tmp_path / "base", weights, ["--preview-method", "taesd"]
    ) as other:
        write_clip(other.folder / "input" / "clip.mp4")
        without = preview(other, graph(sample=sampler(seed=505)))
        assert "TAESD previews enabled" in other.log()
        folder = other.folder / "models" / "vae_approx"
        folder.mkdir(exist_ok=True)
        save_file(taesd_decoder(), folder / "taesd_decoder.safetensors")
        before = len(other.log())
        tiny = preview(other, graph(sample=sampler(seed=505, negative=" ")))
        assert "TAESD previews enabled" not in other.log()[before:]
    assert tiny and tiny[0][1] != without[0][1]
