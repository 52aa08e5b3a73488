from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from metier.assistant.scope import Scope
from metier.assistant.tickets import Ticket, Tickets
from metier.data.items import Message
from metier.inference.voices import Voices
from metier.web.care import Care, Said
from metier.web.desk import Desk
from metier.web.webhook import Webhook
from tests import opened


@pytest.fixture(scope="module")
def care() -> Care:
    return Care(opened.safety())


def kind(said: Said | None) -> str:
    return said.notes["safety"]["kind"] if said else ""


def test_an_emergency_that_nobody_answered_is_answered(care: Care) -> None:
    system, emergency = Message("system", "Help."), Message("user", "My father collapsed and is not breathing")
    more = Message("user", "please help me")
    assert kind(care.first([system, emergency, more], ("telecom",))) == "emergency"
    assert kind(care.first([Message("assistant", "hello"), emergency, system, more], ("telecom",))) == "emergency"
    assert care.first([emergency, Message("assistant", "Call now."), more], ("telecom",)) is None


def test_any_of_the_domains_to_which_a_question_may_belong_decides(care: Care) -> None:
    secret, foreign = Message("user", "my PIN is 4821"), Message("user", "Ich habe seit gestern Schmerzen im Knie")
    several = ("telecom", "banking", "medical")
    assert kind(care.first([secret], several)) == "refusal"
    assert kind(care.first([foreign], several)) == "language"
    assert care.behind(several).notice
    for domains in ((), ("telecom",)):
        assert care.first([secret], domains) is None
        assert care.first([foreign], domains) is None
        assert not care.behind(domains).notice


def test_a_secret_is_refused_where_it_may_be_meant_for_a_bank(care: Care) -> None:
    """Languages and the notice follow the domain that was chosen."""
    secret, foreign = Message("user", "my PIN is 4821"), Message("user", "Ich habe seit gestern Schmerzen im Knie")
    among = ("telecom", "banking", "medical")
    assert care.first([secret], ("telecom",)) is None
    assert kind(care.first([secret], ("telecom",), among)) == "refusal"
    assert kind(care.first([secret], (), among)) == "refusal"
    assert care.first([foreign], ("telecom",), among) is None


def test_nothing_is_declined_that_may_belong_to_a_domain_of_which_the_scope_learned_nothing(care: Care) -> None:
    said, scope = Message("user", "which?"), cast(Scope, SimpleNamespace(domains=("medical",), covers=lambda _: False))
    assert care.declined([said], ("medical",), scope, chosen=True)
    for domains in (("clinic",), ("medical", "clinic")):
        assert care.declined([said], domains, scope, chosen=True) is None


def test_an_emergency_in_german_that_auto_sends_nowhere_hears_a_number(care: Care) -> None:
    """Whether no model is known for it, or it is declined."""
    said, domains = Message("user", "Mein Vater atmet nicht und ist ganz blau"), ("telecom", "medical")
    scope = cast(Scope, SimpleNamespace(domains=domains, covers=lambda _: False))
    declined = care.declined([said], ("telecom",), scope, chosen=False)
    assert declined
    for text in (declined.text, Desk(Voices(offline=True), care=care).asks_back(domains)):
        assert "112 in Europe" in text


@pytest.mark.parametrize("said", ["Ich habe meine Bestellung noch nicht bekommen", "Je voudrais retourner la lampe"])
def test_moods_are_heard_in_the_languages_that_are_covered(tmp_path: Path, said: str) -> None:
    care = Care(opened.safety(), opened.moods(), Tickets(tmp_path / "a.db"))
    assert care.first([Message("user", said)], ("shop",)) is None
    assert care.first([Message("user", "I want to speak to a person")], ("shop",))


def test_a_second_hand_over_of_one_conversation_opens_no_second_ticket(tmp_path: Path) -> None:
    posted = list[Ticket]()
    webhook = cast(Webhook, SimpleNamespace(post=posted.append))
    care = Care(moods=opened.moods(), tickets=Tickets(tmp_path / "a.db"), webhook=webhook)
    talk = [Message("user", "I want to speak to a person")]
    for _ in range(2):
        handed = care.first(talk, ("shop",))
        assert handed
        assert handed.notes["handover"]["ticket"] == 1
        talk += [Message("assistant", handed.text), Message("user", "Put me through to a human agent now")]
    assert [each.id for each in posted] == [1]
    stranger = care.first([Message("user", "I want to speak to a person")], ("shop",))
    assert stranger
    assert stranger.notes["handover"]["ticket"] == 2


def test_whoever_sends_a_secret_and_wants_a_person_gets_both(tmp_path: Path) -> None:
    care = Care(opened.safety(), opened.moods(), Tickets(tmp_path / "a.db"))
    talk = [Message("user", "My card 4111 1111 1111 1111 was charged twice. I want to speak to a person")]
    said = care.first(talk, ("shop",))
    assert said
    assert said.notes["safety"]["kind"] == "refusal"
    assert said.notes["handover"] == {"ticket": 1, "mood": "person", "why": said.notes["handover"]["why"]}
    assert "card number" in said.text
    assert "Your ticket is number 1-" in said.text
    talk += [Message("assistant", said.text), Message("user", "Put me through to a human agent now")]
    again = care.first(talk, ("shop",))
    assert again
    assert again.notes["handover"]["ticket"] == 1
    assert care.tickets
    (ticket,) = care.tickets.listed()
    assert "4111" not in str(ticket)
    assert "Tried" not in ticket.summary  # handing over is no try
