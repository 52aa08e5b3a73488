from __future__ import annotations

import pickle
import re
import time

import pytest

from metier.assistant.phrases import Lexicon, ends, latest

LEXICON = Lexicon(
    {"kin": ["mother/father", "<small> child", "grandmother"], "small": ["little/young"]},
    {"mum": "mother", "cant": "can not", "isnt": "is not", "n": "and"},
)


def says(phrase: str, text: str) -> bool:
    return LEXICON.compiled(phrase).within(LEXICON.normal(text))


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("not breathing", "He ISN'T  breathing!"),
        ("can not breathe", "i cant breathe"),
        ("can't breathe", "I can not breathe"),
        ("blue/grey lips", "grey lips"),
        ("faint*", "she fainted"),
        ("[very] hot", "hot"),
        ("is [very] hot", "is very hot"),
        ("chest .. tight", "my chest is really so tight"),
        ("chest ... tight", "chest has been since noon today so very tight"),
        ("<kin> fell", "Mum fell"),
        ("<kin> fell", "a little child fell"),
        ("sick/<kin> here", "my father here"),
        ("battery + swallow*", "she swallowed it. The battery, I mean."),
        ("(can not|unable to) wake", "I am unable to wake him"),
        ("<number> tablets", "30tablets"),
        ("<many> tablets", "fifteen tablets"),
        ("38.*", "it is 38.4 now"),
        ("grandmother", "grandmothre fell"),
        ("grandmother", "my grandmotherrr"),
        ("baby is blue", "baby’s blue"),
    ],
)
def test_what_a_phrase_finds(phrase: str, text: str) -> None:
    assert says(phrase, text)


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("chest .. tight", "chest one two three four tight"),
        ("chest .. tight", "my chest. It is tight"),
        ("faint", "fainted"),
        ("blue lips", "blue eyes"),
        ("battery + swallow*", "a battery"),
        ("<many> tablets", "two tablets"),
        ("mother", "another"),
        ("<kin> fell", "the price fell"),
    ],
)
def test_what_it_does_not_find(phrase: str, text: str) -> None:
    assert not says(phrase, text)


def test_a_phrase_that_is_denied_does_not_count_unless_it_stands_elsewhere_too() -> None:
    denied = re.compile(r"(?<= )no $")
    phrase = LEXICON.compiled("pain")
    assert not phrase.within(LEXICON.normal("no pain"), denied)
    assert phrase.within(LEXICON.normal("no pain, then pain"), denied)


@pytest.mark.parametrize(
    ("phrase", "problem"),
    [
        ("<sister> fell", "is no list"),
        ("a + ", "is empty"),
        ("a ((b", "stray"),
        ("a//b", "stray"),
        ("...stop", "no word"),
        ("***", "is no word"),
        ("", "is empty"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_remedy(phrase: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as told:
        LEXICON.compiled(phrase)
    assert "; " in str(told.value)


def test_a_list_that_contains_itself_is_a_fault() -> None:
    with pytest.raises(ValueError, match="contains itself"):
        Lexicon({"a": ["<b>"], "b": ["<a>"]}).compiled("<a>")


def test_what_is_denied_is_told_in_time_that_grows_with_the_text() -> None:
    denied = re.compile(r"(?<= )no (?:[^\s|]+ )?$")
    normal, phrase = LEXICON.normal("no chest pain, " * 5000), LEXICON.compiled("pain")
    begun = time.thread_time()
    assert not phrase.within(normal, denied)
    assert time.thread_time() - begun < 1


def test_of_a_long_message_both_ends_are_read_and_of_many_the_latest() -> None:
    assert ends("short") == "short"
    long = ends("begins" + "x" * 1_000_000 + "ends")
    assert long.startswith("beginsx")
    assert long.endswith("xends")
    assert len(long) < 20_010
    assert latest(["one", "two"]) == ["one", "two"]
    assert latest([]) == []
    assert latest(["one", "x" * 1_000_000, "two"]) == [ends("x" * 1_000_000), "two"]
    assert latest(["y" * 1000] * 900 + ["two"]) == ["y" * 1000] * 20 + ["two"]


def test_what_is_compiled_is_so_once_and_stays_in_its_process() -> None:
    lexicon = pickle.loads(pickle.dumps(LEXICON))
    assert len(pickle.dumps(lexicon)) == len(pickle.dumps(Lexicon(LEXICON.groups, LEXICON.spelling)))
    assert lexicon.compiled("<kin> fell") is lexicon.compiled("<kin> fell")
    assert len(pickle.dumps(lexicon)) == len(pickle.dumps(LEXICON))
    assert lexicon == LEXICON
