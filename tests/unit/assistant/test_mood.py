from __future__ import annotations

from pathlib import Path

import pytest

from metier.assistant.mood import Moods
from metier.assistant.safety import Safety
from metier.errors import DataError
from tests import opened
from tests.unit.assistant import moods

MOODS = opened.moods()


def kind(*turns: str) -> str:
    mood = MOODS.of(turns)
    return mood.kind if mood else ""


@pytest.mark.parametrize("said", moods.UPSET)
def test_the_upset_are_heard(said: str) -> None:
    assert kind(said) == "upset"


@pytest.mark.parametrize("said", moods.PERSON)
def test_who_asks_for_a_person_is_heard(said: str) -> None:
    assert kind(said) == "person"


@pytest.mark.parametrize("said", moods.UNHELPED)
def test_who_stays_unhelped_is_heard(said: str) -> None:
    assert kind(said) == "unhelped"


@pytest.fixture
def phrases(tmp_path: Path) -> Moods:
    """Without the layer of likeness."""
    path = tmp_path / "mood.toml"
    path.write_text("[mood.likeness]\nperson = 99.0\nupset = 99.0\nunhelped = 99.0\n")
    return Moods.open(path)


def test_others_are_left_alone_by_phrases_and_hardly_ever_heard_by_likeness(phrases: Moods) -> None:
    assert [said for said in moods.NONE if phrases.of([said])] == []
    assert len([said for said in moods.NONE if kind(said)]) <= len(moods.NONE) // 10


@pytest.mark.parametrize(
    ("said", "people"),
    [
        ("honestly, three weeks and not one of you has lifted a finger", "who are upset"),
        ("is there anybody alive over there I could ring", "who ask for a person"),
    ],
)
def test_where_no_phrase_speaks_it_is_told_whom_it_is_like_and_by_which_words(said: str, people: str) -> None:
    mood = MOODS.of([said])
    assert mood is not None
    like, _, words = mood.why.partition(", by the words ")
    assert like == f"sounds like people {people}"
    told = [each.strip('"') for each in words.split(", ")]
    assert len(told) == 3
    assert all(f" {each} " in MOODS.lexicon.normal(said) for each in told)


def test_enough_was_written() -> None:
    for listed in (moods.UPSET, moods.PERSON, moods.UNHELPED, moods.NONE):
        assert len(set(listed)) >= 60


def test_a_question_that_is_asked_again_was_not_answered() -> None:
    assert kind("How do I reset the PIN of my debit card?", "how do I reset my debit card PIN") == "unhelped"
    assert kind("how do I reset my card", "is there a fee for a new one", "when will it be here") == ""


@pytest.mark.parametrize("with_whom", ["Dr Lind next Thursday", "the hygienist in May", "Dr Kim on Tuesday at 9"])
def test_an_appointment_is_what_a_practice_is_there_for(with_whom: str) -> None:
    assert kind(f"I'd like an appointment with {with_whom}.") == ""


@pytest.mark.parametrize("said", ["Summarise this text: " + "word " * 300, "word " * 8, "Tell me a joke"])
def test_the_same_word_over_and_over_and_who_wants_a_joke_are_no_mood(said: str) -> None:
    assert kind(said) == ""


def test_whoever_has_just_come_does_not_stay_unhelped() -> None:
    said = "restarted it the way you wrote and it comes back"
    assert kind(said) == ""
    assert kind("how do I switch on roaming", said) == "unhelped"


def test_alike_at_the_third_time_only(phrases: Moods) -> None:
    first, second, third = (
        "my parcel from Monday is lost, where is it",
        "the parcel that I sent on Monday is lost",
        "lost my Monday parcel, nobody found it",
    )
    assert phrases.of([first, second]) is None
    mood = phrases.of([first, second, third])
    assert mood is not None
    assert mood.kind == "unhelped"
    assert mood.why == "asked much the same 3 times"


def test_it_says_by_which_words() -> None:
    mood = MOODS.of(["ok", "I AM FURIOUS"])
    assert mood is not None
    assert mood.why == 'said "i am furious"'  # and not the whole list of words that would have been one
    assert MOODS.of([]) is None


def test_a_file_of_one_s_own_is_laid_over(tmp_path: Path) -> None:
    path = tmp_path / "mood.toml"
    path.write_text('[mood.upset]\nsays = ["blimey"]\n')
    own = Moods.open(path)
    assert own.of(["Blimey!"]) is not None
    assert own.of(["I am furious"]) is not None
    assert own.digest != MOODS.digest


def test_a_mood_that_is_off_hands_nobody_over(tmp_path: Path) -> None:
    """Neither by a phrase, nor by what was asked again, nor by how it sounds."""
    path = tmp_path / "mood.toml"
    path.write_text('[mood]\noff = ["unhelped", "person"]\n')
    Safety.open(path)  # for which the same file may have more
    own = Moods.open(path)
    for turns in (["ok", "that did not help"], ["do you sell blue paint"] * 3, ["give me a human"]):
        assert MOODS.of(turns) is not None
        assert own.of(turns) is None
    assert own.of(["ok", "I AM FURIOUS"]) is not None


@pytest.mark.parametrize(
    "said",
    [
        "I want to speak to an agent for billing",
        "Can I get a human agent for this",
        "I want to talk to a person, table 4 was never served",
        "get me a real person, room 12 still has no heat",
        "Your cleaning agent for the oven ruined it. I want to speak to a human.",
        "Connect me to your human services team",
        "real human right now",
    ],
)
def test_who_asks_for_a_person_and_speaks_of_things_is_heard(said: str) -> None:
    assert kind(said) == "person"


@pytest.mark.parametrize("said", ["The self-checkout does not read my card", "I need a human anatomy atlas"])
def test_words_that_also_ask_for_people_mean_things(said: str) -> None:
    assert MOODS.of([said]) is None


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mood.toml"
    path.write_text('[mood.upset]\nsays = ["<nobody> here", "a (b"]\nunless = ["elsewher"]\n')
    with pytest.raises(DataError) as told:
        Moods.open(path)
    assert len(told.value.faults) == 3
    assert all(fault.place.startswith("mood.upset") for fault in told.value.faults)
    assert "did you mean `elsewhere`" in str(told.value)


@pytest.mark.parametrize("said", ["more", "more!", "again", "enough"])
def test_of_a_word_alone_nobody_knows_what_is_meant(said: str) -> None:
    assert not kind("tell me of your bicycles", said)
