"""CLIP's vision model, against transformers' own."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models.vision_encoder import _prepared, load_vision_model
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection


def saved(path, width, act):
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=16 if width >= 1024 else max(1, width // 64),
        image_size=28,
        patch_size=14,
        projection_dim=24,
        hidden_act=act,
    )
    model = CLIPVisionModelWithProjection(config).eval()
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path)
    return model


@pytest.mark.parametrize(
    ("width", "act"), [(32, "quick_gelu"), (128, "quick_gelu"), (1280, "gelu"), (1664, "gelu")]
)
def test_it_gives_what_the_original_gives(width, act, tmp_path):
    original = saved(tmp_path / "vision.safetensors", width, act)
    model = load_vision_model(
        tmp_path / "vision.safetensors", device=torch.device("cpu"), dtype=torch.float32
    )
    image = torch.rand(40, 60, 3)
    with torch.no_grad():
        wanted = original(_prepared(image, 28), output_hidden_states=True)
    embedding, tokens = (model.encode(image, as_tokens=each) for each in (False, True))
    assert torch.allclose(embedding, wanted.image_embeds, atol=1e-5)
    assert torch.allclose(tokens, wanted.hidden_states[-2], atol=1e-4)
    assert torch.equal(model.empty(as_tokens=False), torch.zeros(1, 24))


def test_other_files_are_refused(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(AnimateDiffV2VError, match="where a vision model is wanted"):
        load_vision_model(
            tmp_path / "other.safetensors", device=torch.device("cpu"), dtype=torch.float32
        )
