"""Held-out items answered without a language model: the classical baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metier.classical import LabelBaseline, NearestAnswer, ReplyBaseline
from metier.data.items import Item
from metier.evaluation.answering import blank, transcript
from metier.evaluation.answers import Answer

UNANSWERED = {"rated", "passage"}  # kinds that ask for no answer: they are only read


def baseline_answers(known: Sequence[Item], heldout: Sequence[Item]) -> list[Answer]:
    """By TF-IDF: a linear SVM for labels and among replies, the nearest known answer for open ones."""
    kind = heldout[0].kind
    if kind in UNANSWERED:
        return []
    if kind in ("choice", "preference"):
        baseline = ReplyBaseline.fit([_replies(item) for item in known], [item.answer for item in known])
        chosen = baseline.predict([_replies(item) for item in heldout])
        outputs = [item.replies[index] for item, index in zip(heldout, chosen, strict=True)]
    else:
        fit = LabelBaseline.fit if kind == "label" else NearestAnswer.fit
        learnt = fit([transcript(item) for item in known], [item.reference for item in known])
        outputs = learnt.predict([transcript(item) for item in heldout])
    return [replace(blank(item), output=output) for item, output in zip(heldout, outputs, strict=True)]


def _replies(item: Item) -> list[str]:
    """What the replies say, where they are letters too."""
    return list(item.options or item.replies)
