"""The second layer of red flags and moods: how much like known messages a new one is. Linear, the same every time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from safetensors.numpy import load_file, save
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from metier.assistant.phrases import Lexicon
from metier.classical import Floats
from metier.files import digest, kept_directory, read_json, write_atomic, write_json

_FORMAT = 3  # of what is kept; another one, or other numbers below, is fitted anew
_LONGEST = 3  # words of a term
_WORD = re.compile(r"\w+")
# They tell how somebody writes, and not what about: one or two alone are no term.
_COMMON = frozenset(
    _WORD.findall("""
    a an the and or but so if then that this these those it its as there here
    i me my mine we us our you your he him his she her hers they them their
    is was are were be been am do does did have has had yes too very really just also now
    of to in on at for with from by up out about into over what which who when how all some any one two
    """)
)
_C = 100.0  # inverse strength of the regression's penalty
_ALPHA = 0.05  # of naive Bayes: an unseen term counts as a twentieth of one
_BAYES = 2.0  # weight of naive Bayes' margin
_TERMS, _WEIGHTS = "terms.json", "weights.safetensors"
_LOUDEST = 3  # words to tell
_SHORT = 5  # words
FEWEST = 3
"""Words; what shorter messages are about cannot be told: a greeting, an answer to what was asked."""

K = TypeVar("K", bound=str)


@dataclass(frozen=True)
class Learned:
    """Margins of texts: logistic regression and naive Bayes over TF-IDF of one to three words in a row, added up.

    Both are linear, so that their sum is one weight a term; each errs where the other does not (Wang & Manning
    2012 find the two alike on average, and apart by text length).
    """

    vectors: TfidfVectorizer
    weights_F: Floats
    offset: float
    lexicon: Lexicon

    @classmethod
    def fit(cls, speaks: Sequence[str], keeps: Sequence[str], lexicon: Lexicon) -> Self:
        """Learn to tell texts that speak for something from those that do not, each made normal first."""
        return cls.fit_each({"": speaks}, keeps, lexicon)[""]

    @classmethod
    def fit_each(cls, kinds: Mapping[K, Sequence[str]], keeps: Sequence[str], lexicon: Lexicon) -> dict[K, Self]:
        """Of each kind what tells its texts from those of the others and of none, over the same terms.

        It is kept on this machine, for fitting takes most of a minute.
        """
        numbers = [_FORMAT, _LONGEST, sorted(_COMMON), _C, _ALPHA, _BAYES]
        key = digest(
            [numbers, lexicon.groups, lexicon.spelling, {name: [*each] for name, each in kinds.items()}, keeps]
        )
        directory = kept_directory("likeness", key, lambda to: _fit(kinds, keeps, lexicon, to))
        terms, found = read_json(directory / _TERMS), load_file(directory / _WEIGHTS)
        vectors = _vectors(vocabulary={term: place for place, term in enumerate(terms)})
        vectors.idf_ = found["idf"]
        each = zip(kinds, found["weights"], found["offsets"].tolist(), strict=True)
        return {kind: cls(vectors, weights_F, offset, lexicon) for kind, weights_F, offset in each}

    def margins(self, texts: Sequence[str]) -> Floats:
        """One number a text; 0 is undecided, above it speaks for it."""
        margins_N: Floats = self.vectors.transform(map(self.lexicon.normal, texts)) @ self.weights_F
        return np.asarray(margins_N + self.offset)

    def margin(self, text: str) -> float:
        return float(self.margins([text])[0])

    def loudest(self, text: str) -> list[str]:
        """The words of a text that speak loudest for it, none of which lie within others; [] where none does."""
        row = self.vectors.transform([self.lexicon.normal(text)])
        found: list[str] = []

        def told(term: str) -> bool:
            return any(_within(term, each) or _within(each, term) for each in found)

        for against, place in sorted(zip(-row.data * self.weights_F[row.indices], row.indices, strict=True)):
            term = self._terms[place]
            if against < 0 and len(found) < _LOUDEST and not told(term):
                found.append(term)
        return found

    @cached_property
    def _terms(self) -> list[str]:
        return list(self.vectors.vocabulary)


def is_short(text: str) -> bool:
    """Whether a message has to be more like others than longer ones: of its few words each weighs a great deal."""
    return len({*text.casefold().split()}) <= _SHORT


def _within(words: str, others: str) -> bool:
    return f" {words} " in f" {others} "


def _fit(kinds: Mapping[K, Sequence[str]], keeps: Sequence[str], lexicon: Lexicon, to: Path) -> None:
    """Write the terms of all texts, and by kind with which weights they speak for it."""
    told = [(kind, lexicon.normal(text)) for kind, listed in kinds.items() for text in listed]
    truth = [*(kind for kind, _ in told), *[None] * len(keeps)]
    vectors = _vectors()
    found = vectors.fit_transform([*(text for _, text in told), *map(lexicon.normal, keeps)])
    weighed = [_weights(found, [each == kind for each in truth]) for kind in kinds]
    numbers = {"idf": vectors.idf_, "weights": np.stack([weights_F for weights_F, _ in weighed])}
    write_json(to / _TERMS, vectors.get_feature_names_out().tolist())
    write_atomic(to / _WEIGHTS, save({**numbers, "offsets": np.array([offset for _, offset in weighed])}))


def _weights(found: Floats, truth: Sequence[bool]) -> tuple[Floats, float]:
    # The dual solver takes a fiftieth of the default's time, and no threads; its draws are seeded.
    solver = {"solver": "liblinear", "dual": True, "random_state": 0, "max_iter": 1000}
    regression = LogisticRegression(C=_C, class_weight="balanced", **solver).fit(found, truth)
    bayes = MultinomialNB(alpha=_ALPHA, fit_prior=False).fit(found, truth)
    ratios_F = bayes.feature_log_prob_[1] - bayes.feature_log_prob_[0]
    return regression.coef_[0] + _BAYES * ratios_F, float(regression.intercept_[0])


def _vectors(**more: Any) -> TfidfVectorizer:
    return TfidfVectorizer(analyzer=_analysed, sublinear_tf=True, **more)


def _analysed(normal: str) -> Iterator[str]:
    """Up to three words in a row; of the commonest ones alone three."""
    words = _WORD.findall(normal)
    for length in range(1, _LONGEST + 1):
        for begin in range(len(words) - length + 1):
            row = words[begin : begin + length]
            if length == _LONGEST or not _COMMON.issuperset(row):
                yield " ".join(row)


def lines(path: Path) -> list[str]:
    """A text a line, without empty lines and those that begin with #."""
    found = path.read_text(encoding="utf-8").splitlines()
    return [text.strip() for text in found if text.strip() and not text.startswith("#")]
