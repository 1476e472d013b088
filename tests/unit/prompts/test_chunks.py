"""Chunks of 77 tokens, as ComfyUI lays them out.

Expected layouts are what SDTokenizer.tokenize_with_weights of ComfyUI 0.33.0 gives for the same
prompts and an embedding `three` of three vectors, without the start token and the end tokens.
"""

import pytest
import torch
from animatediff_v2v.pipeline.models.tokenizer import END_TOKEN, START_TOKEN, tokenize
from animatediff_v2v.pipeline.prompts.chunks import CHUNK_LENGTH, chunk_prompt
from hypothesis import given
from hypothesis import strategies as st

THREE = torch.zeros(3, 768)
LETTERS = [320, 321, 322, 323, 324, 325, 326, 327]  # a to h
CAT, DOG, FOX, RED, X, COMMA = 2368, 1929, 3240, 736, 343, 267
E = "vector"
EMBEDDINGS = {"three": THREE, "three.pt": THREE, "sub/v1.5-three": THREE}


def chunked(prompt, *, found=None):
    return chunk_prompt(
        prompt,
        tokenize=tokenize,
        find_embedding=(found or EMBEDDINGS).get,
        start_token=START_TOKEN,
        end_token=END_TOKEN,
    )


def laid_out(chunks):
    """Return each chunk as (token, weight) between its start token and its end tokens."""
    layouts = []
    for chunk in chunks:
        tokens = [(E if torch.is_tensor(t.value) else t.value, t.weight) for t in chunk]
        assert len(tokens) == CHUNK_LENGTH
        assert (tokens[0], tokens[-1]) == ((START_TOKEN, 1.0), (END_TOKEN, 1.0))
        while tokens and tokens[-1] == (END_TOKEN, 1.0):
            tokens.pop()
        layouts.append(tokens[1:])
    return layouts


def at(weight, *tokens):
    return [(token, weight) for token in tokens]


LAYOUTS = [
    ("", [[]]),
    ("a cat", [at(1.0, 320, CAT)]),
    ("cat " * 75, [at(1.0, *[CAT] * 75)]),
    ("cat " * 76, [at(1.0, *[CAT] * 75), at(1.0, CAT)]),
    ("cat " * 150, [at(1.0, *[CAT] * 75)] * 2),
    # Fewer than eight tokens of one weight move to the next chunk together; more are split.
    (
        "cat " * 70 + "(a b c d e f g:1.1)",
        [at(1.0, *[CAT] * 70), at(1.1, *LETTERS[:7])],
    ),
    (
        "cat " * 70 + "(a b c d e f g h:1.1)",
        [at(1.0, *[CAT] * 70) + at(1.1, *LETTERS[:5]), at(1.1, *LETTERS[5:])],
    ),
    (
        "cat " * 75 + "(red:1.2)",
        [at(1.0, *[CAT] * 75), at(1.2, RED)],
    ),
    ("(cat:1.2) " * 76, [at(1.2, *[CAT] * 75), at(1.2, CAT)]),
    # The rest of a split run continues in the next chunk, followed by the following text.
    (
        "(" + "cat " * 80 + ":1.2) dog",
        [at(1.2, *[CAT] * 75), at(1.2, *[CAT] * 5) + at(1.0, DOG)],
    ),
    ("embedding:three", [at(1.0, E, E, E)]),
    ("a embedding:three cat", [at(1.0, 320, E, E, E, CAT)]),
    ("a, embedding:three, cat", [at(1.0, 320, COMMA, E, E, E, COMMA, CAT)]),
    ("(embedding:three:1.3) cat", [at(1.3, E, E, E) + at(1.0, CAT)]),
    ("embedding:three embedding:three", [at(1.0, *[E] * 6)]),
    ("a embedding:three.pt cat", [at(1.0, 320, E, E, E, CAT)]),
    ("a embedding: b", [at(1.0, 320)]),
    ("embedding:three ,embedding:three", [at(1.0, E, E, E, COMMA, E, E, E)]),
    ("embedding:three,embedding:three, cat", [at(1.0, E, E, E, COMMA, E, E, E, COMMA, CAT)]),
    ("embedding:none.embedding:three", [at(1.0, 269, E, E, E)]),
    ("embedding:three<", [at(1.0, E, E, E, 283)]),
    # Text that ComfyUI treats as one long name, and leaves out entirely.
    ("embedding:three,cat dog", [at(1.0, E, E, E, COMMA, CAT, DOG)]),
    ("embedding:three. cat", [at(1.0, E, E, E, 269, CAT)]),
    ("embedding:three.pt, cat", [at(1.0, E, E, E, COMMA, CAT)]),
    ("embedding:three;cat", [at(1.0, E, E, E, 282, CAT)]),
    ("embedding:three,embedding:three cat", [at(1.0, E, E, E, COMMA, E, E, E, CAT)]),
    ("(embedding:three,cat:1.2) dog", [at(1.2, E, E, E, COMMA, CAT) + at(1.0, DOG)]),
    ("embedding:nope,cat", [at(1.0, COMMA, CAT)]),
    ("embedding:sub/v1.5-three,cat", [at(1.0, E, E, E, COMMA, CAT)]),
    (
        "cat " * 74 + "(x:1.2) embedding:three dog",
        [at(1.0, *[CAT] * 74) + at(1.2, X), at(1.0, E, E, E, DOG)],
    ),
]


@pytest.mark.parametrize(
    ("prompt", "layout"), LAYOUTS, ids=[p[-30:] or "empty" for p, _ in LAYOUTS]
)
def test_layout(prompt, layout):
    assert laid_out(chunked(prompt)) == layout


def test_the_word_embedding_inside_of_another_is_text():
    (layout,) = laid_out(chunked("aembedding:three cat"))
    assert E not in [token for token, _ in layout]


def test_what_follows_a_missing_embedding_stays():
    assert laid_out(chunked("embedding:nope, a cat")) == [at(1.0, COMMA, 320, CAT)]


# A word of thousands of names, or of what could be the end of one.
LONG = {
    "names in a row": ("embedding:three," * 2_000, 2_000),
    "names with commas before": ("embedding:three ," * 2_000, 2_000),
    "identifiers": ("embedding:" * 10_000, 0),
    "missing names": ("".join(f"embedding:{number}," for number in range(5_000)), 0),
    "commas in a name": ("embedding:three" + ",a" * 10_000, 1),
    "a long name": ("embedding:" + "a" * 50_000, 0),
}


@pytest.mark.parametrize("case", LONG)
def test_long_words(case):
    """Each name is looked up once, and the text is read once, not again for each name."""
    prompt, found = LONG[case]
    asked = []

    class Asked(dict):
        def get(self, name):
            asked.append(name)
            return super().get(name)

    layouts = laid_out(chunked(prompt, found=Asked(EMBEDDINGS)))
    assert sum(token == E for layout in layouts for token, _ in layout) == 3 * found
    assert len(asked) == len(set(asked))
    assert len(asked) <= 3 * 5_000
    assert max(map(len, asked), default=0) <= 255


@given(st.text() | st.text(alphabet="abc ():1.embding", max_size=200))
def test_any_prompt_becomes_whole_chunks(prompt):
    chunks = chunked(prompt)
    assert chunks
    assert all(len(chunk) == CHUNK_LENGTH for chunk in chunks)


@given(st.lists(st.tuples(st.integers(1, 90), st.sampled_from([0.5, 1.0, 1.3])), max_size=6))
def test_every_token_is_in_the_chunks_once_and_in_order(stretches):
    prompt = "".join(f"({'cat ' * count}:{weight})" for count, weight in stretches)
    tokens = [token for layout in laid_out(chunked(prompt)) for token in layout]
    assert tokens == [(CAT, weight) for count, weight in stretches for _ in range(count)]
