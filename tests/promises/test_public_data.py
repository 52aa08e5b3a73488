"""Published splits and real tokenizers: what others counted, we count too."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from metier.classical import LabelBaseline
from metier.data.dataset import DomainData, load
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


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "average", "published", "tolerance"),
    [
        ("fpb", "weighted", 0.798, 0.02),
        pytest.param("tfns", "weighted", 0.839, 0.015, marks=pytest.mark.slow),
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


def domains_of(name: str, shared: Path) -> dict[str, DomainData]:
    return {each.domain.name: each for each in load(shipped(name, shared), offline=True).domains}


def counts(data: DomainData) -> tuple[int, int, int]:
    """Held out, not held out, and left out of the latter."""
    rest = len(data.train) + len(data.validation) + len(data.left_out)
    return len(data.heldout), rest, len(data.left_out)


@pytest.mark.slow
def test_fingpts_sets_are_whole_and_the_absent_one_is_skipped(shared: Path) -> None:
    found = domains_of("fingpt", shared)
    assert {name: counts(data) for name, data in found.items()} == {
        "fpb": (1212, 3634, 5),
        "tfns": (2388, 9543, 1),
        "fiqa-headlines": (119, 379, 0),
        "fiqa-posts": (100, 575, 0),
    }
    (skipped,) = load(shipped("fingpt", shared), offline=True).skipped
    assert skipped.place == "domain nwgi"
    assert "hub:oliverwang15/news_with_gpt_instructions:train: is not on this machine" in skipped.problem


@pytest.mark.long
def test_fiqa_is_the_local_versions_1173_targets_by_fingpts_rule(shared: Path) -> None:
    found = domains_of("fingpt", shared)
    texts, labels = Counter[str](), Counter[tuple[str, str]]()
    for name in ("fiqa-headlines", "fiqa-posts"):
        for item in (*found[name].train, *found[name].validation, *found[name].heldout):
            labels[name, item.reference] += 1
            texts[item.messages[-1].content] += 1
    raw = [
        float(info["sentiment_score"])
        for path in sorted((shared / "data/fiqa_sa").glob("task1_*.json"))
        for entry in json.loads(path.read_text(encoding="utf-8")).values()
        for info in entry["info"]
    ]
    assert labels.total() == len(raw) == 1173
    by_label = Counter("negative" if score < -0.1 else "neutral" if score < 0.1 else "positive" for score in raw)
    assert Counter(label for (_, label), count in labels.items() for _ in range(count)) == by_label
    assert texts.most_common(1)[0][1] > 1  # a text with several targets


@pytest.mark.long
def test_texts_with_several_targets_stay_on_one_side(shared: Path) -> None:
    data = domains_of("fingpt", shared)["fiqa-headlines"]
    sides = [{item.group for item in side} for side in (data.train, data.validation, data.heldout)]
    assert sum(map(len, sides)) == len(set.union(*sides))


MMLU = {
    "anatomy": (135, "A lesion causing compression of the facial nerve at the stylomastoid foramen", "A"),
    "clinical_knowledge": (265, "What size of cannula would you use in a patient who needed a rapid blood", "A"),
    "college_biology": (144, "Based on the characteristic population curves that result from plotting", "C"),
    "college_medicine": (173, "A police officer carries out hundreds of traffic stops every year.", "B"),
    "medical_genetics": (100, "In a Robertsonian translocation fusion occurs at the:", "B"),
    "professional_medicine": (272, "A 67-year-old woman comes to the physician for a follow-up examination.", "C"),
}


@pytest.mark.long
@pytest.mark.parametrize("subject", MMLU)
def test_the_medical_subjects_of_mmlu_are_whole(shared: Path, subject: str) -> None:
    data = domains_of("medical", shared)[subject]
    count, question, answer = MMLU[subject]
    assert counts(data)[:2] == (count, 5)
    (first,) = (item for item in data.heldout if item.place.endswith(":2"))
    assert first.messages[-1].content.startswith(question)
    assert first.reference == answer
    assert len(first.options) == 4


def test_medmcqa_and_pubmedqa_are_whole(shared: Path) -> None:
    found = domains_of("medical", shared)
    medmcqa, pubmedqa = found["medmcqa"], found["pubmedqa"]
    assert sum(counts(medmcqa)[:2]) == 4183
    everything = (*medmcqa.train, *medmcqa.validation, *medmcqa.heldout)
    (first,) = (item for item in everything if item.id == "45258d3d-b974-44dd-a161-c3fccbdadd88")
    assert first.messages[-1].content.startswith(
        "Which of the following is not true for myelinated nerve fibers:\nA. Imp"
    )
    assert first.reference == "A"
    assert counts(pubmedqa) == (500, 500, 0)
    published = json.loads((shared / "data/pubmedqa/test_ground_truth.json").read_text(encoding="utf-8"))
    assert {item.id: item.reference for item in pubmedqa.heldout} == published
    (first,) = (item for item in (*pubmedqa.train, *pubmedqa.validation, *pubmedqa.heldout) if item.id == "21645374")
    assert "Question: Do mitochondria play a role in remodelling lace plant leaves" in first.messages[-1].content
    assert first.reference == "yes"


def test_mmlus_own_leak_between_subjects_is_left_out(shared: Path) -> None:
    found = domains_of("medical", shared)
    left = {name: len(data.left_out) for name, data in found.items() if data.left_out}
    assert left == {"clinical_knowledge": 2, "college_medicine": 3}


def test_cares_faults_are_named(shared: Path) -> None:
    found = domains_of("care", shared)
    told = {name: "\n".join(map(str, data.warnings)) for name, data in found.items()}
    assert "{{placeholders}} in 400 of 400 answers" in told["telecom"]
    assert "the end of a web page's link in 30 of 400 answers" in told["medical"]
    repeated = [re.search(r"(\d+) of [\d,]+ items ask what another one asks", text) for text in told.values()]
    assert sum(int(match[1]) for match in repeated if match) == 36
