"""Lines of `frame: prompt`."""

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.prompts import encode_schedule, parse_schedule
from hypothesis import given
from hypothesis import strategies as st

GOOD = [
    ("0: a fox", {0: "a fox"}),
    ("0:a fox", {0: "a fox"}),
    ("  12 :  a fox  ", {12: "a fox"}),
    ("0: spring\n24: winter", {0: "spring", 24: "winter"}),
    ("24: winter\n0: spring", {0: "spring", 24: "winter"}),
    ("\n0: spring\r\n\r\n24: winter\n\n", {0: "spring", 24: "winter"}),
    ('"0": "spring",\n"24": "winter"', {0: "spring", 24: "winter"}),
    ("'0': 'spring',", {0: "spring"}),
    ('0: "a fox, red",', {0: "a fox, red"}),
    ("0: a fox,", {0: "a fox,"}),
    ('0: a "red" fox', {0: 'a "red" fox'}),
    ("0: a (fox:1.2), 16: not a keyframe", {0: "a (fox:1.2), 16: not a keyframe"}),
    ("0:", {0: ""}),
    ("007: a spy", {7: "a spy"}),
    ("0: 猫", {0: "猫"}),
]

EXAMPLE = "write `frame: prompt`, for example `24: a fox in winter`"
BAD = [
    ("", "The prompt schedule is empty; write lines of `frame: prompt`, the first for frame 0."),
    (" \n\n ", "The prompt schedule is empty"),
    ("a fox", f"Line 1 of the prompt schedule is 'a fox'; {EXAMPLE}"),
    ("0: a\n\nfox: b", f"Line 3 of the prompt schedule is 'fox: b'; {EXAMPLE}"),
    ("-1: a", f"Line 1 of the prompt schedule is '-1: a'; {EXAMPLE}"),
    ("1.5: a", f"Line 1 of the prompt schedule is '1.5: a'; {EXAMPLE}"),
    (": a", f"Line 1 of the prompt schedule is ': a'; {EXAMPLE}"),
    ("0 a", f"Line 1 of the prompt schedule is '0 a'; {EXAMPLE}"),
    ("{\n0: a\n}", "Line 1 of the prompt schedule is '{'"),
    ("0: a\n0: b", "Line 2 of the prompt schedule names frame 0 a second time"),
    ("8: a\n008: b", "Line 2 of the prompt schedule names frame 8 a second time"),
]


@pytest.mark.parametrize(("text", "keyframes"), GOOD)
def test_keyframes(text, keyframes):
    assert parse_schedule(text) == keyframes
    assert list(parse_schedule(text)) == sorted(keyframes)


@pytest.mark.parametrize(("text", "sentence"), BAD)
def test_refused(text, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        parse_schedule(text)
    assert sentence in str(caught.value)


@given(st.text() | st.text(alphabet="0123456789: ab\n\"',", max_size=60))
def test_any_text_is_keyframes_or_a_sentence(text):
    try:
        keyframes = parse_schedule(text)
    except AnimateDiffV2VError as error:
        assert "prompt schedule" in str(error)
    else:
        assert keyframes and all(frame >= 0 for frame in keyframes)


def test_a_frame_with_thousands_of_digits_is_refused():
    with pytest.raises(AnimateDiffV2VError):
        parse_schedule("9" * 5000 + ": a fox")


@given(
    st.dictionaries(
        st.integers(0, 10**6),
        st.text(alphabet="abc (:1.2),", max_size=20).map(str.strip),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_is_read(keyframes):
    text = "\n".join(f"{frame}: {prompt}" for frame, prompt in keyframes.items())
    assert parse_schedule(text) == dict(sorted(keyframes.items()))


def test_prompts_of_different_lengths_are_aligned():
    lengths = {"short": 77, "long": 154, "longer": 231}

    def encode(prompt):
        return torch.full((1, lengths[prompt], 2), float(lengths[prompt]))

    track = encode_schedule({0: "short", 10: "long", 20: "longer"}, encode)
    assert track.frames == (0, 10, 20)
    assert track.tokens == 462
    assert [float(encoding.mean()) for encoding in track.encodings] == [77, 154, 231]
    assert float(track.at([5]).mean()) == pytest.approx((77 + 154) / 2)
