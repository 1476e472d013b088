"""Networks that predict v or the latents, and schedules that end without any signal."""

import copy
import json

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import load_checkpoint, read_weights
from animatediff_v2v.pipeline.models import load_models
from animatediff_v2v.pipeline.models.unet import Parameterization
from animatediff_v2v.pipeline.sampling import Conditioning, Guidance
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.samplers import SAMPLERS
from safetensors.torch import save_file

from .sampled import sample

PREDICTIONS = ["epsilon", "v_prediction", "sample"]
V = {"prediction_type": "v_prediction"}
PROMPTS = Conditioning.of(torch.ones(1, 77, 8), torch.zeros(1, 77, 8))


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def predicted(prediction, clean, noise, sigma):
    """Return a perfect network's output for clean + sigma * noise: v = alpha noise - beta clean."""
    scale = (sigma**2 + 1) ** -0.5
    return {
        "epsilon": noise,
        "v_prediction": scale * noise - sigma * scale * clean,
        "sample": clean,
    }[prediction]


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_prediction_gives_the_latents_back(prediction, sigma):
    clean, noise, sigma = draw(2, 4, 3, 3, seed=0), draw(2, 4, 3, 3, seed=1), torch.tensor(sigma)
    schedule = NoiseSchedule("linear", Parameterization(prediction))
    found = schedule.denoised(
        clean + sigma * noise, predicted(prediction, clean, noise, sigma), sigma
    )
    assert torch.allclose(found, clean, atol=1e-4)


@pytest.mark.parametrize("beta_schedule", ["linear", "sqrt_linear", "lcm"])
def test_zero_terminal_snr(beta_schedule):
    usual = NoiseSchedule(beta_schedule)
    rescaled = NoiseSchedule(beta_schedule, Parameterization("v_prediction", True))
    # 1 / sqrt(4.8973451890853435e-08) - as ComfyUI's rescale_zero_terminal_snr_sigmas has it.
    assert rescaled.sigma_max == pytest.approx(4518.76, abs=0.01)
    assert (usual.sigma_max < 40, len(rescaled.sigmas)) == (True, len(usual.sigmas))
    assert bool((rescaled.sigmas.diff() > 0).all())
    first = NoiseSchedule("linear", Parameterization("v_prediction", True)).sigma_min
    assert first == pytest.approx(NoiseSchedule("linear").sigma_min, rel=1e-4)


class Perfect:
    """A network that knows the clean latents, and answers in its own parameterization."""

    device, dtype, max_frames = torch.device("cpu"), torch.float32, None
    beta_schedule = "linear"

    def __init__(self, clean, parameterization):
        self.clean, self.parameterization = clean * 0.18215, parameterization
        self.schedule = NoiseSchedule("linear", parameterization)

    def __call__(self, sample, timestep, context, num_frames, **_others):
        sigma = self.schedule.sigma(timestep)
        noisy = sample * (sigma**2 + 1).sqrt()
        clean = self.clean.repeat(len(sample) // len(self.clean), 1, 1, 1)
        noise = (noisy - clean) / sigma
        return predicted(self.parameterization.prediction, clean, noise, sigma)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
def test_every_sampler_arrives(prediction, sampler, zero_snr):
    clean = draw(3, 4, 4, 4, seed=2)
    unet = Perfect(clean, Parameterization(prediction, zero_snr))
    found = sample(
        unet, draw(3, 4, 4, 4, seed=3), PROMPTS,
        seed=1, steps=6, sampler=sampler, guidance=Guidance(scale=3.0),
    )  # fmt: skip
    # As in ComfyUI, these two end at the lowest level, whose noise is 0.16 of these latents.
    limit = 0.25 if sampler in ("dpm_fast", "dpm_adaptive") else 0.02
    assert (found - clean).norm() / clean.norm() < limit


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ([], ("epsilon", False)),
        (["v_pred"], ("v_prediction", False)),
        (["v_pred", "ztsnr"], ("v_prediction", True)),
        (["ztsnr"], ("epsilon", False)),
    ],
)
def test_marks_in_a_checkpoint(marks, expected, weights, tmp_path):
    path = tmp_path / "marked.safetensors"
    tensors = read_weights(weights / "checkpoint.safetensors")
    save_file(tensors | {mark: torch.tensor([]) for mark in marks}, path)
    found = load_checkpoint(path)
    assert (found.prediction, found.zero_terminal_snr) == expected
    models = load_models(
        path,
        motion_module=weights / "motion_module.safetensors",
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    assert models.unet.parameterization == Parameterization(*expected)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (V, ("v_prediction", False)),
        (V | {"rescale_betas_zero_snr": True}, ("v_prediction", True)),
        ({"prediction_type": "sample"}, ("sample", False)),
        ({}, ("epsilon", False)),
        ({"prediction_type": "flow"}, "predicts 'flow', according to its scheduler_config.json"),
        ("{", "scheduler_config.json cannot be read"),
    ],
)  # fmt: skip
def test_a_scheduler_beside_the_unet(config, expected, weights, tmp_path):
    for folder in ("unet", "scheduler"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(read_weights(weights / "checkpoint.safetensors"), path)
    text = config if isinstance(config, str) else json.dumps(config)
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(text)
    if isinstance(expected, str):
        with pytest.raises(AnimateDiffV2VError, match=expected):
            load_checkpoint(path)
    else:
        found = load_checkpoint(path)
        assert (found.prediction, found.zero_terminal_snr) == expected


def test_what_is_predicted_changes_the_result(still_models):
    unet = still_models.unet
    latents, results = draw(2, 4, 4, 4, seed=4), []
    prompts = Conditioning.of(
        still_models.text_encoder.encode("a fox"), still_models.text_encoder.encode("")
    )
    for parameterization in (Parameterization(), Parameterization("v_prediction")):
        other = copy.copy(unet)
        other.parameterization = parameterization
        results.append(sample(other, latents, prompts, seed=0))
    assert not torch.allclose(*results)
