from __future__ import annotations

import pytest

from metier.assistant.safety import Safety
from metier.data.items import Message
from metier.web.care import Care, Said


@pytest.fixture(scope="module")
def care() -> Care:
    return Care(Safety.open())


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
