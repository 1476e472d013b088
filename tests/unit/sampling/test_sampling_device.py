"""Latents that stay on the UNet's device between its passes.

On PyTorch's meta device, which stands for an accelerator here, an operator refuses tensors of two
devices, and reading a number raises: both would fail, or wait, on a graphics card.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.memory.tracer import MetaDevice
from animatediff_v2v.pipeline.sampling import sample
from animatediff_v2v.pipeline.sampling.denoise import DenoiseBoth
from animatediff_v2v.pipeline.sampling.finite_results import stopping
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.samplers import SAMPLERS
from animatediff_v2v.pipeline.sampling.schedulers import sampling_sigmas
from animatediff_v2v.pipeline.sampling.source_blend import SourceBlend

META = torch.device("meta")
READS = {"dpm_adaptive": "it reads the errors of its steps"}


class Copies(MetaDevice):
    """Counts the copies from the device to the CPU, which wait for it."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(operator, types, args, kwargs)
        if operator is torch.ops.aten._to_copy.default:
            self.count += args[0].device == META and result.device != META
        return result

    def ran(self, operator, inputs, results):
        pass


class Half:
    """A model whose clean latents are half of what it sees."""

    def __call__(self, noisy, sigma, step):
        return schedule().denoised(noisy, noisy * 0.5, sigma)

    def keep_unconditional(self):
        pass

    def unconditional(self):
        return torch.empty(3, 4, 8, 8, device=META)


def schedule(name="lcm"):
    return NoiseSchedule(name)


def test_the_stand_in_refuses_what_an_accelerator_would():
    latents = torch.empty(3, 4, 8, 8, device=META)
    with pytest.raises(RuntimeError, match="device"):
        latents * torch.ones(1)
    assert (latents * torch.tensor(2.0)).device == META
    with pytest.raises((RuntimeError, NotImplementedError)):
        float(latents.sum())


@pytest.mark.parametrize("name", sorted(SAMPLERS.keys() - READS))
@torch.inference_mode()
def test_no_sampler_mixes_devices_or_waits(name):
    spec, latents = SAMPLERS[name], torch.empty(3, 4, 8, 8, device=META)
    sigmas = sampling_sigmas(schedule("sqrt_linear"), scheduler="normal", steps=4)
    model = DenoiseBoth(Half(), Half())
    noise = spec.step_noise(latents, 1, sigmas)
    with Copies() as copies:
        result = spec.run(model, latents, sigmas, noise, schedule("sqrt_linear"))
    assert (result.device, copies.count) == (META, 0)


def test_the_source_is_blended_on_the_device():
    source = torch.empty(3, 4, 8, 8, device=META)
    blend = SourceBlend(mask=torch.ones(1, 64, 64), strength=0.5)
    model = blend.around(Half(), source=source, noise=source, schedule=schedule())
    assert model(source, torch.tensor(2.0), 0).device == META


@pytest.mark.parametrize(
    ("changes", "frames", "device"),
    [
        ({}, 16, "cuda"),
        ({}, 128, "cuda"),
        ({}, 129, "cpu"),
        ({"chunks": sample.ChunkSizes(1, None)}, 16, "cpu"),
        ({"custom_sampler": lambda *_: None}, 16, "cpu"),
        ({"make_guided": lambda *_: None}, 16, "cpu"),
        ({"unet": SimpleNamespace(device=torch.device("cpu"))}, 16, "cpu"),
        ({"unet": SimpleNamespace(device=torch.device("mps"))}, 16, "cpu"),
    ],
)
def test_where_latents_stay(changes, frames, device):
    facts = {
        "unet": SimpleNamespace(device=torch.device("cuda")),
        "chunks": None,
        "custom_sampler": None,
        "make_guided": sample.GuidedModel,
    }
    latents = torch.empty(frames, 4, 64, 64, device=META)
    chosen = sample._Run._sampling_device(SimpleNamespace(**facts | changes), latents)
    assert chosen.type == device


def test_a_result_that_is_not_finite_is_told_in_the_next_step():
    """A tensor on an accelerator is known when the next step is: the stand-in is a subclass."""

    class OnDevice(torch.Tensor):
        device = torch.device("cuda")

    results = iter([torch.zeros(2), torch.full((2,), torch.nan), torch.zeros(2)])
    model = stopping(
        lambda *_: next(results).as_subclass(OnDevice), dtype=torch.float16, guidance_scale=7.0
    )
    model(None, None, 0)
    model(None, None, 1)
    with pytest.raises(AnimateDiffV2VError, match="Step 2 gives latents that are not finite"):
        model(None, None, 2)
