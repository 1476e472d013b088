"""Memory in ComfyUI: when networks are loaded, how long they are kept, and when they are freed."""

from __future__ import annotations

import re
import shutil

import pytest

from .comfy_server import ComfyServer, message
from .conftest import write_clip
from .test_behaviour import graph, load_model, one_node, sampler
from .test_speed import SPEED_OFF

OURS = ["Autoencoder", "ClipTextModel", "MotionUNet"]
LORA = "style_lora.safetensors"


def with_lora(**values):
    stack = {"lora_1": LORA, "model_strength_1": 1.0, "clip_strength_1": 0.0} | values
    return {
        **one_node(lora_stack=["stack", 0], seed=101),
        "stack": {"class_type": "ADV2V_LoraStack", "inputs": stack},
    }


def change_last_weight(path):
    data = bytearray(path.read_bytes())
    data[-2] ^= 1  # the lowest bit of a float16
    path.write_bytes(data)


def loads(server, prompt):
    """Return the networks that ComfyUI loaded onto the device for a prompt, sorted."""
    before = len(server.log())
    entry = server.run(prompt)
    assert len(message(entry, "execution_cached")["nodes"]) < len(prompt)  # Something ran.
    return sorted(re.findall(r"Requested to load (\w+)", server.log()[before:]))


def test_a_changed_prompt_seed_or_lora_loads_nothing_that_stayed_the_same(server):
    server.unload()
    assert loads(server, one_node(seed=101)) == OURS
    assert loads(server, one_node(seed=102)) == []
    assert loads(server, one_node(seed=102, prompt="a mountain")) == []
    assert loads(server, one_node(seed=102, select_every_nth_frame=4)) == []
    assert loads(server, with_lora()) == ["MotionUNet"]
    assert loads(server, with_lora(model_strength_1=0.5)) == ["MotionUNet"]
    assert loads(server, with_lora(model_strength_1=0.5, clip_strength_1=0.5)) == ["ClipTextModel"]
    assert loads(server, one_node(seed=103)) == ["ClipTextModel", "MotionUNet"]
    # The graph's node finds what the one node has loaded.
    assert loads(server, graph(sample=sampler(seed=101))) == []
    assert loads(server, graph(sample=sampler(seed=102))) == []


def test_changed_content_under_the_same_name_is_loaded(server):
    folder = server.folder / "models" / "loras"
    shutil.copy(folder / LORA, folder / "changing.safetensors")
    prompt = with_lora(lora_1="changing.safetensors", model_strength_1=0.25)
    assert "MotionUNet" in loads(server, prompt)
    entry = server.run(prompt)
    assert set(message(entry, "execution_cached")["nodes"]) == set(prompt)
    change_last_weight(folder / "changing.safetensors")
    assert "MotionUNet" in loads(server, prompt)


def test_unloading_gives_everything_back_and_the_next_run_works(server):
    server.run(one_node(seed=111))
    server.run(graph(sample=sampler(seed=111)))
    told = server.get("/probe")
    assert told["loaded"] == OURS and told["patchers"] == 3
    server.unload()
    assert server.get("/probe")["patchers"] == 0
    assert loads(server, graph(sample=sampler(seed=112))) == OURS


def test_models_of_two_packs_live_side_by_side(server):
    server.unload()
    prompt = graph(
        sample=sampler(seed=121),
        neighbour={"class_type": "ProbeNeighbourModel", "inputs": {"width": 8}},
        work={
            "class_type": "ProbeNeighbourWork",
            "inputs": {"model": ["neighbour", 0], "images": ["sample", 0]},
        },
    )
    entry = server.run(prompt)
    (text,) = entry["outputs"]["work"]["text"]
    assert text.endswith(", 8")
    assert server.get("/probe")["loaded"] == sorted([*OURS, "Linear"])
    prompt["sample"] = sampler(seed=122, model=["model", 0])
    server.run(prompt)
    assert server.get("/probe")["loaded"] == sorted([*OURS, "Linear"])


def test_twenty_runs_take_no_more_memory_than_the_first_ones(server):
    """Both ways to the same result in turn: the single node, and the graph."""

    def run(seed):
        prompts = (one_node(seed=seed), graph(sample=sampler(seed=seed)))
        server.run(prompts[seed % 2])
        return server.get("/probe")["resident_bytes"]

    settled = max(run(200 + seed) for seed in range(4))
    after = [run(300 + seed) for seed in range(20)]
    assert after[-1] <= settled * 1.05, [round(each / 2**20) for each in (settled, *after)]


def test_a_changed_model_file_is_loaded_by_the_graph(server):
    folder = server.folder / "models" / "animatediff_models"
    shutil.copy(folder / "motion_module.safetensors", folder / "changing.safetensors")
    prompt = graph(model=load_model(motion_module="changing.safetensors"), sample=sampler(seed=131))
    server.run(prompt)
    assert set(message(server.run(prompt), "execution_cached")["nodes"]) == set(prompt)
    change_last_weight(folder / "changing.safetensors")
    entry = server.run(prompt)
    assert set(message(entry, "execution_cached")["nodes"]) == {"load"}


def test_weights_in_8_bits_are_a_network_of_their_own(server):
    """It is kept from run to run like the exact network, and freed like it."""
    server.unload()
    stored = {"speed": {"class_type": "ADV2V_Speed", "inputs": SPEED_OFF | {"fp8_weights": True}}}
    for seed, expected in ((141, OURS), (142, [])):
        assert loads(server, one_node(seed=seed, speed=["speed", 0]) | stored) == expected
    for seed, expected in ((143, ["MotionUNet"]), (144, [])):
        sample = sampler(seed=seed, speed=["speed", 0])
        assert loads(server, graph(sample=sample, **stored)) == expected
    assert loads(server, graph(sample=sampler(seed=145))) == ["MotionUNet"]
    server.unload()
    assert server.get("/probe")["patchers"] == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--force-fp16", "--cache-classic", "--disable-smart-memory"], ""),
        (["--fp8_e4m3fn-unet", "--fp8_e4m3fn-text-enc"], "AnimateDiff V2V keeps"),
        (["--fp8_e5m2-unet"], "AnimateDiff V2V stores them in torch.float8_e4m3fn"),
        (["--bf16-unet", "--fp16-vae", "--cache-none"], ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_of_the_host(server, tmp_path, weights, flags, said):
    with ComfyServer(server.comfyui, tmp_path / "base", weights, flags) as other:
        write_clip(other.folder / "input" / "clip.mp4")
        for prompt in (one_node(), graph()):
            other.files(other.run(prompt))
        assert said in other.log()
        other.unload()
        assert other.get("/probe")["patchers"] == 0
