"""The two-second baselines: TF-IDF with a linear SVM, and the nearest training answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import linear_kernel
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.svm import LinearSVC

_QUERIES = 64  # similarities to every training prompt are held for this many at once


def vectorizer() -> FeatureUnion:
    """TF-IDF of words (1 to 2) and of characters within words (2 to 5), both with sublinear counts."""
    return FeatureUnion(
        [
            # A lone digit is a word too: prompts may be sums.
            ("words", TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w\w+|\d", sublinear_tf=True)),
            ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)),
        ]
    )


@dataclass(frozen=True)
class LabelBaseline:
    """A linear SVM over TF-IDF: what a label costs without a language model."""

    pipeline: Pipeline

    @classmethod
    def fit(cls, texts: Sequence[str], labels: Sequence[str]) -> Self:
        """Learn labels from texts, the same way every time. Raises ValueError if no text has a word."""
        # An SVM needs two classes; where the rows know one, that one is the answer.
        one = len(set(labels)) == 1
        classifier = DummyClassifier(strategy="most_frequent") if one else LinearSVC(random_state=0)
        return cls(make_pipeline(vectorizer(), classifier).fit(texts, labels))

    def predict(self, texts: Sequence[str]) -> list[str]:
        """One of the labels seen in training for each text."""
        return [str(label) for label in self.pipeline.predict(texts)]


@dataclass(frozen=True)
class NearestAnswer:
    """The answer to the training prompt nearest by cosine of TF-IDF, word for word."""

    vectors: FeatureUnion
    prompts: Any  # sparse (training prompts, features), from scikit-learn, which has no types
    answers: tuple[str, ...]

    @classmethod
    def fit(cls, prompts: Sequence[str], answers: Sequence[str]) -> Self:
        """Remember each prompt with its answer. Raises ValueError if no prompt has a word."""
        vectors = vectorizer()
        return cls(vectors, vectors.fit_transform(prompts), tuple(answers))

    def predict(self, prompts: Sequence[str]) -> list[str]:
        """An answer for each prompt; the first of equally near ones, so the first of all to a stranger."""
        nearest: list[int] = []
        for start in range(0, len(prompts), _QUERIES):
            queries = self.vectors.transform(prompts[start : start + _QUERIES])
            nearest += linear_kernel(queries, self.prompts, dense_output=True).argmax(axis=1).tolist()
        return [self.answers[index] for index in nearest]
