"""CLIP's text encoder against transformers', and weights, chunks and embeddings in a prompt."""

import logging

import pytest
import torch
import transformers
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.models.text_encoder import ClipTextEncoder, ClipTextModel

SIZES = {
    "vocab_size": 49_408,
    "hidden_size": 32,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
}
PROMPT = "a photo of a cat"
LAYERS = SIZES["num_hidden_layers"]


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(**SIZES, hidden_act="quick_gelu")
    model = transformers.CLIPTextModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module")
def ours(theirs):
    model = ClipTextModel(**SIZES)
    # transformers took the prefix away in version 5, and has had position_ids as a buffer.
    prefix = "text_model."
    tensors = {prefix + name.removeprefix(prefix): t for name, t in theirs.state_dict().items()}
    tensors.pop(prefix + "embeddings.position_ids", None)
    model.load_state_dict(tensors, strict=True)
    return model.eval()


@torch.inference_mode()
@pytest.mark.parametrize("clip_skip", range(1, LAYERS + 1))
def test_it_equals_transformers_after_each_layer(ours, theirs, clip_skip):
    ids = torch.randint(0, 49_406, (2, 77), generator=torch.Generator().manual_seed(5))
    their_states = theirs(ids, output_hidden_states=True).hidden_states
    their_norm = getattr(theirs, "text_model", theirs).final_layer_norm
    expected = their_norm(their_states[-clip_skip])
    assert torch.allclose(ours(ours.embed(ids), clip_skip=clip_skip), expected, atol=2e-5)


def encode(network, prompt, **options):
    return ClipTextEncoder(network, **options).encode(prompt)


@torch.inference_mode()
def test_a_prompt_goes_in_between_start_and_end_tokens(ours, theirs):
    ids = torch.tensor([[49_406, 320, 1125, 539, 320, 2368, *[49_407] * 71]])
    assert torch.allclose(encode(ours, PROMPT), theirs(ids).last_hidden_state, atol=2e-5)


@pytest.mark.parametrize(
    ("prompt", "chunks"),
    [("", 1), (PROMPT, 1), ("cat " * 75, 1), ("cat " * 76, 2), ("cat " * 151, 3)],
)
def test_shape_and_dtype(ours, prompt, chunks):
    encoded = encode(ours, prompt)
    assert encoded.shape == (1, 77 * chunks, 32)
    assert encoded.dtype == torch.float32


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.1, 1.5, -1.0])
def test_a_weight_moves_a_token_along_the_line_from_the_empty_prompt(ours, weight):
    """ComfyUI's rule; tokens of weight 1 keep their bits."""
    plain, empty = encode(ours, PROMPT), encode(ours, "")
    weighted = encode(ours, f"a photo of a (cat:{weight})")
    assert torch.allclose(weighted[0, 5], torch.lerp(empty[0, 5], plain[0, 5], weight), atol=1e-5)
    others = [position for position in range(77) if position != 5]
    assert torch.equal(weighted[0, others], plain[0, others])


def test_the_second_chunk_is_weighed_against_the_empty_prompt_too(ours):
    long = "cat " * 75
    plain, empty = encode(ours, long + "dog"), encode(ours, "")
    weighted = encode(ours, long + "(dog:1.4)")
    assert torch.equal(weighted[0, :77], plain[0, :77])
    expected = empty[0, 1] + 1.4 * (plain[0, 78] - empty[0, 1])
    assert torch.allclose(weighted[0, 78], expected, atol=1e-5)


def test_neutral_weights_change_no_bit(ours):
    assert torch.equal(encode(ours, "a photo (of a:1.0) cat"), encode(ours, PROMPT))


def test_a_chunk_does_not_depend_on_its_neighbours(ours):
    first = encode(ours, "cat " * 75)
    both = encode(ours, "cat " * 75 + "a red dog")
    assert torch.equal(both[:, :77], first)
    assert torch.equal(both[:, 77:], encode(ours, "a red dog"))


def test_the_same_prompt_gives_the_same_bits_whatever_came_before(ours):
    encoder = ClipTextEncoder(ours)
    first = encoder.encode("(a:1.3) cat")
    encoder.encode("something (else:0.2) " * 30)
    assert torch.equal(encoder.encode("(a:1.3) cat"), first)


def test_an_embedding_takes_the_place_of_tokens(ours):
    """The vectors of the words themselves give what the words give."""
    words = ours.embed(torch.tensor([1125, 539])).detach()
    found = {"two": words}
    encoded = encode(ours, "a embedding:two a cat", find_embedding=found.get)
    assert torch.allclose(encoded, encode(ours, PROMPT), atol=1e-6)
    one = encode(ours, "a embedding:one of a cat", find_embedding={"one": words[0]}.get)
    assert torch.allclose(one, encode(ours, PROMPT), atol=1e-6)
    half = encode(ours, "a embedding:two a cat", find_embedding={"two": words.half()}.get)
    assert torch.allclose(half, encode(ours, PROMPT), atol=1e-2)


@pytest.mark.parametrize(
    ("found", "warning"),
    [
        ({}, "embedding:two in the prompt is not installed and is left out."),
        (
            {"two": torch.zeros(2, 768)},
            "embedding:two has 768 channels, made for another model (this one has 32), "
            "and is left out.",
        ),
    ],
)
def test_an_embedding_that_cannot_be_used_is_left_out_and_named(ours, caplog, found, warning):
    with caplog.at_level(logging.WARNING):
        encoded = encode(ours, "a embedding:two photo", find_embedding=found.get)
    assert torch.equal(encoded, encode(ours, "a photo"))
    assert warning in [record.getMessage() for record in caplog.records]


def test_a_missing_embedding_is_looked_for_and_named_once(ours, caplog):
    names = []
    with caplog.at_level(logging.WARNING):
        encode(ours, "a embedding:two photo", find_embedding=names.append)
    assert names == ["two"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize("clip_skip", [0, LAYERS + 2])
def test_a_clip_skip_beyond_the_layers_is_refused(ours, clip_skip):
    with pytest.raises(AnimateDiffV2VError, match=f"clip_skip is {clip_skip}"):
        encode(ours, PROMPT, clip_skip=clip_skip)
