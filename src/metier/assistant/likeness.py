"""The second layer of red flags and moods: how much like known messages a new one is. Linear, the same every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import FeatureUnion

from metier.classical import Floats, vectorizer

_C = 10.0  # inverse strength of the penalty, as the router has it
_ALPHA = 0.1  # of naive Bayes: an unseen term counts as a tenth of one
_BAYES = 0.5  # weight of naive Bayes' margin, which is about twice as wide as the regression's

K = TypeVar("K", bound=str)
Weighed = tuple[Floats, float]
"""A weight a term, and an offset."""

_WORDS = "words__"  # what the names of these features begin with; letters tell a reader nothing
_LOUDEST = 3  # words to tell


@dataclass(frozen=True)
class Learned:
    """Margins of texts: logistic regression and naive Bayes over TF-IDF of words and of letters, added up.

    Both are linear, so that their sum is one weight a term; each errs where the other does not (Wang & Manning
    2012 find the two alike on average, and apart by text length).
    """

    vectors: FeatureUnion
    weights_F: Floats
    offset: float
    prepared: Callable[[str], str]

    @classmethod
    def fit(cls, speaks: Sequence[str], keeps: Sequence[str], prepared: Callable[[str], str]) -> Self:
        """Learn to tell texts that speak for something from those that do not, each `prepared` first."""
        return cls.fit_each({"": speaks}, keeps, prepared)[""]

    @classmethod
    def fit_each(
        cls, kinds: Mapping[K, Sequence[str]], keeps: Sequence[str], prepared: Callable[[str], str]
    ) -> dict[K, Self]:
        """Of each kind what tells its texts from those of the others and of none, over the same terms."""
        told = [(kind, prepared(text)) for kind, listed in kinds.items() for text in listed]
        texts = (*(text for _, text in told), *map(prepared, keeps))
        vectors, weighed = _weighed(texts, (*(kind for kind, _ in told), *[None] * len(keeps)))
        return {kind: cls(vectors, *weighed[kind], prepared) for kind in kinds}

    def margins(self, texts: Sequence[str]) -> Floats:
        """One number a text; 0 is undecided, above it speaks for it."""
        margins_N: Floats = self.vectors.transform([self.prepared(text) for text in texts]) @ self.weights_F
        return np.asarray(margins_N + self.offset)

    def margin(self, text: str) -> float:
        return float(self.margins([text])[0])

    def because(self, text: str) -> str:
        """The words of a text that speak loudest for it."""
        row = self.vectors.transform([self.prepared(text)])
        loud = sorted(zip(-row.data * self.weights_F[row.indices], row.indices, strict=True))
        words = [self._terms[place].removeprefix(_WORDS) for _, place in loud if self._terms[place].startswith(_WORDS)]
        return ", ".join(words[:_LOUDEST])

    @cached_property
    def _terms(self) -> list[str]:
        return list(self.vectors.get_feature_names_out())


@lru_cache(maxsize=4)  # a second server of the process, or a test, need not wait for the same again
def _weighed(texts: tuple[str, ...], kinds: tuple[str | None, ...]) -> tuple[FeatureUnion, dict[str, Weighed]]:
    """The terms of texts, and by kind with which weights they speak for it; None is no kind."""
    vectors = vectorizer(texts)
    found = vectors.fit_transform(texts)
    weighed = {}
    for kind in dict.fromkeys(each for each in kinds if each is not None):
        truth = [each == kind for each in kinds]
        # The dual solver takes a fiftieth of the default's time, and no threads; its draws are seeded.
        solver = {"solver": "liblinear", "dual": True, "random_state": 0, "max_iter": 1000}
        regression = LogisticRegression(C=_C, class_weight="balanced", **solver).fit(found, truth)
        bayes = MultinomialNB(alpha=_ALPHA, fit_prior=False).fit(found, truth)
        ratios_F = bayes.feature_log_prob_[1] - bayes.feature_log_prob_[0]
        weighed[kind] = regression.coef_[0] + _BAYES * ratios_F, float(regression.intercept_[0])
    return vectors, weighed


def lines(path: Path) -> list[str]:
    """A text a line, without empty lines and those that begin with #."""
    found = path.read_text(encoding="utf-8").splitlines()
    return [text.strip() for text in found if text.strip() and not text.startswith("#")]
