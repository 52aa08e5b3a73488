from __future__ import annotations

import pytest

from metier.assistant.disclosures import Disclosures
from metier.assistant.rules import Secret

FOUND = Disclosures.of(
    [
        Secret(name="a PIN", cues=("pin",), value="digits", digits=(4, 6)),
        Secret(name="a password", cues=("password",), value="word", not_values=("safe",)),
    ]
)


def test_a_card_s_number_is_no_pin_and_what_is_no_value_stays() -> None:
    text = "my pin 1234, password is hunter22 and card 4111 1111 1111 1111; a password is safe."
    told = "my pin [PIN], password is [password] and card [card number]; a password is safe."
    assert FOUND.masked(text) == told
    assert [each.kind for each in FOUND.find(text)] == ["a PIN", "a password", "a card number"]
    assert FOUND.masked("pin 4111 1111 1111 1111") == "pin [card number]"


@pytest.mark.parametrize(
    ("repeated", "told"), [("pin 1234 ", "pin [PIN] "), ("password is hunter22 ", "password is [password] ")]
)
def test_a_long_message_takes_as_many_times_longer_than_a_line(repeated: str, told: str) -> None:
    """Time that grows with the square of the length would be minutes."""
    times = 300_000 // len(repeated)
    assert FOUND.masked(repeated * times) == told * times


def test_a_gap_is_read_once() -> None:
    text = f"password is{' ' * 100_000}abc"
    assert FOUND.masked(text) == text
