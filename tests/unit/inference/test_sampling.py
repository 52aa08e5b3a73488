from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from metier.inference.sampling import Sampler, Sampling

LOGITS = torch.tensor([2.0, 1.0, 0.5, -1.0, 3.0, -2.0])


def shares(
    sampling: Sampling, prompt: list[int] | None = None, answer: list[int] | None = None, draws: int = 6000
) -> Tensor:
    """How often each token is drawn."""
    sampler = Sampler(sampling)
    tokens = [sampler.choose(LOGITS, prompt or [], answer or []) for _ in range(draws)]
    return torch.bincount(torch.tensor(tokens), minlength=len(LOGITS)) / draws


@pytest.mark.parametrize(
    ("rules", "theirs"),
    [
        ({"temperature": 1.0}, []),
        ({"temperature": 0.7}, [TemperatureLogitsWarper(0.7)]),
        ({"temperature": 1.5, "top_k": 3}, [TemperatureLogitsWarper(1.5), TopKLogitsWarper(3)]),
        ({"temperature": 1.0, "top_p": 0.8}, [TopPLogitsWarper(0.8)]),
        ({"temperature": 1.0, "min_p": 0.2}, [MinPLogitsWarper(0.2)]),
        ({"temperature": 1.0, "repetition_penalty": 1.8}, [RepetitionPenaltyLogitsProcessor(1.8)]),
    ],
)
def test_tokens_are_drawn_as_transformers_would(rules: dict[str, float], theirs: list[LogitsProcessor]) -> None:
    said = torch.tensor([[4, 3]])
    scores = LOGITS[None]
    for each in theirs:
        scores = each(said, scores)
    expected = scores.softmax(-1)[0]
    found = shares(Sampling(**rules, seed=3), [4], [3])  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=0.025)
    assert (found[expected == 0] == 0).all()


def test_frequency_and_presence_take_from_what_was_said_and_not_from_the_prompt() -> None:
    sampling = Sampling(temperature=1.0, frequency_penalty=0.5, presence_penalty=0.25, seed=1)
    scores = LOGITS.clone()
    scores[4] -= 2 * 0.5 + 0.25
    scores[0] -= 0.5 + 0.25
    assert shares(sampling, [1, 1, 1], [4, 4, 0]) == pytest.approx(scores.softmax(-1), abs=0.025)


def test_a_bias_forbids_and_forces() -> None:
    assert Sampler(Sampling(bias={4: -100.0})).choose(LOGITS, [], []) == 0
    assert Sampler(Sampling(bias={5: 100.0})).choose(LOGITS, [], []) == 5


def test_without_temperature_it_is_the_likeliest_that_penalties_leave() -> None:
    assert Sampler(Sampling()).choose(LOGITS, [], []) == 4
    assert Sampler(Sampling(presence_penalty=2.0)).choose(LOGITS, [], [4]) == 0


def test_a_seed_gives_the_same_again_and_none_does_not() -> None:
    def drawn(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed))
        return [sampler.choose(LOGITS, [], []) for _ in range(40)]

    assert drawn(7) == drawn(7) != drawn(8)
    assert drawn(None) != drawn(None)


@pytest.mark.parametrize("rules", [{"top_p": 0.0, "temperature": 1.0}, {"temperature": 1e-40}])
def test_rules_that_leave_one_leave_the_likeliest(rules: dict[str, float]) -> None:
    assert Sampler(Sampling(**rules, seed=1)).choose(LOGITS, [], []) == 4  # type: ignore[arg-type]
