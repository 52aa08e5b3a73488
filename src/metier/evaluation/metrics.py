"""Scores from answers: of one run, and of two runs on the same items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from metier.evaluation.answers import GENERAL, Answer, Kind
from metier.evaluation.measures import Metric, Value, has_failed, metrics_of, output_of
from metier.evaluation.own import Own
from metier.resampling import Statistic
from metier.scores import Difference, Score, holm, interval, mcnemar, paired, proportion

CLOSED = ("label", "choice", "preference")
"""Kinds whose answer is one of several given replies."""


@dataclass(frozen=True)
class Confusion:
    """`matrix[truth][predicted]` counts items; those that failed or could not be parsed are in no cell."""

    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class DomainScores:
    """One run on one domain: `n` items, of which `failed` have no answer and `unparsed` one that is no reply.

    Both count as wrong, never as a class.
    """

    domain: str
    kind: Kind
    n: int
    failed: int
    unparsed: int
    scores: tuple[Score, ...]
    confusion: Confusion | None


@dataclass(frozen=True)
class DomainDifferences:
    """Two runs on the same `n` items of one domain: ours minus theirs, by metric."""

    domain: str
    kind: Kind
    n: int
    differences: tuple[Difference, ...]


def domain_scores(answers: Sequence[Answer], own: Own | None = None) -> list[DomainScores]:
    """Every metric of every domain, domains in their order of appearance; a metric without values is absent.

    Accuracy, F1 and stop rate are in 0 … 1, chrF and ROUGE-L in 0 … 100, loss and KL in nats per token,
    length in words. A failed item scores 0; it is left out of loss and KL, which it does not have, and of
    stop rate and length, which speak of the answers given; metrics of one's `own` see it as an empty one.
    Raises ValueError for an id that occurs twice
    in a domain, and for a label item whose reference is no label or whose labels are not its domain's.
    """
    return [_scores(domain, kind, items, own or {}) for (domain, kind), items in _by_domain(answers).items()]


def primary_values(answers: Sequence[Answer]) -> dict[tuple[str, str], float]:
    """The primary metric of each domain without its interval, by (domain, metric): what choices are made on."""
    values = {}
    for (domain, _), items in _by_domain(answers).items():
        metric = _primary([items])
        found = [value for answer in items if (value := metric.value(answer)) is not None]
        columns = zip(*found, strict=True)
        # Where no item could be read, every step is as good as the next.
        values[domain, metric.name] = float(metric.statistic(*columns)(np.ones((1, len(found))))[0]) if found else 0.0
    return values


def out_of_one(metric: str, value: float) -> float:
    """A primary metric's value where 1 is perfect, so that domains count alike.

    Of a loss that is a token's probability, of a margin the probability of the liked answer beside the other by
    Bradley and Terry, whose scale a hundred nats make: long answers differ by many.
    """
    match metric:
        case "loss":
            return math.exp(-value)
        case "margin":
            return (1 + math.tanh(value / 200)) / 2
        case "chrf" | "rouge_l":
            return value / 100
    return value


def compare(ours: Sequence[Answer], theirs: Sequence[Answer], own: Own | None = None) -> list[DomainDifferences]:
    """Ours minus theirs on the same items; a metric is compared over the items that have it in both.

    Holm adjusts over the domains: the metrics that decide are one family, each other metric is its own.
    Metrics in which no direction is better (length, the base's loss) are not compared. A domain that they did not
    answer is left out. Raises ValueError unless both runs answered the same items: domain, id, kind, group,
    labels, reference, task and tests.
    """
    mine, other = _by_domain(ours), _by_domain(theirs)
    if strange := other.keys() - mine.keys():
        raise ValueError(f"only they have {sorted(strange)}")
    return _adjusted([_differences(*key, _pairs(mine[key], items), own or {}) for key, items in other.items()])


@dataclass(frozen=True)
class Aligned:
    """One domain's primary metric, by run, over the items for which all runs that have it at all have it."""

    domain: str
    metric: str
    groups: tuple[str, ...]
    statistics: Mapping[str, Statistic]


def align(runs: Mapping[str, Sequence[Answer]]) -> list[Aligned]:
    """Every domain that is asked in, with the runs that have its primary metric: the first that some run has.

    Raises ValueError unless those that were asked in a domain answered the same items.
    """
    by_domain = {name: _by_domain(answers) for name, answers in runs.items()}
    keys = dict.fromkeys(key for domains in by_domain.values() for key in domains if key[1] not in GENERAL)
    return [
        _aligned(key[0], {name: domains[key] for name, domains in by_domain.items() if key in domains}) for key in keys
    ]


def _aligned(domain: str, runs: Mapping[str, Sequence[Answer]]) -> Aligned:
    metric, items = _primary([*runs.values()]), next(iter(runs.values()))
    columns = {name: [metric.value(theirs) for _, theirs in _pairs(items, answers)] for name, answers in runs.items()}
    having = {name: values for name, values in columns.items() if any(each is not None for each in values)}
    kept = [index for index in range(len(items)) if all(values[index] is not None for values in having.values())]
    statistics = {
        name: metric.statistic(*zip(*(values[index] or () for index in kept), strict=True))
        for name, values in having.items()
        if kept
    }
    return Aligned(domain, metric.name, tuple(items[index].group for index in kept), statistics)


def _primary(runs: Sequence[Sequence[Answer]]) -> Metric:
    """The first metric of a domain that any of the runs has: of code that nobody ran it is the next one."""
    metrics = metrics_of(runs[0])
    found = (each for each in metrics if any(each.value(answer) is not None for items in runs for answer in items))
    return next(found, metrics[0])


def decisive(record: DomainDifferences) -> Difference | None:
    """The difference on which a verdict about the domain rests: in its kind's primary metric.

    Where one side has no such metric, as the classical baseline has no margin, the kind's first that was compared.
    None where nothing could be.
    """
    return next(iter(record.differences), None)  # the primary one stands first


def to_dict(record: DomainScores | DomainDifferences | Difference) -> dict[str, Any]:
    """A record as plain JSON values, each difference with its verdict."""
    plain = asdict(record)
    if isinstance(record, Difference):
        plain["verdict"] = record.verdict
    if isinstance(record, DomainDifferences):
        plain["differences"] = [to_dict(difference) for difference in record.differences]
    return plain


def _scores(domain: str, kind: Kind, items: Sequence[Answer], own: Own) -> DomainScores:
    failed = sum(has_failed(answer) for answer in items)
    parsed = sum(output_of(answer) in answer.labels for answer in items)
    scores = (_score(metric, items) for metric in metrics_of(items, own))
    return DomainScores(
        domain=domain,
        kind=kind,
        n=len(items),
        failed=failed,
        unparsed=len(items) - failed - parsed if kind in CLOSED else 0,
        scores=tuple(score for score in scores if score),
        confusion=_confusion(items) if kind == "label" else None,
    )


def _score(metric: Metric, items: Sequence[Answer]) -> Score | None:
    rows = [(answer.group, value) for answer in items if (value := metric.value(answer)) is not None]
    if not rows:
        return None
    groups, values = zip(*rows, strict=True)
    columns = tuple(zip(*values, strict=True))
    if metric.rate:
        return proportion(metric.name, columns[0], groups)
    return interval(metric.name, metric.statistic(*columns), groups, metric.higher_is_better)


def _confusion(items: Sequence[Answer]) -> Confusion:
    labels = items[0].labels
    cells = Counter((answer.reference, output_of(answer)) for answer in items)
    matrix = tuple(tuple(cells[truth, predicted] for predicted in labels) for truth in labels)
    return Confusion(labels, matrix)


def _differences(domain: str, kind: Kind, pairs: Sequence[tuple[Answer, Answer]], own: Own) -> DomainDifferences:
    differences = []
    for metric in metrics_of([mine for mine, _ in pairs], own):
        values = ((mine.group, metric.value(mine), metric.value(other)) for mine, other in pairs)
        rows = [(group, a, b) for group, a, b in values if a is not None and b is not None]
        if rows and metric.higher_is_better is not None:
            differences.append(_paired(metric, rows))
    return DomainDifferences(domain, kind, len(pairs), tuple(differences))


def _paired(metric: Metric, rows: Sequence[tuple[str, Value, Value]]) -> Difference:
    """The difference over rows of (group, our value, their value)."""
    groups = [group for group, _, _ in rows]
    ours = tuple(zip(*(value for _, value, _ in rows), strict=True))
    theirs = tuple(zip(*(value for _, _, value in rows), strict=True))
    if metric.rate:
        return mcnemar(metric.name, ours[0], theirs[0], groups)
    better = bool(metric.higher_is_better)
    return paired(metric.name, metric.statistic(*ours), metric.statistic(*theirs), groups, better)


def _pairs(ours: Sequence[Answer], theirs: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    domain = ours[0].domain
    others = {answer.id: answer for answer in theirs}
    if strange := others.keys() ^ {answer.id for answer in ours}:
        raise ValueError(f"{domain}: {len(strange)} items are in one run only, {min(strange)} among them")
    pairs = [(answer, others[answer.id]) for answer in ours]
    for mine, other in pairs:
        if _asked(mine) != _asked(other):
            raise ValueError(
                f"{domain}: item {mine.id} differs between the runs in group, reference, labels, task or tests"
            )
    return pairs


def _asked(answer: Answer) -> tuple[object, ...]:
    return answer.group, answer.reference, answer.labels, answer.liked, answer.task, answer.tests


def _adjusted(records: Sequence[DomainDifferences]) -> list[DomainDifferences]:
    families: dict[str, list[tuple[int, Difference]]] = {}
    for index, record in enumerate(records):
        for difference in record.differences:
            family = "decisive" if difference is decisive(record) else difference.metric
            families.setdefault(family, []).append((index, difference))
    adjusted: dict[tuple[int, str], Difference] = {}
    for members in families.values():
        for (index, _), difference in zip(members, holm([member for _, member in members]), strict=True):
            adjusted[index, difference.metric] = difference
    return [
        replace(record, differences=tuple(adjusted[index, before.metric] for before in record.differences))
        for index, record in enumerate(records)
    ]


def _by_domain(answers: Sequence[Answer]) -> dict[tuple[str, Kind], list[Answer]]:
    """Answers by domain and kind, in order of appearance; checked as `domain_scores` says."""
    domains: dict[tuple[str, Kind], dict[str, Answer]] = {}
    for answer in answers:
        items = domains.setdefault((answer.domain, answer.kind), {})
        if answer.id in items:
            raise ValueError(f"{answer.domain}: item {answer.id} is answered twice")
        items[answer.id] = answer
        if answer.task != next(iter(items.values())).task:
            raise ValueError(f"{answer.domain}: item {answer.id} is for another task than those before it")
        if answer.kind == "label" and answer.labels != next(iter(items.values())).labels:
            raise ValueError(f"{answer.domain}: item {answer.id} has other labels than those before it")
        if answer.kind == "label" and answer.reference not in answer.labels:
            raise ValueError(f"{answer.domain}: item {answer.id}: {answer.reference!r} is none of the labels")
    return {key: list(items.values()) for key, items in domains.items()}
