"""Weights in a prompt, as ComfyUI reads them."""

import pytest
from animatediff_v2v.pipeline.prompts.weights import WeightedText, parse_weights
from hypothesis import given
from hypothesis import strategies as st

# The results of token_weights in comfy/sd1_clip.py of ComfyUI 0.33.0, with its escapes.
GOLDEN = {
    "a photo of a cat": [("a photo of a cat", 1.0)],
    "": [],
    "(a)": [("a", 1.1)],
    "(a:1.2)": [("a", 1.2)],
    "((a))": [("a", 1.2100000000000002)],
    "(((a)))": [("a", 1.3310000000000004)],
    "a (b) c": [("a ", 1.0), ("b", 1.1), (" c", 1.0)],
    "a (b:1.5) c (d:0.3)": [("a ", 1.0), ("b", 1.5), (" c ", 1.0), ("d", 0.3)],
    "(a (b:1.5) c)": [("a ", 1.1), ("b", 1.5), (" c", 1.1)],
    "(a (b:1.5) c:0.5)": [("a ", 0.5), ("b", 1.5), (" c", 0.5)],
    "\\(a\\)": [("(a)", 1.0)],
    "(\\(a\\):1.3)": [("(a)", 1.3)],
    "a \\( b": [("a ( b", 1.0)],
    "(a": [("(a", 1.0)],
    "a)": [("a)", 1.0)],
    "a) (b": [("a) (b", 1.0)],
    "(a))": [("a", 1.1), (")", 1.0)],
    "((a)": [("(a", 1.1)],
    "()": [],
    "(:1.2)": [(":1.2", 1.1)],
    "(a:)": [("a:", 1.1)],
    "(a:b)": [("a:b", 1.1)],
    "(a:b:1.2)": [("a:b", 1.2)],
    "(a:-1)": [("a", -1.0)],
    "(a: 1.2 )": [("a", 1.2)],
    "(a:1e-1)": [("a", 0.1)],
    "[text]": [("[text]", 1.0)],
    "([text]:1.1)": [("[text]", 1.1)],
    "(a:1.2)(b:0.8)": [("a", 1.2), ("b", 0.8)],
    "a:1.2": [("a:1.2", 1.0)],
    "(a:1.2": [("(a:1.2", 1.0)],
    "( a : 1.2 )": [(" a ", 1.2)],
    "(a:1.2) , b": [("a", 1.2), (" , b", 1.0)],
    "masterpiece, (best quality:1.2), ((sharp)), [blur], sm\\(ile": [
        ("masterpiece, ", 1.0),
        ("best quality", 1.2),
        (", ", 1.0),
        ("sharp", 1.2100000000000002),
        (", [blur], sm(ile", 1.0),
    ],
    "(a\nb:1.4)": [("a\nb", 1.4)],
    "(a(b)c)": [("a", 1.1), ("b", 1.2100000000000002), ("c", 1.1)],
    "(a:1.1)(": [("a", 1.1), ("(", 1.0)],
    "\\\\(a\\\\)": [("\\(a\\)", 1.0)],
    "(a:1_0)": [("a", 10.0)],
    "((a:1.2):1.3)": [("a", 1.2)],
    "((a:1.2) b:1.3)": [("a", 1.2), (" b", 1.3)],
    "(日本 (猫:1.3):1.1)": [("日本 ", 1.1), ("猫", 1.3)],
    "(a:.5)": [("a", 0.5)],
    "a ()b": [("a ", 1.0), ("b", 1.0)],
    "(()a)": [("a", 1.1)],
    # Brackets that do not pair: one that is never closed counts if the text ends with a bracket.
    ")(a)": [(")(a)", 1.0)],
    "a))((b)": [("a))((b)", 1.0)],
    "a)((b)": [("a)(", 1.0), ("b", 1.1)],
    "(a)(b": [("a", 1.1), ("(b", 1.0)],
    "((a:1.3)": [("(a", 1.3)],
    "((a:1.3) ": [("((a:1.3) ", 1.0)],
    "((a)(b:2)": [("a", 2.2), ("(b", 2.0)],
    "(a:1.3) b)": [("a", 1.3), (" b)", 1.0)],
    "(a:(b:2):1.5)": [("a:", 1.5), ("b", 2.0)],
    "(a:(b):(c))": [("a:", 1.1), ("b", 1.2100000000000002), (":", 1.1), ("c", 1.2100000000000002)],
    "((a):1.5 )": [("a", 1.6500000000000001)],
    "(a:1:2)": [("a:1", 2.0)],
    "(a:2:)": [("a:2:", 1.1)],
    "((:2))": [(":2", 1.2100000000000002)],
    "(a\\):2)": [("a)", 2.0)],
}


@pytest.mark.parametrize(("prompt", "parts"), GOLDEN.items(), ids=map(ascii, GOLDEN))
def test_golden(prompt, parts):
    assert [(part.text, part.weight) for part in parse_weights(prompt)] == [
        (text, pytest.approx(weight, rel=1e-12)) for text, weight in parts
    ]


ANYTHING = st.text() | st.text(alphabet="()[]\\:,. ab1.5-\n", max_size=60)


@given(ANYTHING)
def test_no_prompt_is_refused(prompt):
    assert all(isinstance(part, WeightedText) for part in parse_weights(prompt))


@given(st.text().filter(lambda text: not set(text) & set("()")))
def test_text_without_round_brackets_is_one_neutral_part(text):
    assert parse_weights(text) == ([WeightedText(text, 1.0)] if text else [])


def escaped(text):
    return text.replace("(", "\\(").replace(")", "\\)")


# Text that cannot be taken for a weight, nor for one end of an escape.
words = st.text(alphabet="ab ,.(){}[]é猫", min_size=1, max_size=8)
neutral = words.map(lambda text: (escaped(text), [(text, None)]))


def in_brackets(inner):
    return inner.map(lambda pair: (f"({pair[0]})", [(t, w or 1.1) for t, w in pair[1]]))


def weighted(inner):
    weights = st.integers(0, 30).map(lambda tenths: tenths / 10)
    return st.tuples(inner, weights).map(
        lambda drawn: (
            f"({drawn[0][0]}:{drawn[1]})",
            [(t, drawn[1] if w is None else w) for t, w in drawn[0][1]],
        )
    )


@given(st.lists(neutral | in_brackets(neutral) | weighted(neutral), max_size=6))
def test_texts_and_weights_come_back_out(pieces):
    """Prompts composed of text, brackets and weights are parsed into the same parts."""
    prompt = "".join(text for text, _ in pieces)
    expected = [(t, 1.0 if w is None else w) for _, parts in pieces for t, w in parts]
    parts = parse_weights(prompt)
    assert "".join(part.text for part in parts) == "".join(text for text, _ in expected)
    weights = [part.weight for part in parts for _ in part.text]
    assert weights == pytest.approx([w for text, w in expected for _ in text])


@given(words, st.integers(1, 12))
def test_nested_brackets_multiply(text, depth):
    (part,) = parse_weights("(" * depth + escaped(text) + ")" * depth)
    assert part.text == text
    assert part.weight == pytest.approx(1.1**depth)


DEPTH = 50_000
DEEP = {
    "closed": ("(" * DEPTH + "a:1.5" + ")" * DEPTH, [WeightedText("a", 1.5)]),
    "never closed": ("(" * DEPTH + "a", [WeightedText("(" * DEPTH + "a", 1.0)]),
    "never opened": ("a" + ")" * DEPTH, [WeightedText("a" + ")" * DEPTH, 1.0)]),
    "one closed": ("(" * DEPTH + "a:1.5)", [WeightedText("(" * (DEPTH - 1) + "a", 1.5)]),
    "a weight each": ("(" * DEPTH + "a" + ":1.5)" * DEPTH, [WeightedText("a", 1.5)]),
    "side by side": ("(a:1.5)" * DEPTH, [WeightedText("a", 1.5)] * DEPTH),
    "text each": ("(a" * DEPTH + ":2" + ")" * DEPTH, None),
}


@pytest.mark.parametrize("case", DEEP)
def test_tens_of_thousands_of_brackets(case):
    """They are read in one pass; one pass per level would take minutes."""
    prompt, expected = DEEP[case]
    parts = parse_weights(prompt)
    if expected is None:
        assert (len(parts), parts[0].weight, parts[-1].weight) == (DEPTH, 1.1, 2.0)
        assert all(part.text == "a" for part in parts)
    else:
        assert parts == expected
