"""Open questions are answered where they fit, however long the answer is that was wanted."""

from __future__ import annotations

from pathlib import Path

from metier.data.items import Item, Message
from metier.evaluation.answering import Limits, answer
from metier.events import silent
from metier.inference.loaded import open_base
from metier.model.loading import NumberFormat
from tests.unit import tiny


def item(name: str, question: str, wanted: str) -> Item:
    return Item(name, "help", name, "x.csv:2", 0, (Message("user", question),), (wanted,))


def test_a_long_wanted_answer_takes_nothing_from_the_question(tmp_path: Path) -> None:
    """Only its likelihood is left out: few-shot prompts leave room for the answer that is decoded, not for any."""
    opened = open_base(str(tiny.save(tmp_path / "base")), NumberFormat("float32", "float32"), "cpu", offline=True)
    asked = [
        item("short", "the lazy dog", "fox"),
        item("long answer", "the lazy dog", "fox " * 100),
        item("long question", "fox " * 100, "the"),
    ]
    limits = Limits(max_length=64, max_new_tokens=4, context=512)
    short, long_answer, long_question = answer(opened.engine(), opened.renderer, asked, limits, silent)
    assert short.logprob is not None
    assert short.output == long_answer.output  # the same question
    assert (long_answer.failed, long_answer.logprob, long_answer.tokens) == ("", None, None)
    assert long_question.output is None
    assert "max_length is 64" in long_question.failed
