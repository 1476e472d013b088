"""The texts of the nodes: names, tooltips, search words, translations.

`locales/en` repeats what the schemas say; `make golden` writes it anew after a change there. A text
without a translation is shown in English: the tests warn of it, so that whoever adds an input need
not know five languages.
"""

import json
import os
import re
import warnings

import pytest

from .declared import schemas
from .texts import LOCALES, flat, locale_path, read_locale, texts_of

LANGUAGES = {"en", "zh", "ja", "ko", "de", "fr"}
# The translation system treats these characters specially.
SPECIAL = re.compile(r"[{}@|]")
# Numbers and file names are the same in all languages; 2nd and 4th are not.
FACTS = re.compile(r"(?!\d+(?:nd|rd|th))\b\w*\d\w*|models/\w+|%\w+%")


@pytest.mark.parametrize("schema", schemas().values(), ids=lambda schema: schema.node_id)
def test_nodes_can_be_found_and_understood(schema):
    assert schema.display_name
    assert len(schema.description) > 40
    words = [schema.display_name.lower(), *schema.search_aliases]
    assert len(schema.search_aliases) >= 3 and len(words) == len(set(words))
    assert all(word == word.lower() for word in schema.search_aliases)


def test_all_inputs_and_outputs_are_explained():
    tooltips = {path: text for path, text in flat(texts_of(schemas())).items() if "tooltip" in path}
    assert len(tooltips) > 100
    for path, text in tooltips.items():
        assert (text.endswith(".") and text[0].isupper()) or ":" in text, path
        assert len(text.split()) >= 3, path


def test_the_languages_are_those_that_are_promised():
    assert {path.name for path in LOCALES.iterdir()} == LANGUAGES


def test_english_is_what_the_schemas_say():
    now = texts_of(schemas())
    if os.environ.get("WRITE_SNAPSHOTS"):
        text = json.dumps(now, indent=1, ensure_ascii=False) + "\n"
        locale_path("en").write_text(text, encoding="utf-8")
    assert read_locale("en") == now, (
        "The texts of the nodes have changed. Run `make golden`, which writes locales/en anew, and "
        "change the other languages likewise as far as you know them."
    )


class Untranslated(UserWarning):
    """Texts that ComfyUI shows in English."""


def check_translation(english, translated):
    """Assert that a language has texts of the nodes alone, in their order; warn of missing ones."""
    strange = [path for path in translated if path not in english]
    assert not strange, f"no node has these texts any more, remove them: {strange}"
    assert list(translated) == [path for path in english if path in translated]
    for path, text in translated.items():
        assert text and text == text.strip()
        if path.endswith(("tooltip", "description")):
            assert text != english[path], f"{path} is not translated: leave it out"
    missing = [path for path in english if path not in translated]
    if missing:
        warnings.warn(f"shown in English: {', '.join(missing)}", Untranslated, stacklevel=2)


@pytest.mark.parametrize("language", sorted(LANGUAGES - {"en"}))
def test_translations(language):
    check_translation(flat(read_locale("en")), flat(read_locale(language)))


ENGLISH = {"A.inputs.steps.name": "steps", "A.inputs.steps.tooltip": "How many steps."}
GERMAN = {"A.inputs.steps.name": "Schritte", "A.inputs.steps.tooltip": "Anzahl der Schritte."}


def test_a_missing_translation_is_a_warning():
    with pytest.warns(Untranslated, match=r"shown in English: A\.inputs\.steps\.tooltip$"):
        check_translation(ENGLISH, {"A.inputs.steps.name": "Schritte"})


@pytest.mark.parametrize(
    "translated",
    [
        GERMAN | {"A.inputs.gone.name": "fort"},
        GERMAN | {"A.inputs.steps.tooltip": "How many steps."},
        GERMAN | {"A.inputs.steps.tooltip": ""},
        dict(reversed(GERMAN.items())),
    ],
    ids=["of no input", "English", "empty", "out of order"],
)
def test_a_wrong_translation_fails(translated):
    with pytest.raises(AssertionError):
        check_translation(ENGLISH, translated)


@pytest.mark.parametrize("language", sorted(LANGUAGES - {"en"}))
def test_translations_keep_numbers_and_names(language):
    english, translated = flat(read_locale("en")), flat(read_locale(language))
    for path, text in translated.items():
        if path.endswith("tooltip"):
            missing = [fact for fact in FACTS.findall(english[path]) if fact not in text]
            assert not missing, f"{path}: {text}"


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_translations_hold_nothing_that_is_not_text(language):
    for path, text in flat(read_locale(language)).items():
        assert not SPECIAL.search(text), path


# Of the page's scripts: text("key", "English").
TEXT = re.compile(r'\btext\(\s*"(\w+)",\s*"([^"]*)"')
SCRIPTS = LOCALES.parent / "web" / "js"


def texts_of_the_page(language):
    path = locale_path(language).with_name("main.json")
    return json.loads(path.read_text(encoding="utf-8"))["animatediffV2V"]


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_the_texts_of_the_page_are_translated(language):
    written = dict(
        pair for path in SCRIPTS.glob("*.js") for pair in TEXT.findall(path.read_text("utf-8"))
    )
    assert len(written) > 20
    translated = texts_of_the_page(language)
    if language == "en":
        assert translated == dict(sorted(written.items()))
    for key, shown in translated.items():
        values = [sorted(re.findall(r"{\w+}", each)) for each in (shown, written[key])]
        assert values[0] == values[1], key
        assert language == "en" or shown != written[key], f"{key} is not translated: leave it out"
    missing = sorted(set(written) - set(translated))
    if missing:
        warnings.warn(f"shown in English: {', '.join(missing)}", Untranslated, stacklevel=2)
