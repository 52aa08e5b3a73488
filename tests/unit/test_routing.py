"""The router: what it learns, when it abstains, and that it is the same after loading."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from metier.classical import vectorizer
from metier.errors import ModelError
from metier.routing import Router, confusion

TEXTS = {
    "pets": ["my cat is ill", "the dog barks", "a cat and a dog", "feed the dog 2 times"],
    "cars": ["the car stalls", "a flat tyre", "my car needs oil"],
    "food": ["bake bread", "boil an egg for 3 minutes", "fry the onions"],
}
ASKED = ["is the dog a cat", "the car has a flat tyre", "bread and egg", "xyzzy", ""]


@pytest.fixture(scope="module")
def router() -> Router:
    return Router.fit(TEXTS)


@pytest.mark.parametrize("count", [2, 3])
def test_shares_are_those_of_scikit_learn(count: int) -> None:
    texts = dict(list(TEXTS.items())[:count])
    said, names = [text for each in texts.values() for text in each], [n for n, each in texts.items() for _ in each]
    vectors = vectorizer(said)
    oracle = LogisticRegression(C=10, class_weight="balanced", max_iter=1000).fit(vectors.fit_transform(said), names)
    router = Router.fit(texts)
    order = [list(oracle.classes_).index(name) for name in router.domains]
    wanted = oracle.predict_proba(vectors.transform(ASKED))[:, order]
    assert router.probabilities(ASKED) == pytest.approx(wanted, abs=1e-9)


def test_every_question_goes_where_its_words_are_known(router: Router) -> None:
    assert [sent for sent, _ in router.route(ASKED[:3])] == ["pets", "cars", "food"]
    assert router.route([]) == []


def test_the_same_texts_give_the_same_router(router: Router) -> None:
    assert np.array_equal(Router.fit(TEXTS).probabilities(ASKED), router.probabilities(ASKED))


def test_twenty_domains_of_any_size() -> None:
    texts = {f"d{n}": [f"word{n} number {k}" for k in range(1 + 5 * (n % 3))] for n in range(20)}
    router = Router.fit(texts)
    assert [sent for sent, _ in router.route([f"word{n}" for n in range(20)])] == list(texts)
    assert router.probabilities(["word3"]).sum() == pytest.approx(1)


@pytest.mark.parametrize("texts", [TEXTS, {"a": ["🙂", "🙂🙂"], "b": ["🚗"]}], ids=["words", "emoji alone"])
def test_a_loaded_router_is_the_saved_one(texts: dict[str, list[str]], tmp_path: Path) -> None:
    router = Router.fit(texts).cautious(texts)
    router.save(tmp_path / "router")
    loaded = Router.load(tmp_path / "router")
    assert np.array_equal(loaded.probabilities([*ASKED, "🙂"]), router.probabilities([*ASKED, "🙂"]))
    assert (loaded.domains, loaded.threshold) == (router.domains, router.threshold)
    assert {path.suffix for path in (tmp_path / "router").iterdir()} == {".json", ".safetensors"}


def test_a_changed_or_newer_router_is_refused(router: Router, tmp_path: Path) -> None:
    router.save(tmp_path / "router")
    path = tmp_path / "router" / "router.json"
    path.write_text(path.read_text().replace("pets", "cats"))
    with pytest.raises(ModelError, match="has changed since it was saved"):
        Router.load(tmp_path / "router")
    (tmp_path / "router" / "manifest.json").write_text("{}")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(ModelError, match="has format 2"):
        Router.load(tmp_path / "router")


@pytest.mark.parametrize(
    ("texts", "said"),
    [({}, "no domain"), ({"a": ["x"]}, "only the domain a"), ({"a": ["x"], "b": []}, "domain b has no questions")],
)
def test_nothing_to_choose_between(texts: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        Router.fit(texts)


def test_the_threshold_is_the_best_of_all(router: Router) -> None:
    """Against trying every one."""
    validation = {
        "pets": ["cat", "the car of my cat", "dog", "egg"],
        "cars": ["tyre", "oil the dog"],
        "food": ["bread"],
    }
    texts = [(text, name) for name, each in validation.items() for text in each]
    for cost in (0.5, 1.0, 4.0, 100.0):

        def worth(threshold: float, cost: float = cost) -> float:
            from dataclasses import replace

            sent = replace(router, threshold=threshold).route([text for text, _ in texts])
            return sum(
                0 if at is None else 1 if at == name else -cost for (at, _), (_, name) in zip(sent, texts, strict=True)
            )

        seen = sorted({share for _, share in router.route([text for text, _ in texts])})
        best = max(map(worth, seen))
        assert router.cautious(validation, cost).threshold == min(each for each in seen if worth(each) == best)


def test_what_is_less_certain_than_anything_seen_goes_nowhere(router: Router) -> None:
    cautious = router.cautious({name: each[:1] for name, each in TEXTS.items()})
    assert [sent for sent, _ in cautious.route(["my cat is ill", "xyzzy"])] == ["pets", None]


def test_where_all_goes_wrong_nothing_is_routed(router: Router) -> None:
    cautious = router.cautious({"pets": TEXTS["cars"]})
    assert {sent for sent, _ in cautious.route([*TEXTS["pets"], *ASKED])} == {None}


def test_confusion_counts_what_may_go_to_several() -> None:
    routes = [("a", 0.9), ("b", 0.8), ("b", 0.7), (None, 0.3), ("c", 0.5)]
    found = confusion(routes, [["a"], ["a", "b"], ["a"], ["c", "a"], ["a", "b"]], ["a", "b", "c"])
    assert found.counts == ((1, 1, 1, 0), (0, 1, 0, 0), (0, 0, 0, 1))
    assert (found.right, found.wrong, found.abstained) == (2, 2, 1)
    assert (found.accuracy, found.coverage, found.selective_accuracy) == (0.4, 0.8, 0.5)
    assert math.isnan(confusion([], [], ["a"]).accuracy)
