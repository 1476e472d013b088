"""Schedules as people write them, in this pack and in others."""

import json
import re

import pytest
import torch
from animatediff_v2v.pipeline.errors import AnimateDiffV2VError
from animatediff_v2v.pipeline.prompts import PromptSchedule, encode_schedule, parse_schedule
from hypothesis import given
from hypothesis import strategies as st

TWO = {0: "a red circle", 8: "a green square"}

# Text -> keyframes in a clip of 21 frames.
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
    ('0: "red" fox', {0: '"red" fox'}),
    ("0:", {0: ""}),
    ("007: a spy", {7: "a spy"}),
    ("0: 猫", {0: "猫"}),
    # One line or many, JSON or not.
    ('"0": "a red circle", "8": "a green square"', TWO),
    ('"0":"a red circle","8":"a green square",', TWO),
    ('"0" :"a red circle" ,\n"8" :"a green square"', TWO),
    ('{"0": "a red circle", "8": "a green square"}', TWO),
    ('{\n  "0": "a red circle",\n  "8": "a green square",\n}\n', TWO),
    ('{"0":\n"a red circle", "8":\n"a green square"}', TWO),
    ('"0": "a red circle" "8": "a green square"', TWO),
    ("'0': 'a red circle', '8': 'a green square'", TWO),
    ('0: "a red circle", 8: "a green square"', TWO),
    ("0: a red circle, 8: a green square", TWO),
    ("{0: a red circle, 8: a green square}", TWO),
    ('0 = "a red circle",\n8 = "a green square"', TWO),
    ('0="a red circle", 8="a green square"', TWO),
    ("“0”: “a red circle”, “8”: “a green square”", TWO),
    ("„0“: „a red circle“, „8“: „a green square“", TWO),
    ("«0»: «a red circle», «8»: «a green square»", TWO),
    ("‘0’: ‘a red circle’, ‘8’: ‘a green square’", TWO),
    ('"0"："a red circle"，"8"："a green square"', TWO),
    ("0：a red circle\n8：a green square", TWO),
    ("「0」：「a red circle」，「8」：「a green square」", TWO),
    ("\ufeff0: a red circle\n8: a green square", TWO),
    # Comments.
    ("# two\n0: a red circle\n// more\n8: a green square", TWO),
    ('"0": "a red circle", // first\n"8": "a green square" # second', TWO),
    ("0: a red circle // first\n8: a green square # second", TWO),
    ("0: a house at https://a.example\n", {0: "a house at https://a.example"}),
    ("0: #1 of all", {0: "#1 of all"}),
    # What prompts hold.
    ('"0": "a (red:1.2) circle", "8": "(b:0.8)"', {0: "a (red:1.2) circle", 8: "(b:0.8)"}),
    ("0: a (fox:1.2), 16: an owl", {0: "a (fox:1.2)", 16: "an owl"}),
    ("0: noon, 12: 30 on the clock", {0: "noon, 12: 30 on the clock"}),
    ("0: ratio 16: 9 photo", {0: "ratio 16: 9 photo"}),
    ("8: a, 4: b", {8: "a, 4: b"}),
    ('"0": "a\nred circle",\n"8": "a\ngreen"', {0: "a\nred circle", 8: "a\ngreen"}),
    (r'"0": "a \"red\" fox", "8": "b\\c"', {0: 'a "red" fox', 8: "b\\c"}),
    (r'"0": "fox \(animal\)", "8": "\u732b"', {0: r"fox \(animal\)", 8: "猫"}),
    (r'0: fox \(animal\)', {0: r"fox \(animal\)"}),
    ("0: don't, 8: isn't", {0: "don't", 8: "isn't"}),
    ("0: 'tis a fox", {0: "'tis a fox"}),
    ("'0': 'a fox's tail', '8': 'b'", {0: "a fox's tail", 8: "b"}),
    # Lines for all prompts.
    ("best quality,\n0: a\n8: b\nblue", {0: "best quality, a, blue", 8: "best quality, b, blue"}),
    ("(best:1.2), <lora:x:1>\n1girl\n0: a", {0: "(best:1.2), <lora:x:1>, 1girl, a"}),
    ("0: a\nembedding:good, sharp", {0: "a, embedding:good, sharp"}),
    # Other ways to name frames.
    ("0: a\n-1: b", {0: "a", 20: "b"}),
    ('"-21": "a", "-4": "b"', {0: "a", 17: "b"}),
    ('"0.0": "a", "0.5": "b", "1.0": "c"', {0: "a", 10: "b", 20: "c"}),
    ("0: a\nmax_f/2: b\nmax_f-1: c", {0: "a", 10: "b", 20: "c"}),
    ('"0": "a", "(max_frames - 1) * 1/2": "b"', {0: "a", 10: "b"}),
    ("0-8: a\n9-20: b", {0: "a", 8: "a", 9: "b", 20: "b"}),
    ("0-8: a\n8 - 16: b", {0: "a", 7: "a", 8: "b", 16: "b"}),
    ("0:12: a\n14: b", {0: "a", 11: "a", 14: "b"}),
    ('"0:-5": "a", "18": "b"', {0: "a", 15: "a", 18: "b"}),
    ('"0:": "a", "8": "b"', {0: "a", 7: "a", 8: "b"}),
    ('0: = "a", 8 = "b"', {0: "a", 7: "a", 8: "b"}),
    ("0:1: a\n1: b", {0: "a", 1: "b"}),
]  # fmt: skip

EXAMPLE = "write `frame: prompt`, for example `24: a fox in winter`"
BAD = [
    ("", f"The prompt schedule is empty; {EXAMPLE}, the first for frame 0."),
    (" \n\n ", "The prompt schedule is empty"),
    ("// nothing", "The prompt schedule is empty"),
    ("a fox", f"Line 1 of the prompt schedule is 'a fox', and no line names a frame; {EXAMPLE}"),
    ("ratio 16: 9 photo", "is 'ratio 16: 9 photo', and no line names a frame"),
    ("0: a\n\nfox: b", f"Line 3 of the prompt schedule, 'fox: b', names no frame; {EXAMPLE}"),
    ("1.5: a", f"Line 1 of the prompt schedule, '1.5: a', names no frame; {EXAMPLE}"),
    (": a", f"Line 1 of the prompt schedule, ': a', names no frame; {EXAMPLE}"),
    ("0 a", f"Line 1 of the prompt schedule, '0 a', names no frame; {EXAMPLE}"),
    ("0: a\n24 b", "Line 2 of the prompt schedule, '24 b', names no frame"),
    ("0: a\n8; b", "Line 2 of the prompt schedule, '8; b', names no frame"),
    ("O: a\n8: b", "Line 1 of the prompt schedule, 'O: a', names no frame"),
    ('"eight": "a"', 'Line 1 of the prompt schedule, \'"eight": "a"\', names no frame'),
    ('{"fox": "a"}', "names no frame"),
    ('"0": "a", 8 "b"', "names no frame"),
    ('"0": "a red circle "8": "a green square"', "has quotation marks that do not pair"),
    ('0: "a red circle "8": "a green square"', "has quotation marks that do not pair"),
    ('0: "a red circle, "8": "a green square', "has quotation marks that do not pair"),
    ('"0": "a red circle, "8": "a green square', "has quotation marks that do not pair"),
    ('"0": "a fox', "has a quotation mark that is never closed"),
    ('0: "a fox\n8: b', "Line 1 of the prompt schedule, '0: \"a fox', has a quotation mark that"),
    ('{"0": "a"', "has a curly bracket that is never closed"),
    ('"0": "a"}', "has one curly bracket too many"),
    (
        "0: a\nsmile\n8: b",
        "'8: b', comes after 'smile', which is not a keyframe: put what all",
    ),
    ("0: a\n0: b", "Line 2 of the prompt schedule names frame 0 a second time"),
    ("8: a\n008: b", "Line 2 of the prompt schedule names frame 8 a second time"),
    ("20: a\n-1: b", "Line 2 of the prompt schedule names frame 20 a second time"),
    ("max_f - 90: a", "names frame max_f - 90, which a video of 21 frames does not have"),
    ("0: a --neg ugly", "Line 1 of the prompt schedule holds --neg"),
    ("0: (snow:`t/max_f`)", "holds an expression between backticks"),
    (
        "0: (snow:nan)",
        "Line 1 of the prompt schedule: the weight of 'snow' is nan",
    ),
]


@pytest.mark.parametrize(("text", "keyframes"), GOOD)
def test_keyframes(text, keyframes):
    assert parse_schedule(text, num_frames=21) == keyframes
    assert list(parse_schedule(text, num_frames=21)) == sorted(keyframes)


@pytest.mark.parametrize(("text", "sentence"), BAD)
def test_refused(text, sentence):
    with pytest.raises(AnimateDiffV2VError) as caught:
        parse_schedule(text, num_frames=21)
    assert sentence in str(caught.value)


PIECES = st.sampled_from(
    ["0", "8", "-1", "0.5", "max_f", "0-8", ":", "：", "=", ",", '"', "'", "“", "”", "{", "}", "\n",
     " ", "\\", "//", "#", "a fox", "(b:1.2)", "`t`", "--neg", "(c:nan)"]
)  # fmt: skip


@given(st.text() | st.lists(PIECES, max_size=25).map("".join))
def test_any_text_is_keyframes_or_a_sentence(text):
    try:
        keyframes = parse_schedule(text, num_frames=21)
    except AnimateDiffV2VError as error:
        assert "prompt schedule" in str(error)
    else:
        assert keyframes and all(frame >= 0 for frame in keyframes)
        # Nothing that is a keyframe by itself becomes part of a prompt.
        assert not any('": "' in prompt or '" : "' in prompt for prompt in keyframes.values())


PRINTABLE = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)


@given(
    st.dictionaries(st.integers(0, 999), PRINTABLE, min_size=1, max_size=6),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_any_json_is_read_as_json(keyframes, indent, has_brackets):
    """Prompts with any allowed characters, written by Python's json."""
    clean = {
        frame: re.sub(r"[(){}`\\]|--neg|\d|[:：=]", "", prompt).strip()
        for frame, prompt in keyframes.items()
    }
    text = json.dumps(clean, indent=indent, ensure_ascii=False)
    found = parse_schedule(text if has_brackets else text.strip("{}"))
    assert found == dict(sorted(clean.items()))


def test_frames_of_the_end_need_to_know_it():
    with pytest.raises(
        AnimateDiffV2VError, match="Line 2 of the prompt schedule names a frame rel"
    ):
        parse_schedule("0: a\n-1: b")


def test_text_before_and_after_every_prompt():
    schedule = PromptSchedule('"0": "a fox", "-1": "an owl"', "best quality,", "  in snow ")
    assert schedule.keyframes(5) == {
        0: "best quality, a fox in snow",
        4: "best quality, an owl in snow",
    }
    assert PromptSchedule("0: a").keyframes(5) == {0: "a"}


@pytest.mark.parametrize("name", ["pre_text", "app_text"])
def test_what_stands_in_every_prompt_is_checked_too(name):
    with pytest.raises(AnimateDiffV2VError, match=f"{name} holds --neg"):
        PromptSchedule("0: a", **{name: "b --neg c"})
    with pytest.raises(AnimateDiffV2VError, match=f"{name}: the weight of 'a' is inf"):
        PromptSchedule("0: a", **{name: "(a:inf)"})
    with pytest.raises(AnimateDiffV2VError, match="names no frame"):
        PromptSchedule("0: a\nfox: b", **{name: "c"})


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


MANY = 10_000
LONG = {
    "lines": "".join(f"{frame}: fox\n" for frame in range(MANY)),
    "one line": ", ".join(f"{frame}: fox" for frame in range(MANY)),
    "one line of JSON": ", ".join(f'"{frame}": "fox"' for frame in range(MANY)),
    "a comment at its end": ", ".join(f"{frame}: fox" for frame in range(MANY)) + " # end",
}
APOSTROPHES = "".join(f"{frame}: 'tis a fox\n" for frame in range(MANY))


@pytest.mark.parametrize("case", LONG)
def test_schedules_of_thousands_of_keyframes(case):
    """Each is read once; reading on to the end of the text for each would take minutes."""
    assert parse_schedule(LONG[case]) == dict.fromkeys(range(MANY), "fox")


def test_thousands_of_quotation_marks_that_never_close():
    assert parse_schedule(APOSTROPHES) == dict.fromkeys(range(MANY), "'tis a fox")


def test_the_line_of_a_late_mistake_is_named():
    with pytest.raises(AnimateDiffV2VError, match=rf"Line {MANY + 1} of .*'no: frame'"):
        parse_schedule(LONG["lines"] + "no: frame\n")
