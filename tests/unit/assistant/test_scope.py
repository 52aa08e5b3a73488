from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from metier.assistant.scope import Scope, elsewhere
from tests import opened

SAMPLES = Path(__file__).parents[3] / "src/metier/assets/samples"


def asked(domain: str) -> list[str]:
    talks = [json.loads(line)["messages"] for line in (SAMPLES / f"{domain}.jsonl").read_text("utf-8").splitlines()]
    return [next(turn["content"] for turn in talk if turn["role"] == "user") for talk in talks]


@cache
def scope(*domains: str) -> Scope:
    texts = [asked(domain) for domain in domains]
    train, validation = ([text for each in texts for text in each[first::3]] for first in (0, 1))
    return Scope.fit(domains, train, validation, opened.safety().lexicon, medical="medical" in domains)


@pytest.mark.long
@pytest.mark.parametrize(
    ("domains", "least"), [(("banking", "telecom"), 0.4), pytest.param(("medical",), 0.6, marks=pytest.mark.slow)]
)
def test_what_belongs_to_no_trade_is_declined_and_what_belongs_is_not(domains: tuple[str, ...], least: float) -> None:
    """Least of all in medicine, where anything may be said."""
    found, others = scope(*domains), elsewhere()[1]
    heldout = [text for domain in domains for text in asked(domain)[2::3]]
    assert found.declined(heldout) <= 0.04 * len(heldout)
    assert found.declined(others) >= least * len(others)


def test_a_conversation_belongs_here_if_any_of_it_does() -> None:
    made, strange = scope("banking", "telecom"), "Write me a poem about a pirate who learns to code in Haskell"
    assert not made.covers([strange])
    assert made.covers([asked("banking")[2], strange])
    assert made.covers([strange, "hello there"])


@pytest.mark.long
def test_the_same_texts_give_the_same_scope() -> None:
    one, other = scope("banking"), scope.__wrapped__("banking")
    assert one is not other
    assert (one.threshold, one.learned.margin("my card")) == (other.threshold, other.learned.margin("my card"))
