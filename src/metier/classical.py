"""The two-second baselines: TF-IDF with a linear SVM, and the nearest training answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import linear_kernel
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.svm import LinearSVC

_SIMILARITIES = 1 << 22  # held at once, 8 bytes each

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

_WORD = r"\w\w+|\d"  # a lone digit is a word too: prompts may be sums
_FEATURES: dict[str, dict[str, Any]] = {
    "words": {"ngram_range": (1, 2), "token_pattern": _WORD, "sublinear_tf": True},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 5), "sublinear_tf": True},
}


def vectorizer(texts: Sequence[str]) -> FeatureUnion:
    """TF-IDF of words (1 to 2) and of characters within words (2 to 5), both with sublinear counts.

    Where no text has a word (emoji alone), characters stand for themselves.
    """
    kinds = ["words", "characters"] if any(re.search(_WORD, text) for text in texts) else ["characters"]
    return FeatureUnion([(kind, TfidfVectorizer(**_FEATURES[kind])) for kind in kinds])


def terms(vectors: FeatureUnion) -> dict[str, tuple[list[str], Floats]]:
    """What a fitted vectorizer has learned: of each kind of feature the terms in order, with their weights (terms,)."""
    return {kind: (each.get_feature_names_out().tolist(), each.idf_) for kind, each in vectors.transformer_list}


def from_terms(known: Mapping[str, tuple[Sequence[str], Floats]]) -> FeatureUnion:
    """The vectorizer that learned these `terms`."""
    fitted = []
    for kind, (names, weights) in known.items():
        each = TfidfVectorizer(**_FEATURES[kind], vocabulary={name: place for place, name in enumerate(names)})
        each.idf_ = weights
        fitted.append((kind, each))
    return FeatureUnion(fitted)


@dataclass(frozen=True)
class LabelBaseline:
    """A linear SVM over TF-IDF: what a label costs without a language model."""

    pipeline: Pipeline

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[str]) -> Self:
        """Learn labels from texts, the same way every time."""
        # An SVM needs two classes; where the rows know one, that one is the answer.
        one = len(set(labels)) == 1
        classifier = DummyClassifier(strategy="most_frequent") if one else LinearSVC(random_state=0)
        return cls(make_pipeline(vectorizer(texts), classifier).fit(texts, labels))

    def predict(self, texts: Sequence[str]) -> list[str]:
        """One of the labels seen in training for each text."""
        return [str(label) for label in self.pipeline.predict(texts)]


@dataclass(frozen=True)
class ReplyBaseline:
    """A linear SVM over TF-IDF of replies, which never sees a question: what the replies alone give away."""

    pipeline: Pipeline

    @classmethod
    def fit(cls, replies: Sequence[Sequence[str]], right: Sequence[int]) -> Self:
        """Learn right replies from wrong ones, `right` being the right one's place."""
        texts = [text for each in replies for text in each]
        wanted = [place == index for each, index in zip(replies, right, strict=True) for place in range(len(each))]
        classifier = LinearSVC(random_state=0, class_weight="balanced")
        return cls(make_pipeline(vectorizer(texts), classifier).fit(texts, wanted))

    def predict(self, replies: Sequence[Sequence[str]]) -> list[int]:
        """The place of the likeliest reply; of equally likely ones the first."""
        scores = self.pipeline.decision_function([text for each in replies for text in each])
        ends = np.cumsum([len(each) for each in replies])[:-1]
        return [int(np.argmax(each)) for each in np.split(scores, ends)]


@dataclass(frozen=True)
class Nearest:
    """Texts that are found again by cosine of TF-IDF."""

    vectors: FeatureUnion
    texts: Any  # sparse (texts, features), from scikit-learn, which has no types

    @classmethod
    def fit(cls, texts: Sequence[str]) -> Self:
        vectors = vectorizer(texts)
        return cls(vectors, vectors.fit_transform(texts))

    def rank(self, queries: Sequence[str], counts: Sequence[int]) -> Iterator[list[int]]:
        """For each query the indices of its `count` nearest texts, the nearest first; of equal ones the first."""
        rows = (row for near in self._similarities(queries) for row in near)
        for near, count in zip(rows, counts, strict=True):
            yield _largest(near, min(count, len(near))).tolist()

    def first(self, queries: Sequence[str]) -> Iterator[int]:
        """For each query the index of the nearest text; of equally near ones the first."""
        for near in self._similarities(queries):
            yield from near.argmax(axis=1).tolist()

    def _similarities(self, queries: Sequence[str]) -> Iterator[Any]:
        """Cosines (queries, texts), as many queries at a time as memory is meant for."""
        step = max(1, _SIMILARITIES // self.texts.shape[0])
        for start in range(0, len(queries), step):
            vectors = self.vectors.transform(queries[start : start + step])
            yield linear_kernel(vectors, self.texts, dense_output=True)


def _largest(values_N: Floats, count: int) -> Indices:
    """The places of the `count` largest values as a stable sort has them; only these are sorted."""
    least = np.partition(values_N, -count)[-count]
    above, tied = np.flatnonzero(values_N > least), np.flatnonzero(values_N == least)
    sorted_ = above[np.argsort(-values_N[above], kind="stable")]
    return np.concatenate([sorted_, tied[: count - len(above)]])


@dataclass(frozen=True)
class NearestAnswer:
    """The answer to the training prompt nearest by cosine of TF-IDF, word for word."""

    prompts: Nearest
    answers: tuple[str, ...]

    @classmethod
    def fit(cls, prompts: Sequence[str], answers: Sequence[str]) -> Self:
        """Remember each prompt with its answer."""
        return cls(Nearest.fit(prompts), tuple(answers))

    def predict(self, prompts: Sequence[str]) -> list[str]:
        """An answer for each prompt; the first of equally near ones, so the first of all to a stranger."""
        return [self.answers[index] for index in self.prompts.first(prompts)]
