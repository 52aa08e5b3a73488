"""Published splits and real tokenizers: what others counted, we count too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metier.classical import LabelBaseline
from metier.data.dataset import load
from metier.data.rendering import Renderer
from metier.evaluation.answering import transcript
from metier.recipe import SAMPLES, Recipe
from metier.scores import f1

RECIPES = SAMPLES.parent / "recipes"


def shipped(name: str, shared: Path) -> Recipe:
    return Recipe.load(RECIPES / f"{name}.toml", {"data_root": str(shared / "data")})


def test_financial_phrasebank_has_fingpts_split(shared: Path) -> None:
    (domain,) = load(shipped("fpb", shared)).domains
    assert len(domain.heldout) == 1212
    (first,) = [item for item in domain.heldout if item.row == _first()]
    assert "Input: L&T has also made a commitment" in first.messages[-1].content
    assert len(domain.train) + len(domain.validation) + len(domain.left_out) == 3634
    assert len(domain.left_out) == 5


def _first() -> int:
    """The first test row of the permutation that `datasets` draws."""
    return int(np.random.default_rng(42).permutation(4846)[0])


@pytest.mark.parametrize(
    ("name", "average", "published", "tolerance"),
    [
        ("fpb", "weighted", 0.798, 0.02),
        ("tfns", "weighted", 0.839, 0.015),
        pytest.param("banking77", "accuracy", 0.912, 0.01, marks=pytest.mark.slow),
    ],
)
def test_the_classical_baseline_is_as_good_as_published(
    shared: Path, name: str, average: str, published: float, tolerance: float
) -> None:
    (domain,) = load(shipped(name, shared)).domains
    known = [*domain.train, *domain.validation]
    fitted = LabelBaseline.fit([transcript(item) for item in known], [item.reference for item in known])
    labels = list(domain.heldout[0].replies)
    said = [labels.index(label) for label in fitted.predict([transcript(item) for item in domain.heldout])]
    truth = [item.answer for item in domain.heldout]
    if average == "accuracy":
        reached = np.mean(np.array(truth) == said)
    else:
        reached = f1(truth, said, len(labels), "weighted")(np.ones((1, len(truth))))[0]
    assert reached == pytest.approx(published, abs=tolerance)


def test_banking77s_parts_share_six_prompts(shared: Path) -> None:
    (domain,) = load(shipped("banking77", shared)).domains
    assert (len(domain.heldout), len(domain.heldout[0].replies)) == (3080, 77)
    assert len(domain.train) + len(domain.validation) + len(domain.left_out) == 10_003
    assert sum("the same prompt as held-out" in fault.problem for fault in domain.left_out) == 6


def test_the_trained_text_of_care_is_the_answer(shared: Path) -> None:
    renderer = Renderer.load(shared / "models/tokenizers/Phi-3-mini")
    items = [item for domain in load(shipped("care", shared)).domains for item in domain.train][::12][:50]
    assert len(items) == 50
    for item in items:
        row = renderer.example(item)
        trained = [token for token, weight in zip(row.tokens, row.weights, strict=True) if weight]
        assert renderer.tokenizer.decode(trained[:-1]).strip() == item.reference
        assert renderer.tokenizer.decode(trained[-1:]) == "<|end|>"
