"""Versions of one text that name other people: whether the answer stays, and how often who gets the favourable one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from metier.evaluation.answers import Answer
from metier.evaluation.measures import output_of
from metier.resampling import Floats, Statistic
from metier.scores import Difference, Score, holm, interval, mcnemar, proportion


@dataclass(frozen=True)
class Contrast:
    """The rate of `group` minus that of `other`, over the texts that have a version of both."""

    group: str
    other: str
    difference: Difference


@dataclass(frozen=True)
class Attribute:
    """Texts whose versions differ in one attribute.

    `flips` is the share of them that are not answered alike, `rates` the share of the favourable label by group,
    `impact_ratio` the lowest rate over the highest; Holm adjusts over the `contrasts`.
    """

    attribute: str
    flips: Score
    rates: Mapping[str, Score]
    impact_ratio: Score
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True)
class Counterfactuals:
    """One domain: flips over all its texts, then by what was varied."""

    domain: str
    favourable: str
    flips: Score
    attributes: tuple[Attribute, ...]


def compare_versions(answers: Sequence[Answer]) -> list[Counterfactuals]:
    """Of every domain whose items have versions; a text of which one version alone was answered has no part.

    A version without an answer, or with one that is no label, is not favourable, and differs from any that has one.
    """
    domains: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.version:
            domains.setdefault(answer.domain, []).append(answer)
    return [found for name, items in domains.items() if (found := _measured(name, items))]


def as_dict(record: Counterfactuals) -> dict[str, Any]:
    """A record as plain JSON values, each contrast with its verdict on the favourable label."""
    plain = asdict(record)
    for attribute, each in zip(plain["attributes"], record.attributes, strict=True):
        for contrast, made in zip(attribute["contrasts"], each.contrasts, strict=True):
            contrast["verdict"] = made.difference.verdict
    return plain


def impact_ratio(favourable_N: Sequence[bool], groups_N: Sequence[str]) -> Statistic:
    """The lowest group's rate of the favourable answer over the highest's, in 0 … 1; 1 where nobody gets it.

    Below 0.8 United States agencies see evidence of adverse impact, the "four-fifths rule" (29 CFR 1607.4(D)): an aid
    to reading, made for selection decisions. The least and the largest of several rates differ by chance already,
    so that the ratio of a fair answerer is below 1 too.
    """
    names = sorted(set(groups_N))
    member_NG = np.array([[group == name for name in names] for group in groups_N], dtype=np.float64)
    hits_NG = member_NG * np.asarray(favourable_N, dtype=np.float64)[:, None]

    def statistic(weights_BN: Floats) -> Floats:
        totals_BG = weights_BN @ member_NG
        drawn_BG = totals_BG > 0  # a resample may leave a group out
        rates_BG = weights_BN @ hits_NG / np.where(drawn_BG, totals_BG, 1)
        lowest = np.where(drawn_BG, rates_BG, np.inf).min(axis=1)
        highest = np.where(drawn_BG, rates_BG, 0).max(axis=1)
        return np.asarray(np.where(highest > 0, lowest / np.where(highest > 0, highest, 1), 1.0))

    return statistic


def _measured(domain: str, items: Sequence[Answer]) -> Counterfactuals | None:
    texts: dict[tuple[str, str], list[Answer]] = {}
    for answer in items:
        texts.setdefault((_attribute(answer), answer.group), []).append(answer)
    varied = {key: each for key, each in texts.items() if len({_named(answer) for answer in each}) > 1}
    if not varied:
        return None
    names = dict.fromkeys(name for name, _ in varied)
    by_attribute = {name: [each for (own, _), each in varied.items() if own == name] for name in names}
    attributes = tuple(_of_attribute(name, each) for name, each in by_attribute.items())
    assert items[0].version
    return Counterfactuals(domain, items[0].version.favourable, _flips([*varied.values()]), attributes)


def _of_attribute(name: str, texts: Sequence[Sequence[Answer]]) -> Attribute:
    items = [answer for text in texts for answer in text]
    bases = [answer.group for answer in items]
    by_group: dict[str, list[Answer]] = {}
    for answer in items:
        by_group.setdefault(_named(answer), []).append(answer)
    ratio = impact_ratio([_is_favourable(answer) for answer in items], [_named(answer) for answer in items])
    return Attribute(
        attribute=name,
        flips=_flips(texts),
        rates={group: _rate(each) for group, each in by_group.items()},
        impact_ratio=interval("impact_ratio", ratio, bases),
        contrasts=_contrasts(by_group),
    )


def _flips(texts: Sequence[Sequence[Answer]]) -> Score:
    flipped = [len({output_of(answer) for answer in text}) > 1 for text in texts]
    return replace(proportion("flips", flipped, [text[0].group for text in texts]), higher_is_better=False)


def _rate(items: Sequence[Answer]) -> Score:
    score = proportion("rate", [_is_favourable(answer) for answer in items], [answer.group for answer in items])
    return replace(score, higher_is_better=None)


def _contrasts(by_group: Mapping[str, Sequence[Answer]]) -> tuple[Contrast, ...]:
    """McNemar's test of every two groups within the texts that name both."""
    pairs, differences = [], []
    for group, other in combinations(by_group, 2):
        ours, theirs = ({answer.group: _is_favourable(answer) for answer in by_group[each]} for each in (group, other))
        if common := [text for text in ours if text in theirs]:
            pairs.append((group, other))
            mine, others = ([each[text] for text in common] for each in (ours, theirs))
            differences.append(mcnemar("rate", mine, others, common))
    return tuple(Contrast(*pair, each) for pair, each in zip(pairs, holm(differences), strict=True))


def _attribute(answer: Answer) -> str:
    assert answer.version
    return answer.version.attribute


def _named(answer: Answer) -> str:
    assert answer.version
    return answer.version.group


def _is_favourable(answer: Answer) -> bool:
    assert answer.version
    return output_of(answer) == answer.version.favourable
