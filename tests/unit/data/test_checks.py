from __future__ import annotations

import pytest

from metier.data.checks import warnings
from metier.data.items import Item, Message
from metier.domain import Domain

DOMAIN = Domain(name="d", data="x.csv")


def item(number: int, prompt: str, reply: str = "fine") -> Item:
    messages = (Message("user", "call +44 20 7946 0958"), Message("assistant", "ok"), Message("user", prompt))
    return Item(f"id {number}", "d", "g", f"x.csv:{number}", number, messages, (reply,))


def warned(text: str) -> list[str]:
    return [fault.problem.split(" in ")[0] for fault in warnings(DOMAIN, [item(1, text)])]


@pytest.mark.parametrize(
    "text",
    [
        "+44 20 7946 0958", "+1 (212) 555-0142", "(212) 555-0142", "212-555-0142", "1-800-555-0199", "020 7946 0958",
        "0049 30 901820", "+351 912 345 678", "(030) 901820", "+33 1 46 48 28 00", "+44 (0)20 7946 0958",
    ],
)  # fmt: skip
def test_phone_numbers_are_found(text: str) -> None:
    assert warned(f"ring {text}.") == ["a phone number"]


@pytest.mark.parametrize(
    "text",
    [
        "in 2024", "1999-2024", "2024-01-31", "31-01-2024 10:30", "01.02.2024", "12,345,678.90", "EUR 1 234 567",
        "order 4711-0815-2024", "order 0012345678", "ISBN 978-3-16-148410-0", "0.123456789", "10.20.30.40",
        "{{Customer Support Phone Number}}", "0 1 2 3 4 5", "5 x 10 = 50", "#123456789", "1234567890",
    ],
)  # fmt: skip
def test_years_amounts_and_order_numbers_are_no_phone_numbers(text: str) -> None:
    assert warned(f"about {text} then") == []


def test_cards_pass_their_checksum_and_addresses_have_a_domain() -> None:
    assert warned("card 4111 1111 1111 1111.") == ["a payment card number"]
    assert warned("card 5555-5555-5555-4444") == ["a payment card number"]
    assert warned("card 4111 1111 1111 1112.") == []
    assert warned("order 9111111111111111") == []
    assert warned("write to jo.doe+x@mail.co.uk!") == ["an e-mail address"]
    assert warned("write to jo@example.com or @jo or a@b") == []


def test_three_places_are_named_and_the_others_counted() -> None:
    (fault,) = warnings(DOMAIN, [item(number, f"mail a@b.org {number}", f"reply {number}") for number in range(1, 6)])
    assert fault.place == "domain d"
    assert fault.problem == "an e-mail address in 5 of 5 items: x.csv:1, x.csv:2, x.csv:3, and 2 more"


def test_open_answers_that_look_like_labels_are_told() -> None:
    (fault,) = warnings(DOMAIN, [item(number, f"q{number}", ("yes", "no")[number % 2]) for number in range(10)])
    assert 'labels = ["no", "yes"]' in fault.fix
    assert warnings(DOMAIN, [item(number, f"q{number}", ("yes", "no")[number % 2]) for number in range(9)]) == []
    assert warnings(DOMAIN, [item(number, f"q{number}", "this is one long reply to all") for number in range(10)]) == []


def test_labels_that_look_like_one_are_told() -> None:
    replies = ("Positive", "negative", "positive ")
    found = warnings(DOMAIN, [Item("1", "d", "g", "f:1", 0, (Message("user", "x"),), replies, kind="label")])
    assert [str(fault) for fault in found] == [
        "domain d: labels 'Positive' and 'positive ' look like one, but are measured as 2; "
        "if they are one, write "
        'label_map = { "Positive" = "Positive", "negative" = "negative", "positive " = "Positive" }'
    ]


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        ("Log in at {{WEBSITE_URL}} and pay.", "{{placeholders}} in 1 of 1 answers"),
        ("Take care. Consult a surgeon online -->", "the end of a web page's link in 1 of 1 answers"),
        ("That is so. Read more »", "the end of a web page's link in 1 of 1 answers"),
    ],
)
def test_what_a_template_or_a_web_page_left_is_told(reply: str, named: str) -> None:
    (fault,) = warnings(DOMAIN, [item(1, "q", reply)])
    assert fault.problem.startswith(named)


@pytest.mark.parametrize("reply", ["Write x --> y for a map.", "f{1} and {{}} are code", "Go on."])
def test_arrows_and_braces_within_an_answer_are_its_own(reply: str) -> None:
    assert not warnings(DOMAIN, [item(1, "q", reply)])


def test_a_question_that_repeats_is_told_once_for_each_copy() -> None:
    (fault,) = warnings(DOMAIN, [item(1, "q", "a"), item(2, "q", "b"), item(3, "q", "c"), item(4, "r", "d")])
    assert fault.problem.startswith("2 of 4 items ask what another one asks: ")


def test_a_label_of_one_row_among_many_is_told() -> None:
    def labelled(*said: str) -> list[str]:
        replies = tuple(sorted(set(said)))
        messages = (Message("user", "x"),)
        found = [
            Item(str(n), "d", "g", f"f:{n}", n, messages, replies, replies.index(each), kind="label")
            for n, each in enumerate(said)
        ]
        return [str(fault) for fault in warnings(DOMAIN, found)]

    assert labelled(*["up", "down"] * 8, "dwn") == [
        "domain d: label 'dwn' is that of one row alone, f:16; mend it if it is a slip; a class needs more rows"
    ]
    assert labelled(*["up", "down"] * 4, "dwn") == []


def test_copies_have_no_better_answer() -> None:
    (copies,) = warnings(DOMAIN, [item(1, "q", "a"), item(2, "q", "a"), item(3, "r", "b")])
    assert copies.fix.endswith("remove the copies")
    (others,) = warnings(DOMAIN, [item(1, "q", "a"), item(2, "q", "b"), item(3, "r", "b")])
    assert others.fix.endswith("keep the better answer of each")
