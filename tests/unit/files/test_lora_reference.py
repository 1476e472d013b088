"""The files that a LoRA's name, path or URL refers to, and the errors for missing ones."""

import pytest
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.files import find_lora

FILES = (
    "plain.safetensors",
    "styles/ink.safetensors",
    "old.pt",
    "lcm/pytorch_lora_weights.safetensors",
)


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        path = tmp_path / "loras" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "loras"


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("plain.safetensors", "plain.safetensors"),
        ("plain", "plain.safetensors"),
        ("old", "old.pt"),
        ("styles/ink.safetensors", "styles/ink.safetensors"),
        ("styles\\ink.safetensors", "styles/ink.safetensors"),
        ("styles/ink", "styles/ink.safetensors"),
        ("https://example.org/models/plain.safetensors?download=true", "plain.safetensors"),
        ("https://example.org/a/PLAIN/../plain.safetensors", "plain.safetensors"),
        ("someone/plain", "plain.safetensors"),
        ("someone/repository/plain.safetensors", "plain.safetensors"),
        ("someone/lcm", "lcm/pytorch_lora_weights.safetensors"),
    ],
)
def test_found(folder, reference, found):
    assert find_lora(reference, folders=[folder]) == folder / found


def test_a_path_needs_no_folder(folder):
    path = folder / "plain.safetensors"
    assert find_lora(str(path), folders=[]) == path


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("absent.safetensors", "There is no LoRA absent.safetensors"),
        ("styles/absent.safetensors", "There is no LoRA styles/absent.safetensors"),
        ("../absent", "There is no LoRA ../absent"),
        ("https://example.org/x/absent.safetensors", "curl -L -o"),
        ("someone/absent", "hf download someone/absent --local-dir"),
        ("someone/absent/a.safetensors", "hf download someone/absent a.safetensors --local-dir"),
    ],
)
def test_absent(folder, reference, says):
    with pytest.raises(AnimateDiffV2VError) as raised:
        find_lora(reference, folders=[folder])
    assert says in str(raised.value)
    assert str(folder) in str(raised.value)
