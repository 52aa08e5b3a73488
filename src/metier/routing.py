"""Which domain a question belongs to: TF-IDF with logistic regression, and nobody where it is not sure.

Shapes: N texts, D domains, F features.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
from safetensors.numpy import load_file, save
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion

from metier.classical import Floats, from_terms, terms, vectorizer
from metier.errors import ModelError
from metier.files import read_json, verify, write_atomic, write_directory, write_json

_FORMAT = 1
_C = 10.0  # inverse strength of the penalty; TF-IDF vectors have length 1, and with less the shares are too even
_NEVER = 2.0  # no share is as large
_COST = 4.0  # of a wrong route, in right ones: texts are routed of whose like four in five go right
_WEIGHTS, _TERMS = "router.safetensors", "router.json"

Route = tuple[str | None, float]
"""The domain that is asked, None where the router abstains, and the share of the likeliest one."""


@dataclass(frozen=True)
class Router:
    """A classifier of texts by domain that abstains below `threshold`, a share of 1."""

    domains: tuple[str, ...]
    vectors: FeatureUnion
    weights_DF: Floats
    offsets_D: Floats
    threshold: float = 0.0

    @classmethod
    def fit(cls, texts: Mapping[str, Sequence[str]]) -> Self:
        """Learn from what users of each domain typed; every domain counts alike however many texts it has.

        The same texts give the same router. Raises `ModelError` where there is nothing to choose between.
        """
        if faulty := _unfit(texts):
            raise ModelError(f"router: {faulty}", "a router chooses between two domains or more, each with questions")
        said = [text for each in texts.values() for text in each]
        places = [place for place, each in enumerate(texts.values()) for _ in each]
        vectors = vectorizer(said)
        found = LogisticRegression(C=_C, class_weight="balanced", max_iter=1000)
        found.fit(vectors.fit_transform(said), places)
        weights, offsets = found.coef_, found.intercept_
        if len(texts) == 2:  # of two classes scikit-learn keeps the second alone
            weights, offsets = np.vstack([0 * weights, weights]), np.concatenate([0 * offsets, offsets])
        return cls(tuple(texts), vectors, weights, offsets)

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """The share of each domain (N, D); rows sum to 1."""
        if not texts:
            return np.zeros((0, len(self.domains)))
        scores_ND = self.vectors.transform(texts) @ self.weights_DF.T + self.offsets_D
        raised_ND = np.exp(scores_ND - scores_ND.max(axis=1, keepdims=True))
        shares_ND: Floats = raised_ND / raised_ND.sum(axis=1, keepdims=True)
        return shares_ND

    def cautious(self, texts: Mapping[str, Sequence[str]], cost: float = _COST) -> Self:
        """With the threshold at which validation texts are routed best: as many as possible go right, each that
        goes wrong weighing `cost` of them, those left alone weighing nothing (Chow 1970, on counts instead of
        probabilities that would have to be calibrated).

        It is the lowest such share among those seen, for nothing is known of less certain texts; where no share
        is better than leaving all alone, it is above 1.
        """
        shares_ND = np.concatenate([self.probabilities(each) for each in texts.values()])
        truth_N = np.repeat([self.domains.index(name) for name in texts], [len(each) for each in texts.values()])
        best_N = shares_ND.max(axis=1)
        order_N = np.argsort(-best_N, kind="stable")
        gains_N = np.where(shares_ND.argmax(axis=1) == truth_N, 1.0, -cost)[order_N].cumsum()
        # Texts of one share are routed together or not at all.
        ends = np.append(np.flatnonzero(np.diff(best_N[order_N])), len(order_N) - 1)
        last = max((place for place in ends.tolist() if place >= 0), key=lambda place: (gains_N[place], place))
        return replace(self, threshold=float(best_N[order_N][last]) if gains_N[last] > 0 else _NEVER)

    def route(self, texts: Sequence[str]) -> list[Route]:
        """The likeliest domain of each text, or None where its share is below the threshold."""
        shares_ND = self.probabilities(texts)
        found = zip(shares_ND.argmax(axis=1).tolist(), shares_ND.max(axis=1, initial=0).tolist(), strict=True)
        return [(self.domains[place] if share >= self.threshold else None, share) for place, share in found]

    def save(self, directory: Path) -> None:
        """Write it as JSON and safetensors, nothing of which is run when it is loaded."""
        known = terms(self.vectors)
        numbers = {f"idf.{kind}": weights for kind, (_, weights) in known.items()}
        numbers |= {"weights": np.ascontiguousarray(self.weights_DF), "offsets": self.offsets_D}
        facts = {"format": _FORMAT, "domains": self.domains, "threshold": self.threshold}

        def fill(to: Path) -> None:
            write_json(to / _TERMS, {**facts, "terms": {kind: names for kind, (names, _) in known.items()}})
            write_atomic(to / _WEIGHTS, save(numbers))

        write_directory(directory, fill)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """The router that was saved, with the same shares. Raises `ModelError` where it is not that any more."""
        if not verify(directory):
            raise ModelError(f"{directory}: is no router, or has changed since it was saved", "restore it from a copy")
        facts, numbers = read_json(directory / _TERMS), load_file(directory / _WEIGHTS)
        if facts["format"] != _FORMAT:
            raise ModelError(f"{directory}: has format {facts['format']}, this metier reads {_FORMAT}; upgrade metier")
        vectors = from_terms({kind: (names, numbers[f"idf.{kind}"]) for kind, names in facts["terms"].items()})
        return cls(tuple(facts["domains"]), vectors, numbers["weights"], numbers["offsets"], facts["threshold"])


def _unfit(texts: Mapping[str, Sequence[str]]) -> str:
    """Why no router can be made, or ""."""
    if len(texts) < 2:
        return f"there is only the domain {next(iter(texts))}" if texts else "there is no domain"
    empty = next((name for name, each in texts.items() if not each), None)
    return "" if empty is None else f"domain {empty} has no questions"


@dataclass(frozen=True)
class Confusion:
    """Where texts were sent. `counts` (D, D + 1): a row a true domain, a column a domain sent to, then nowhere."""

    domains: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    right: int
    wrong: int
    abstained: int

    @property
    def total(self) -> int:
        return self.right + self.wrong + self.abstained

    @property
    def accuracy(self) -> float:
        """Of all texts, those sent where they belong; NaN where there are none."""
        return self.right / self.total if self.total else math.nan

    @property
    def coverage(self) -> float:
        """Of all texts, those sent anywhere; NaN where there are none."""
        return 1 - self.abstained / self.total if self.total else math.nan

    @property
    def selective_accuracy(self) -> float:
        """Of the texts sent anywhere, those sent where they belong; NaN where none was."""
        sent = self.right + self.wrong
        return self.right / sent if sent else math.nan


def confusion(routes: Sequence[Route], allowed: Sequence[Collection[str]], domains: Sequence[str]) -> Confusion:
    """Routes beside the domains that may rightly answer each text, the first of which is its own.

    A text that goes to any of them is counted as that one's; else it is in the row of its own.
    """
    names = tuple(domains)
    counts = np.zeros((len(names), len(names) + 1), dtype=int)
    right = abstained = 0
    for (sent, _), rightly in zip(routes, allowed, strict=True):
        right, abstained = right + (sent in rightly), abstained + (sent is None)
        row = sent if sent is not None and sent in rightly else next(iter(rightly))
        counts[names.index(row), len(names) if sent is None else names.index(sent)] += 1
    return Confusion(names, tuple(map(tuple, counts.tolist())), right, len(routes) - right - abstained, abstained)
