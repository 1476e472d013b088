"""Token ids as ComfyUI's tokenizer gives them (ComfyUI 0.33.0, transformers' CLIPTokenizer)."""

import pytest
from animatediff_v2v.pipeline.models.tokenizer import END_TOKEN, START_TOKEN, tokenize
from hypothesis import given
from hypothesis import strategies as st

IDS = {
    "a photo of a cat": [320, 1125, 539, 320, 2368],
    "A  PHOTO\tof a\nCat": [320, 1125, 539, 320, 2368],
    "it's 2024, isn't it?": [585, 568, 273, 271, 273, 275, 267, 2923, 713, 585, 286],
    "naïve café": [1097, 35689, 563, 15304],
    "naïve": [1097, 35689, 563],
    "\u65e5\u672c\u8a9e\u306e\u732b": [39121, 44353, 34002, 252, 21575, 163, 234, 360],
    "\U0001f98a fox \U0001f98a": [6040, 488, 3240, 6040, 488],
    "don't; we'll-see": [847, 713, 282, 649, 1342, 268, 862],
    "x" * 40: [32035, 32035, 32035, 32035, 32035, 32035, 32035, 32035, 32035, 22819],
    "<|endoftext|> a": [49407, 320],
    "<|startoftext|>": [49406],
    "½ cup": [33613, 1937],
    "ÀÉÎ": [36149, 3459, 127, 362],
    "a\u00a0b": [320, 321],
    "!!!???...": [11194, 5195, 22641],
    "_under_score_": [318, 1798, 318, 4431, 318],
    "12345": [272, 273, 274, 275, 276],
    "\ufb01ne": [171, 105, 223, 1422],
    "İstanbul": [328, 16384, 11231],
    "\u200b zero": [9844, 5848],
    "straße": [1894, 127, 253, 324],
    "a\u0000b": [320, 444, 321],
    "a\u0007b": [320, 451, 321],
    "\u0301combining": [136, 479, 23561],
    "ǅ": [131, 484],
}


@pytest.mark.parametrize(("text", "ids"), IDS.items(), ids=[ascii(text)[:30] for text in IDS])
def test_known_ids(text, ids):
    assert tokenize(text) == ids


@given(st.text())
def test_any_text_becomes_ids_of_the_vocabulary(text):
    assert all(0 <= token <= END_TOKEN for token in tokenize(text))


@given(st.text(alphabet="abc XYZ 1,.", max_size=40))
def test_case_and_width_of_spaces_do_not_count(text):
    assert tokenize(text) == tokenize(text.upper()) == tokenize(f"  {text.replace(' ', '   ')} ")


def test_special_tokens():
    assert (START_TOKEN, END_TOKEN) == (49_406, 49_407)
