from __future__ import annotations

import pytest

from metier.personal import find, masked


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("write to jo.doe+x@mail.co.uk!", "e-mail address"),
        ("ring +44 20 7946 0958", "phone number"),
        ("ring 020 7946 0958", "phone number"),
        ("card 4111 1111 1111 1111", "card number"),
        ("card 5555-5555-5555-4444.", "card number"),
        ("pay to DE89 3704 0044 0532 0130 00 please", "account number"),
        ("GB82WEST12345698765432", "account number"),
        ("my ssn: 536-90-4399", "national number"),
        ("NI AB 12 34 56 C", "national number"),
        ("NIR 2 95 10 99 126 111 93", "national number"),
        ("DNI 54362315K", "national number"),
        ("codice fiscale RCCMNL83S18D969H", "national number"),
        ("CPF 390.533.447-05", "national number"),
        ("BSN 111222333", "national number"),
        ("NHS number 943 476 5870", "national number"),
        ("PESEL 44051401359", "national number"),
        ("passport X1234567", "national number"),
        ("born on 12/03/1984", "date of birth"),
        ("DOB: 3rd March 1990", "date of birth"),
        ("date of birth 1990-03-12", "date of birth"),
        ("I live at 12 Acacia Avenue", "address"),
        ("flat 3, 12b High Street", "address"),
        ("it's 40 station road", "address"),
        ("Hauptstraße 5a in Köln", "address"),
        ("15 rue de la Paix", "address"),
        ("SW1A 1AA", "address"),
    ],
)
def test_what_is_personal_is_found(text: str, kind: str) -> None:
    assert [each.kind for each in find(text)] == [kind]
    assert f"[{kind}]" in masked(text)
    assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize(
    "text",
    [
        "in 2024", "temperature 38.5 since 12.03.2024", "order 4711-0815-2024", "12,345,678.90",
        "the 3 week old", "take 2 tablets down the road", "2 hours later on the street",
        "write to jo@example.com", "card 4111 1111 1111 1112", "the meeting is on 12/03/2024",
        "ISBN 978-3-16-148410-0", "passport renewal in 2 weeks", "1234567890", "a 5 minute avenue",
        "the sin of pride", "0 1 2 3 4 5", "the street is long", "IBAN missing", "blood pressure 120/80",
    ],
)  # fmt: skip
def test_what_is_not_stays(text: str) -> None:
    assert masked(text) == text


def test_only_that_is_masked_and_all_of_it() -> None:
    text = "I am Jo, jo@mail.org, 020 7946 0958; card 4111111111111111, born 1.2.1980."
    told = "I am Jo, [e-mail address], [phone number]; card [card number], born [date of birth]."
    assert masked(text) == told


@pytest.mark.parametrize(
    ("repeated", "told"),
    [
        ("jo@mail.org ", "[e-mail address] "),
        ("A-", "A-"),
        (f"+1{'1' * 31}a ", f"+1{'1' * 31}a "),
        (f"+1 {'11111 ' * 6}a ", f"+1 {'11111 ' * 6}a "),
    ],
)
def test_a_long_text_takes_as_many_times_longer_than_a_line(repeated: str, told: str) -> None:
    """Time that grows with the square of the length, or tries every way to group digits, would be minutes."""
    times = 200_000 // len(repeated)
    assert masked(repeated * times) == told * times


@pytest.mark.parametrize(
    "text",
    [
        "+49 (0)30 901 820", "+44 (20) 7946 0958", "+33 1 23 45 67 89", "+33 1 23 45 67 8", "+353 1 234 5678",
        "0049 30 901820", "+390612345678",
    ],
)  # fmt: skip
@pytest.mark.parametrize("after", ["", ", please", " 2nd floor", ") or so"])
def test_a_phone_number_ends_where_its_digits_do(text: str, after: str) -> None:
    assert masked(f"ring {text}{after}") == f"ring [phone number]{after}"
