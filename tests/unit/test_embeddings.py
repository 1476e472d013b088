"""Textual inversions in every layout that trainers have written, as ComfyUI reads them."""

from collections import OrderedDict

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.prompts.embeddings import embedding_finder, read_embedding
from safetensors.torch import save_file

VECTORS = torch.arange(4 * 768, dtype=torch.float32).reshape(4, 768)
LARGER = torch.ones(4, 1280)


def parameters(tensor):
    return torch.nn.ParameterDict({"*": torch.nn.Parameter(tensor)})


PICKLED = {
    "Automatic1111's": {"string_to_token": {"*": 265}, "string_to_param": {"*": VECTORS}},
    "Automatic1111's, ParameterDict": {
        "string_to_token": {"*": 265},
        "string_to_param": parameters(VECTORS),
        "name": "x",
        "step": 1,
    },
    "another placeholder": {"string_to_param": {"<cat>": VECTORS}},
    "a list of inversions": [{"<cat>": VECTORS[0]}, {"<v1.5 dog>": VECTORS[1:]}],
    "a list for several encoders": [{"a": LARGER}, {"b": VECTORS}],
    "diffusers'": {"<cat-toy>": VECTORS},
    "a batch of one": {"emb_params": VECTORS[None]},
    "ordered": OrderedDict(emb_params=VECTORS),
    "half precision": {"emb_params": VECTORS.half()},
}
SAFETENSORS = {
    "Automatic1111's": {"emb_params": VECTORS},
    "a batch of one": {"emb_params": VECTORS[None]},
    "SDXL's": {"clip_g": LARGER, "clip_l": VECTORS},
    "diffusers'": {"<cat>": VECTORS},
}


def expected(case):
    return VECTORS.half() if case == "half precision" else VECTORS


# PyTorch before 1.6, which wrote the older form, was before textual inversions with ParameterDict.
FORMS = [(c, old) for c in PICKLED for old in (False, True) if "ParameterDict" not in c or not old]


@pytest.mark.parametrize("suffix", ["pt", "bin"])
@pytest.mark.parametrize(("case", "legacy"), FORMS)
def test_pickled(tmp_path, case, legacy, suffix):
    path = tmp_path / f"style.{suffix}"
    torch.save(PICKLED[case], path, _use_new_zipfile_serialization=not legacy)
    assert torch.equal(read_embedding(path), expected(case))
    assert torch.equal(embedding_finder(tmp_path)("style"), expected(case))


@pytest.mark.parametrize("case", SAFETENSORS)
def test_safetensors(tmp_path, case):
    save_file(SAFETENSORS[case], tmp_path / "style.safetensors")
    assert torch.equal(read_embedding(tmp_path / "style.safetensors"), VECTORS)


def test_one_vector(tmp_path):
    torch.save({"<cat>": VECTORS[0]}, tmp_path / "cat.bin")
    assert torch.equal(read_embedding(tmp_path / "cat.bin"), VECTORS[:1])


@pytest.mark.parametrize(
    "name", ["sub/style", "sub/style.pt", "v1.5 style", "v1.5 style.pt", "my-style_2"]
)
def test_names(tmp_path, name):
    path = tmp_path / f"{name.removesuffix('.pt')}.pt"
    path.parent.mkdir(exist_ok=True)
    torch.save({"emb_params": VECTORS}, path)
    assert torch.equal(embedding_finder(tmp_path)(name), VECTORS)


def test_nothing_outside_of_the_folder(tmp_path):
    (tmp_path / "inside").mkdir()
    torch.save({"emb_params": VECTORS}, tmp_path / "outside.pt")
    assert embedding_finder(tmp_path / "inside")("../outside") is None


@pytest.mark.parametrize("content", [{"a": torch.zeros(2, 3, 4)}, {"step": 1}, [], [{"a": 1}]])
def test_no_vectors(tmp_path, content):
    torch.save(content, tmp_path / "style.pt")
    with pytest.raises(AnimateDiffV2VError, match=r"style\.pt is not a textual inversion"):
        read_embedding(tmp_path / "style.pt")


def test_a_state_that_pretends_to_be_a_parameter_dict(tmp_path):
    """Its attributes are data, whatever they are called."""
    hostile = parameters(VECTORS)
    hostile.__dict__.update(__class__=3, items=4, _parameters={"*": 5, "x": VECTORS})
    torch.save({"string_to_param": hostile}, tmp_path / "style.pt")
    assert torch.equal(read_embedding(tmp_path / "style.pt"), VECTORS)


@pytest.mark.parametrize(
    "name", ["a" * 300, "a/" * 3_000, "a\0b", "\ud800", "..", "/", ""], ids=ascii
)
def test_what_no_file_can_be_named_is_not_there(tmp_path, name):
    assert embedding_finder(tmp_path)(name) is None
