import re
from string import Formatter

import pytest

from fedtsd.errors import InputError
from fedtsd.report.page.numbers import three_digits, unit_for
from fedtsd.report.page.words import LANGUAGES, Words, read_words, say
from fedtsd.score import MAE


def placeholders(text: str) -> set[tuple[str, str]]:
    return {(name, spec or "") for _, name, spec, _ in Formatter().parse(text) if name}


def comparable(lang: str) -> dict[str, str]:
    """Texts by key; the singular that some languages have counts with the plural."""
    return {key: text for key, text in read_words(lang).items() if not key.endswith(".one")}


def test_both_languages_have_the_same_keys_and_placeholders() -> None:
    english, japanese = comparable("en"), comparable("ja")
    assert list(english) == list(japanese)
    for key, text in english.items():
        # Only how a difference is signed may be a matter of the sentence.
        assert placeholders(text) == placeholders(japanese[key]), key
    assert len(english) > 200


@pytest.mark.parametrize("lang", LANGUAGES)
def test_words_of_errors_replace_words_that_are_there(lang: str) -> None:
    base, others = read_words(lang), read_words(f"{lang}.mae")
    assert set(others) <= set(base)
    assert list(others) == list(read_words("en.mae"))
    for key, text in others.items():
        assert {name for name, _ in placeholders(text)} <= {
            name for name, _ in placeholders(base[key])
        }, key
        assert placeholders(text) == placeholders(read_words("en.mae")[key]), key


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_word_of_a_regression_is_one_of_accuracy(lang: str) -> None:
    words = Words(lang, MAE, 2)
    left = [k for k, t in words.texts.items() if re.search("accurac|正解率|percentage", t)]
    assert left == []
    assert words.write("score", 12.345) == "12.35"
    assert words.write("points", -0.5) == "−0.50"


def test_japanese_texts_are_japanese() -> None:
    for key, text in comparable("ja").items():
        words = re.sub(r"{[^}]*}|Mbit/s|FedTSDP|Hopkins", "", text)
        if re.search(r"[A-Za-z]{3}", words) or not re.search(r"^[\W\d]*$", words):
            assert re.search(r"[ぁ-んァ-ヶ一-龠]", text), key
    sentences = [text for text in comparable("ja").values() if text.endswith("。")]
    polite = re.compile(r"(です|でした|ます|ません|ました|ください)。$")
    listed = re.compile(r"(：[^。]*。|[)）]。)$")  # a label and what follows it
    assert [t for t in sentences if not polite.search(t) and not listed.search(t)] == []


def test_no_text_is_cut_short_or_doubled() -> None:
    for lang in LANGUAGES:
        for key, text in read_words(lang).items():
            assert text == text.strip() or key.startswith("unit."), key
            assert "  " not in text, key


def test_every_placeholder_can_be_written() -> None:
    values = {
        "names": ["a", "b"], "sites": [1, 2], "seeds": [0], "time": 61.0, "points": 0.1, "gap": 0.1,
    }  # fmt: skip
    for lang in LANGUAGES:
        words = Words(lang)
        for key, text in words.texts.items():
            filled = {
                name: values.get(spec, 1 if spec else "x") for name, spec in placeholders(text)
            }
            assert "{" not in words(key, **filled), key


def test_an_unknown_language_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^lang: must be one of en, ja, got 'de'$"):
        Words("de")


@pytest.mark.parametrize(
    ("kind", "value", "english", "japanese"),
    [
        ("score", 0.8234, "82.3%", "82.3%"),
        ("bare", 0.8234, "82.3", "82.3"),
        ("signed", -0.1, "−10.0", "−10.0"),
        ("points", 0.0213, "+2.1 points", "+2.1ポイント"),
        ("points", -0.0213, "−2.1 points", "−2.1ポイント"),
        ("points", -0.0001, "0.0 points", "0.0ポイント"),
        ("gap", -0.0213, "2.1 points", "2.1ポイント"),
        ("bytes", 999, "999 B", "999 B"),
        ("bytes", 12_345_678, "12.3 MB", "12.3 MB"),
        ("time", 5.0, "5.00 s", "5.00秒"),
        ("time", 90.0, "1.50 min", "1.50分"),
        ("time", 7200.0, "2.00 h", "2.00時間"),
        ("time", 259_200.0, "3.00 days", "3.00日"),
        ("n site", 1, "1 site", "1拠点"),
        ("n site", 1200, "1,200 sites", "1,200拠点"),
        ("names", ["a", "b", "c"], "a, b and c", "a、b、c"),
        ("sites", [7], "site 7", "拠点7"),
        ("sites", [3, 5], "sites 3, 5", "拠点3、5"),
        ("sites", [], "–", "–"),
        ("score", float("nan"), "–", "–"),
        ("time", None, "–", "–"),
    ],
)
def test_values_in_both_languages(kind: str, value: object, english: str, japanese: str) -> None:
    assert Words("en").write(kind, value) == english
    assert Words("ja").write(kind, value) == japanese


def test_of_many_sites_the_first_ten_are_named() -> None:
    assert Words("en").write("sites", list(range(30))).endswith("8, 9 and 20 more")


def test_prose_is_escaped_and_backticks_become_code() -> None:
    html = Words("en").prose("answer.how_alone", method="<b>`x`")
    assert "<code>method=local</code>" in html
    assert "<b>" not in html


def test_sentences_are_joined_as_the_language_does() -> None:
    both = [say("sites.lead"), say("sites.margin_note")]
    assert ". Gains" in Words("en").paragraph(both)
    assert "。太字" in Words("ja").paragraph(both)


def test_numbers_keep_about_three_digits() -> None:
    assert [three_digits(x) for x in (0.123, 12.34, 1234.5)] == ["0.12", "12.3", "1,234"]


def test_a_column_of_bytes_has_one_unit() -> None:
    unit = unit_for([None, 120, 4_000_000])
    assert (unit.name, unit.write(120), unit.write(4_000_000)) == ("MB", "0.00", "4.00")
    assert unit.write(None) == "–"
    assert unit_for([None]).name == "B"
