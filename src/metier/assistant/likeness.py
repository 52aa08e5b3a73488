"""The second layer of red flags and moods: how much like known messages a new one is. Linear, the same every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from metier.classical import Floats

_C = 20.0  # inverse strength of the regression's penalty
_ALPHA = 0.05  # of naive Bayes: an unseen term counts as a twentieth of one
_BAYES = 2.0  # weight of naive Bayes' margin

K = TypeVar("K", bound=str)
Weighed = tuple[Floats, float]
"""A weight a term, and an offset."""

_LOUDEST = 3  # words to tell


@dataclass(frozen=True)
class Learned:
    """Margins of texts: logistic regression and naive Bayes over TF-IDF of one to three words in a row, added up.

    Both are linear, so that their sum is one weight a term; each errs where the other does not (Wang & Manning
    2012 find the two alike on average, and apart by text length).
    """

    vectors: TfidfVectorizer
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

    def telling(self, kinds: Mapping[K, Sequence[str]]) -> Callable[[str], K]:
        """What tells of which of these kinds a text is, over the terms that are known: naive Bayes, each as likely."""
        told = [(kind, self.prepared(text)) for kind, listed in kinds.items() for text in listed]
        truth = [kind for kind, _ in told]
        bayes = MultinomialNB(alpha=_ALPHA, fit_prior=False).fit(
            self.vectors.transform([text for _, text in told]), truth
        )
        named = {str(kind): kind for kind in kinds}
        return lambda text: named[str(bayes.predict(self.vectors.transform([self.prepared(text)]))[0])]

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
        return ", ".join(self._terms[place] for _, place in loud[:_LOUDEST])

    @cached_property
    def _terms(self) -> list[str]:
        return list(self.vectors.get_feature_names_out())


@lru_cache(maxsize=4)  # a second server of the process, or a test, need not wait for the same again
def _weighed(texts: tuple[str, ...], kinds: tuple[str | None, ...]) -> tuple[TfidfVectorizer, dict[str, Weighed]]:
    """The terms of texts, and by kind with which weights they speak for it; None is no kind."""
    vectors = TfidfVectorizer(ngram_range=(1, 3), token_pattern=r"\w+", sublinear_tf=True)
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
