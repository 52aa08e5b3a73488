"""What was forgotten, from a run's answers: nats on general text, general questions lost and gained, guards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metier.evaluation.answers import Answer
from metier.evaluation.measures import base_loss_of, loss_of
from metier.evaluation.metrics import to_dict
from metier.evaluation.verdict import of_forgetting
from metier.scores import Difference, mcnemar, paired, ratio


@dataclass(frozen=True)
class Choices:
    """General questions before and after: accuracy after minus before, and the items that changed sides."""

    difference: Difference
    before: float
    after: float
    lost: tuple[Answer, ...]
    gained: tuple[Answer, ...]


def forgetting(answers: Sequence[Answer]) -> Difference:
    """Loss minus the untuned base's loss on one run's passages, in nats per token: above 0 is forgotten.

    Raises ValueError if no passage has both.
    """
    rows = [
        (each.group, tuned, base)
        for each in answers
        if each.kind == "text" and (tuned := loss_of(each)) and (base := base_loss_of(each))
    ]
    if not rows:
        raise ValueError("forgetting: no passage has both the run's loss and the base's")
    groups, *sides = zip(*rows, strict=True)
    ours, theirs = (ratio(*zip(*side, strict=True)) for side in sides)
    return paired("loss", ours, theirs, groups, higher_is_better=False)


def changed_choices(answers: Sequence[Answer]) -> Choices | None:
    """General questions answered with and without the adapter; an item that failed is wrong on both sides."""
    asked = [each for each in answers if each.kind == "general"]
    if not asked:
        return None
    now = [each.output == each.reference for each in asked]
    then = [each.base_output == each.reference for each in asked]
    pairs = list(zip(asked, then, now, strict=True))
    return Choices(
        difference=mcnemar("accuracy", now, then, [each.group for each in asked]),
        before=sum(then) / len(asked),
        after=sum(now) / len(asked),
        lost=tuple(each for each, before, after in pairs if before and not after),
        gained=tuple(each for each, before, after in pairs if after and not before),
    )


def losses(text: Difference | None, choices: Choices | None, guard: Mapping[Any, float]) -> dict[str, Any]:
    """The entries `forgetting`, `general_choices` and `guard` of scores.json."""
    # By how much each got worse, in its guard's unit.
    worse = ({"general_text": text.value} if text else {}) | (
        {"general_choices": choices.before - choices.after} if choices else {}
    )
    return {
        "forgetting": to_dict(text) | {"verdict": of_forgetting(text)} if text else None,
        "general_choices": _plain(choices) if choices else None,
        "guard": {
            name: {"limit": limit, "value": worse[name], "passed": worse[name] <= limit}
            for name, limit in guard.items()
            if name in worse
        },
    }


def _plain(choices: Choices) -> dict[str, Any]:
    sides = {"lost": choices.lost, "gained": choices.gained}
    return {
        **to_dict(choices.difference),
        "before": choices.before,
        "after": choices.after,
        **{side: [_item(each) for each in answers] for side, answers in sides.items()},
    }


def _item(answer: Answer) -> dict[str, str | None]:
    kept = {"id": answer.id, "place": answer.place, "prompt": answer.prompt, "reference": answer.reference}
    return {**kept, "before": answer.base_output, "after": answer.output}
