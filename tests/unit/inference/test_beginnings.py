from __future__ import annotations

from typing import Any

import pytest
import torch

from metier.inference.beginnings import Beginning, Beginnings, Key
from metier.inference.engine import Capacity, Engine, Request
from metier.model.forward import ATTENTION, Forward
from tests.unit.inference.test_engine import CONFIGS, STOP, network

LONG = tuple(3 + number % 40 for number in range(30))


def engine(name: str, remember: int) -> Engine:
    boundary = 16 if name == "longrope" else None
    return Engine(Forward(network(name, ATTENTION), forks=True), Capacity(64, 4, remember), boundary=boundary)


def said(made: Engine, *requests: Request) -> list[list[int]]:
    found = {place: tokens for place, tokens, _ in made.run(requests)}
    return [found[place] for place in range(len(requests))]


@pytest.mark.parametrize("name", CONFIGS)
def test_going_on_from_what_was_read_changes_no_answer(name: str) -> None:
    remembering, fresh = engine(name, 1 << 20), engine(name, 0)
    first = Request(LONG, 12, STOP)
    (answer,) = said(remembering, first)
    assert answer == said(fresh, first)[0]
    turns = [
        Request((*LONG, *answer, 5, 6), 12, STOP),
        Request((*LONG[:20], 9, 8), 12, STOP),
        Request(LONG, 12, STOP),
        Request(LONG[:18], 12, STOP),
    ]
    for turn in turns:
        assert said(remembering, turn) == said(fresh, turn)
    assert said(remembering, *turns) == said(fresh, *turns)


def test_only_what_is_new_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine("llama", 1 << 20)
    lengths: list[int] = []
    forward = type(made._forward.network).forward

    def watched(self: Any, input_ids: torch.Tensor, **how: Any) -> Any:
        lengths.append(input_ids.shape[1])
        return forward(self, input_ids, **how)

    monkeypatch.setattr(type(made._forward.network), "forward", watched)
    said(made, Request(LONG, 1, STOP))
    said(made, Request((*LONG, 7), 1, STOP))
    assert lengths == [30, 1]
    for stranger in (Request((*LONG, 8), 1, STOP, tenant="other"), Request((*LONG, 8), 1, STOP, tenant="third")):
        said(made, stranger)
    assert lengths == [30, 1, 31, 31]


def beginning(first: int, length: int = 20) -> Beginning:
    cache = {0: torch.zeros(1, length, 2)}
    return Beginning(tuple(range(first, first + length)), cache, cache)


def test_nothing_is_shared_between_keys_and_adapters() -> None:
    kept, ours = Beginnings(1 << 20), ("a", "bank")
    kept.keep(ours, beginning(0))
    tokens = tuple(range(21))
    strangers: list[Key] = [("b", "bank"), ("a", "shop"), ("", "")]
    assert [kept.longest(key, tokens) for key in strangers] == [None] * 3
    found = kept.longest(ours, tokens)
    assert found
    assert found[1] == 20
    assert kept.longest(ours, tuple(range(20)))[1] == 19  # type: ignore[index]  # the last token has to be read
    assert kept.longest(ours, (0, 1, 2)) is None
    kept.forget("bank")
    assert kept.longest(ours, tokens) is None


def test_what_was_used_last_stays() -> None:
    size = beginning(0).size
    kept, key = Beginnings(2 * size), ("", "")
    for first in (0, 100):
        kept.keep(key, beginning(first))
    assert kept.longest(key, tuple(range(25)))
    kept.keep(key, beginning(200))
    assert kept.longest(key, tuple(range(25)))
    assert kept.longest(key, tuple(range(100, 125))) is None
    kept.keep(key, beginning(0, 30))  # takes the place of what it goes on from
    assert kept.longest(key, tuple(range(31)))[1] == 30  # type: ignore[index]
