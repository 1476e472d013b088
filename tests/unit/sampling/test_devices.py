"""A video on several devices: the bits of one device, and one end for all."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError, Cancelled
from animatediff_v2v.pipeline.memory.copies import copy_to
from animatediff_v2v.pipeline.models.controlnet import load_control_network
from animatediff_v2v.pipeline.models.feature_cache import FeatureCache
from animatediff_v2v.pipeline.models.ip_adapter import load_ip_adapter_network
from animatediff_v2v.pipeline.prompts import PromptTrack
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Control,
    Guidance,
    Guides,
    SamplingSettings,
    SourceBlend,
    SpeedOptions,
    StyleImages,
    passes,
    sample_latents,
)
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.passes import Execution
from animatediff_v2v.pipeline.sampling.tiles import TiledModel
from safetensors.torch import save_file

from ..files import miniatures as mini

FRAMES, SIDE = 7, 4
WINDOWS = {"length": 3, "overlap": 1}
# Features of 32 channels, in float16, for the prompt and the negative one.
ROOM_FOR_ONE_WINDOW = 4 * 2 * 3 * 32 * SIDE * SIDE
CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def guides(models, weights, tmp_path_factory):
    """A ControlNet with a frame for each of the video, and an IP-Adapter whose images travel."""
    path = tmp_path_factory.mktemp("adapter") / "base.safetensors"
    save_file(mini.ip_adapter("base", mini.as_diffusers(models.unet.unet)), path)
    pictures = torch.rand(FRAMES, 8 * SIDE, 8 * SIDE, 3, generator=torch.Generator().manual_seed(1))
    control = Control(
        network=load_control_network(weights / "controlnet.safetensors", **CPU), frames=pictures
    )
    style = StyleImages(
        adapter=load_ip_adapter_network(path, **CPU),
        embeddings=draw(3, mini.IMAGE_CHANNELS),
        empty=torch.zeros(1, mini.IMAGE_CHANNELS),
        arrangement="travel",
    )
    blend = SourceBlend(strength=0.3)
    return Guides(controls=(control,), styles=(style,), source_blend=blend)


def prompts(models):
    encode = models.text_encoder.encode
    travelling = PromptTrack(torch.cat([encode("a fox"), encode("a cat")]), (0, FRAMES - 1))
    return Conditioning(travelling, PromptTrack(encode("blurred")))


def sampled(models, devices, guides=None, *, context=None, model=GuidedModel, **settings):
    """Return the result, and the shares of the work that were reported."""
    unet, shares = models.unet, []
    replicas = [copy_to(unet, unet.device) for _ in range(devices - 1)]
    chosen = {"seed": 3, "steps": 2, "guidance": Guidance(scale=4.0)} | settings
    result = sample_latents(
        unet,
        draw(FRAMES, 4, SIDE, SIDE),
        prompts(models),
        SamplingSettings(context=ContextOptions(**WINDOWS | (context or {})), **chosen),
        guides=guides or Guides(),
        make_guided=partial(model, execution=Execution(replicas)),
        progress=lambda step: shares.append(step.fraction),
    )
    return result, shares


# The number of devices, and the settings.
CASES = {
    "a sampler with noise": (2, {"sampler": "euler_ancestral"}),
    "a sampler with history and noise": (3, {"sampler": "dpmpp_2m_sde"}),
    "a sampler with two predictions": (2, {"sampler": "euler_cfg_pp"}),
    "no guidance, uniform windows": (
        3, {"guidance": Guidance(scale=1.0), "context": {"schedule": "standard_uniform"}},
    ),
    "windows with strides": (2, {"context": {"schedule": "looped_uniform", "stride": 2}}),
    "windows of several lengths": (3, {"context": {"schedule": "batched", "fuse": "flat"}}),
    "unsampling, linear weights": (
        2, {"noise_type": "unsample", "context": {"fuse": "overlap-linear"}},
    ),
    "deep features": (3, {"speed": SpeedOptions(deep_cache_interval=2)}),
    "a memory": (3, {"context": {"memory": "ContextRef"}}),
    "a bank": (3, {"context": {"memory": "FeatureBank"}}),
    "a reused window": (2, {"context": {"memory": "NaiveReuse"}}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_those_of_one_device(case, models, guides):
    devices, settings = CASES[case]
    expected, shares = sampled(models, 1, guides, **settings)
    result, reported = sampled(models, devices, guides, **settings)
    assert torch.equal(result, expected)
    assert reported == shares


def test_without_room_for_all_deep_features_the_first_windows_keep_theirs(models, monkeypatch):
    speed = {"speed": SpeedOptions(deep_cache_interval=2)}
    roomy, _ = sampled(models, 1, **speed)
    monkeypatch.setitem(FeatureCache.__init__.__kwdefaults__, "max_bytes", ROOM_FOR_ONE_WINDOW)
    expected, _ = sampled(models, 1, **speed)
    assert torch.equal(sampled(models, 3, **speed)[0], expected)
    assert not torch.equal(expected, roomy)


@pytest.mark.parametrize("noise_type", ["default", "unsample"])
def test_tiles_and_phases_share_the_copies_of_guides(noise_type, models, guides, monkeypatch):
    made = []
    monkeypatch.setattr(passes, "copy_to", lambda *given: made.append(given) or copy_to(*given))
    tiled = {"model": partial(TiledModel, tile=(SIDE, 2)), "noise_type": noise_type, "steps": 1}
    expected, _ = sampled(models, 1, guides, **tiled)
    result, _ = sampled(models, 2, guides, **tiled)
    assert torch.equal(result, expected)
    assert len(made) == len(guides.controls) + len(guides.styles)


class UNet:
    """A network that gives zeros, and acts on each of its calls."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, act):
        self.act, self.calls = act, 0

    def __call__(self, sample, *_others, **_more):
        self.calls += 1
        self.act(self.calls)
        return torch.zeros_like(sample)


def run(*unets, on_passes=lambda _share: None):
    """Call the model once, for 20 windows."""
    model = GuidedModel(
        unets[0],
        schedule=NoiseSchedule("linear"),
        conditioning=Conditioning.of(draw(1, 77, 8), draw(1, 77, 8)),
        guidance=Guidance(scale=1.0),
        context=ContextOptions(length=2, overlap=0),
        on_passes=on_passes,
        execution=Execution(unets[1:]),
    )
    return model(draw(40, 4, 2, 2), torch.tensor(2.0), 0)


def test_all_devices_compute_at_the_same_time():
    together = threading.Barrier(3, timeout=20)
    unets = [UNet(lambda call: together.wait() if call == 1 else None) for _ in range(3)]
    run(*unets)
    # Twenty windows, two in a pass.
    assert sum(unet.calls for unet in unets) == 10


def fail(call):
    if call == 2:
        raise AnimateDiffV2VError("The device is gone.")


def test_an_error_on_one_device_ends_all():
    unets = [UNet(fail), UNet(lambda _call: None)]
    before = threading.active_count()
    with pytest.raises(AnimateDiffV2VError, match=r"^The device is gone\.$"):
        run(*unets)
    assert threading.active_count() == before


def test_cancelling_ends_all():
    unets = [UNet(lambda _call: None) for _ in range(2)]

    def stop(share):
        if share >= 0.2:
            raise Cancelled

    before = threading.active_count()
    with pytest.raises(Cancelled):
        run(*unets, on_passes=stop)
    assert sum(unet.calls for unet in unets) < 10
    assert threading.active_count() == before


def test_a_device_whose_memory_runs_out_takes_fewer_passes_from_then_on():
    def no_room_for_two(sample):
        if len(sample) > 2:
            raise torch.OutOfMemoryError("out of memory")

    class SmallUNet(UNet):
        def __call__(self, sample, *others, **more):
            no_room_for_two(sample)
            return super().__call__(sample, *others, **more)

    result = run(UNet(lambda _call: None), SmallUNet(lambda _call: None))
    assert torch.equal(result, run(UNet(lambda _call: None)))
