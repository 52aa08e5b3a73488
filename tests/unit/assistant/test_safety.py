from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from metier.assistant.safety import Intervention, Safety
from metier.errors import DataError


def told(safety: Safety, said: str, domain: str = "medical", **before: Any) -> Intervention:
    intervention = safety.before(said, domain, **before)
    assert intervention is not None
    return intervention


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("my dad is not breathing", "emergency"),
        ("I want to kill myself", "crisis"),
        ("she took 30 paracetamol", "poison"),
        ("he has got a knife", "danger"),
        ("gas smell in my house", "emergency"),
        ("it smells like gas in the kitchen", "emergency"),
    ],
)
def test_a_red_flag_has_the_answer_of_its_kind_in_any_domain(safety: Safety, said: str, answer: str) -> None:
    for domain in ("medical", "banking", "telecom", "shop", ""):
        assert told(safety, said, domain).kind == "emergency"
        assert told(safety, said, domain).text == getattr(safety.rules.answers, answer).strip()
        assert told(safety, said, domain).because


@pytest.mark.parametrize(
    "said",
    [
        "no chest pain, just a cough",
        "What are the signs of a stroke?",
        "My father had a heart attack in 2012",
        "my laptop has stopped breathing, so to speak",
        "how do I renew my prescription",
        "this bill is killing me",
        "i can't get the wheel off",
        "the tyre blew and now i'm walking home",
        "my bike broke down and now I can't get home",
        "",
        "🙂",
    ],
)
def test_harmless_words_go_to_the_model(safety: Safety, said: str) -> None:
    for domain in ("medical", "shop"):
        assert safety.before(said, domain) is None


def test_what_was_said_before_may_complete_a_red_flag_but_is_answered_once(safety: Safety) -> None:
    before, now = "the battery of my clock is flat", "and what do swallows eat"
    assert safety.before(now, "telecom") is None
    assert told(safety, now, "telecom", answered=before).kind == "emergency"
    assert safety.before("ok, thank you", "medical", answered="my dad is not breathing") is None


@pytest.mark.parametrize("others", [["My father collapsed and is not breathing"], ["he stopped breathing", "hello?"]])
def test_what_nobody_has_answered_yet_counts_as_said_now(safety: Safety, others: list[str]) -> None:
    assert told(safety, "please help me", "telecom", unanswered=others).kind == "emergency"
    assert told(safety, "help", "banking", unanswered=["my PIN is 4821"]).kind == "refusal"
    assert told(safety, "ok", unanswered=["Ich habe seit gestern starke Schmerzen im Knie"]).kind == "language"
    before, now = "the battery of my clock is flat", "and what do swallows eat"
    assert told(safety, now, "telecom", unanswered=[before]).kind == "emergency"
    assert safety.before("please help me", "telecom", unanswered=["my phone has no signal"]) is None


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("my card is 4111 1111 1111 1111", "a card number"),
        ("my PIN is 4821", "a PIN"),
        ("pin: 4821, please unblock", "a PIN"),
        ("4821 is my pin", "a PIN"),
        ("the one-time code is 482913", "a one-time code"),
        ("OTP 482 913", "a one-time code"),
        ("cvv 123", "a card's check number"),
        ("password: hunter2!", "a password"),
        ("my password is Sunshine42", "a password"),
        ("account number 12345678 sort code 12-34-56", "an account number"),
        ("iban DE89 3704 0044 0532 0130 00", "an account number"),
    ],
)
def test_secrets_are_refused_in_banking_and_blotted_out_anywhere(safety: Safety, said: str, found: str) -> None:
    """A payment card's number is refused in any domain."""
    refusal = told(safety, said, "retail-banking")
    assert refusal.kind == "refusal"
    assert refusal.because == found
    assert found in refusal.text
    assert found.split(" ", 1)[1] in safety.masked(said)
    assert not any(
        secret in safety.masked(said) for secret in ("4821", "4111", "482913", "hunter2", "Sunshine", "5678")
    )
    elsewhere = safety.before(said, "telecom")
    assert (elsewhere.because if elsewhere else "") == (found if found == "a card number" else "")


@pytest.mark.parametrize(
    "said",
    [
        "My phone's IMEI is 356938035643809, please unlock it",
        "My SIM card 8949200000123456789 is not activated",
        "My library card 2001234567890 expired",
        "I paid with card, order number 1002003004005",
        "What is the number on the back of my router: 4512?",
        "the security number on the label is 123",
        "my password is Blue42sky and i can't get in",
    ],
)
def test_other_numbers_are_asked_about_where_no_bank_is(safety: Safety, said: str) -> None:
    for domain in ("telecom", "shop"):
        assert safety.before(said, domain) is None


def test_whoever_has_done_something_to_die_hears_both_texts(safety: Safety) -> None:
    texts = safety.rules.answers
    both = told(safety, "I took a whole pack of paracetamol because I want to die", "shop").text
    assert both == f"{texts.poison.strip()}\n\n{texts.crisis.strip()}"
    assert told(safety, "my toddler drank bleach", "shop").text == texts.poison.strip()
    assert told(safety, "I want to kill myself", "shop").text == texts.crisis.strip()


@pytest.mark.parametrize("card", ["378282246310005", "5555 5555 5555 4444", "2223-0031-2200-3222", "3530111333300000"])
def test_the_cards_of_all_networks_are_known(safety: Safety, card: str) -> None:
    assert told(safety, f"please charge {card}", "shop").because == "a card number"


@pytest.mark.parametrize(
    "said",
    [
        "I typed my PIN wrong three times",
        "I forgot my password",
        "my password is wrong",
        "where do I find the code",
        "error code 404",
        "how do I change my PIN in 2024",
        "I paid 1,250.00 with my card on 12.03.2024",
        "my account was opened in 2019",
        "the code expired",
        "password reset please",
        "order 123456",
    ],
)
def test_questions_about_secrets_are_not(safety: Safety, said: str) -> None:
    assert safety.before(said, "banking") is None
    assert safety.before(said, "shop") is None
    assert safety.masked(said) == said


@pytest.mark.parametrize(
    ("said", "language"),
    [
        ("Ich habe seit gestern starke Schmerzen im Knie", "German"),
        ("J'ai mal à la tête depuis hier soir", "French"),
        ("me duele la cabeza desde ayer y no sé qué hacer", "Spanish"),
        ("ho mal di gola da tre giorni, che cosa posso fare", "Italian"),
        ("ik heb pijn in mijn knie sinds gisteren", "Dutch"),
        ("boli mnie głowa od wczoraj i nie wiem co robić", "Polish"),
        ("başım çok ağrıyor ve ne yapmalıyım", "Turkish"),
        ("у меня болит голова", "Cyrillic"),
        ("أشعر بألم في صدري", "Arabic"),
        ("我头痛", "Cjk"),
    ],
)
def test_medicine_is_told_in_covered_languages_only(safety: Safety, said: str, language: str) -> None:
    assert safety.language(said) == language
    intervention = told(safety, said)
    assert intervention.kind == "language"
    assert "emergency number" in intervention.text
    assert "English" in intervention.text
    assert safety.before(said, "telecom") is None


@pytest.mark.parametrize(
    "said",
    [
        "knee pain",
        "my knee hurts",
        "pain in knee since 2 day, what to do",
        "ok",
        "paracetamol?",
        "ja",
        "Dr. de la Cruz said so",
    ],
)
def test_english_is_known_however_short_or_broken(safety: Safety, said: str) -> None:
    assert safety.language(said) == "English"


def test_a_domain_s_kind_is_known_by_its_name(safety: Safety) -> None:
    for name in ("medical", "health-advice", "my-clinic", "Medicine", "medquad", "physio-therapy"):
        assert safety.is_medical(name)
    for name in ("telecom", "banking", "cardiology-of-engines", "media", "plant-disease", "car-diagnostics", ""):
        assert not safety.is_medical(name)
    assert safety.is_banking("retail-banking")
    assert not safety.is_banking("cardiology")


def test_domains_are_named_when_a_question_is_declined(safety: Safety) -> None:
    assert "with banking and telecom." in safety.declined(["banking", "telecom"])
    assert "with medical." in safety.declined(["medical"])


def test_whoever_may_be_in_need_and_is_declined_hears_the_number(safety: Safety) -> None:
    """In the same words as who is not understood for their language."""
    answers = safety.rules.answers
    assert "112" in answers.numbers
    assert told(safety, "Mein Vater atmet nicht und ist ganz blau").text.endswith(f" {answers.numbers}")
    assert safety.declined(["telecom", "medical"]).endswith(f" {answers.numbers}")
    assert safety.declined(["telecom", "banking"]).endswith("please say a little more.")


@pytest.mark.long
def test_a_file_of_one_s_own_is_laid_over(safety: Safety, tmp_path: Path) -> None:
    path = tmp_path / "safety.toml"
    path.write_text(
        'off = ["belly"]\n[answers]\nemergency = "Ring 144."\n'
        '[[red_flag]]\nname = "moon"\nsays = ["the moon fell"]\n[likeness]\nthreshold = 99.0\n'
        '[domains]\ncare-desk = ["medical"]\n'
    )
    own = Safety.open(path)
    assert own.before("the Moon fell", "x") == Intervention("emergency", "moon", "the moon fell", "Ring 144.")
    assert own.before("he is not breathing", "x") is not None
    assert "belly" not in {flag.name for flag in own.flags}
    assert own.digest != safety.digest
    assert own.is_medical("care-desk")
    assert own.languages == ("English",)


@pytest.mark.long
def test_a_message_very_like_harmless_ones_overrules_those_rules_only_that_the_file_names(
    safety: Safety, tmp_path: Path
) -> None:
    said = "could you send the invoice for the teapot again"
    assert safety.learned.margin(said) < safety.rules.likeness.veto
    path = tmp_path / "safety.toml"
    rule = '[[red_flag]]\nname = "teapot"\nsays = ["teapot"]\n'
    path.write_text(rule)
    assert told(Safety.open(path), said).rule == "teapot"
    path.write_text(f'{rule}[likeness]\noverrules = ["teapot"]\n')
    assert Safety.open(path).before(said, "medical") is None


def test_what_is_like_known_emergencies_tells_by_which_words(safety: Safety) -> None:
    found = told(safety, "she feels like an iron strap sits around her ribs")
    assert found.rule == "like known emergencies"
    words, _, margin = found.because.partition(" (margin ")
    assert float(margin.rstrip(")")) > safety.rules.likeness.threshold
    assert all(
        f" {each} " in safety.lexicon.normal("she feels like an iron strap sits around her ribs")
        for each in words.split(", ")
    )


@pytest.mark.parametrize("said", ["help", "now", "today", "he", "my dad", "bye", "pain", "the the the the"])
def test_what_a_word_or_two_are_about_cannot_be_told(safety: Safety, said: str) -> None:
    assert safety.before(said, "medical") is None


@pytest.mark.parametrize(
    ("said", "kind"),
    [("Choking!", "emergency"), ("call 911!!", "emergency"), ("I OVERDOSED.", "poison"), ("he's armed", "danger")],
)
def test_unless_they_are_nothing_but_an_emergency(safety: Safety, said: str, kind: str) -> None:
    found = told(safety, said, "telecom")
    assert (found.rule, found.text) == ("alone", getattr(safety.rules.answers, kind).strip())


def test_pieces_of_one_emergency_are_heard_together(safety: Safety) -> None:
    assert safety.before("so grey", "telecom") is None
    pieces = ["his lips", "so grey", "not answering"]
    found = told(safety, pieces[-1], "telecom", unanswered=pieces[:-1])
    assert found.kind == "emergency"


def test_bare_ones_may_be_switched_off(tmp_path: Path) -> None:
    path = tmp_path / "safety.toml"
    path.write_text('off = ["alone"]\n')
    assert Safety.open(path).before("fainted", "shop") is None


def test_a_number_answers_a_question(safety: Safety) -> None:
    assert safety.before("112", "telecom", answered="how many boxes are there") is None


def test_whoever_is_upset_may_be_in_danger_too(safety: Safety) -> None:
    said = "let me talk to a manager now, I have been waiting for a week and I am going to hang myself tonight"
    assert told(safety, said, "telecom").kind == "emergency"


def test_whoever_is_upset_is_in_no_danger(safety: Safety) -> None:
    said = "Would it be possible for someone to ring me back this afternoon?"
    assert safety.learned.margin(said) > safety.rules.likeness.threshold
    assert safety.before(said, "medical") is None


def test_an_emergency_is_heard_in_the_midst_of_other_talk(safety: Safety) -> None:
    talk = (
        "Hello, I would like to change the address of my account, we moved to a bigger flat in May and love it here. "
        "The garden is small but the children have a swing and the school is round the corner. "
    )
    more = "Please send the new card there, too, and the letter about the interest, if that is possible. Many thanks!"
    said = f"{talk}My lips are going numb and puffy after the prawns and I am wheezing. {more}"
    assert safety.before(f"{talk}{more}", "banking") is None
    assert safety.learned.margin(said) < safety.rules.likeness.threshold
    found = told(safety, said)
    assert found.rule == "like known emergencies"
    assert "lips" in found.because


def test_every_fault_of_a_file_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "safety.toml"
    path.write_text(
        'off = ["bely"]\n[[red_flag]]\nname = "moon"\nsays = ["the <mon> fell", "ok", "(a"]\nunless = ["pats"]\n'
        '[lists]\nown = ["a//b"]\n'
    )
    with pytest.raises(DataError) as error:
        Safety.open(path)
    text = str(error.value)
    assert len(error.value.faults) == 5
    for part in ("red_flag 'moon': says 1", "red_flag 'moon': says 3", "`past`", "`belly`", "lists.own 1"):
        assert part in text


def test_unknown_keys_and_missing_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "safety.toml"
    path.write_text("treshold = 3\n")
    with pytest.raises(DataError, match="is not a key of a safety file"):
        Safety.open(path)
    with pytest.raises(DataError, match="does not exist"):
        Safety.open(tmp_path / "none.toml")


def test_what_is_kept_has_no_personal_data(safety: Safety) -> None:
    kept = safety.masked("I'm jo@mail.org, born 1.2.1980, PIN 4821, 12 High Street")
    assert kept == "I'm [e-mail address], born [date of birth], PIN [PIN], [address]"
    assert safety.masked(kept) == kept


@pytest.mark.parametrize("filler", ["no chest pain, ", "can't ", "pin 1234 "])
def test_a_message_of_any_length_is_read_at_once_and_a_red_flag_at_its_end_is_seen(safety: Safety, filler: str) -> None:
    before = filler * (500_000 // len(filler))
    begun = time.thread_time()
    found = told(safety, f"{before} my dad is not breathing", "banking", unanswered=[before] * 50, answered=before)
    assert found.kind == "emergency"
    assert time.thread_time() - begun < 6


@pytest.mark.parametrize(
    ("said", "urgent"),
    [
        ("My e-bike battery is on fire", True),
        ("there is a fire in the workshop", True),
        ("the charger has just caught fire", True),
        ("is there a fire exit at the clinic?", False),
        ("there is a fire drill at the school on Monday", False),
        ("my phone caught fire last month, can I get a refund?", False),
        ("our shop is on fire with new deals", False),
        ("there is a fire at the clinic", True),
        ("there's a fire in the shop", True),
        ("there was a fire at the clinic last year, are you open?", False),
    ],
)
def test_fires_of_things_are_told_from_talk_of_fires(safety: Safety, said: str, urgent: bool) -> None:
    assert bool(safety.before(said, "bicycle")) == urgent
