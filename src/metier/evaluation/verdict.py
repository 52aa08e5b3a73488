"""What the paired tests allow to be said, in sentences; the words better and worse come from nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metier.evaluation.answers import GENERAL
from metier.evaluation.metrics import DomainDifferences, DomainScores, decisive
from metier.figures import decimal, habit, with_unit
from metier.scores import Difference

NEGLIGIBLE = 0.01  # nats a token: a hundredth of the perplexity


def sentence(
    against: Mapping[str, Sequence[DomainDifferences]],
    forgetting: Difference | None,
    scores: Sequence[DomainScores],
    by_model: Sequence[str] = (),
) -> str:
    """The verdict on a run: against each opponent, by its name, domain by domain, then what was forgotten.

    `scores` are the run's own; `by_model` are the domains whose answers a model gave.
    """
    parts = [_against(opponent, records, scores) for opponent, records in against.items()]
    if forgetting:
        parts.append(_forgot(forgetting))
    if not parts:
        parts.append(f"measured on {', '.join(each.domain for each in scores)}")
    if by_model:
        parts.append(of_labels(by_model))
    return "; ".join(parts)[:1].upper() + "; ".join(parts)[1:] + "."


def of_labels(domains: Sequence[str]) -> str:
    """What answers that a model gave do not show."""
    return f"the answers of {', '.join(domains)} came from a model: agreement with them is not correctness"


def _against(opponent: str, records: Sequence[DomainDifferences], scores: Sequence[DomainScores]) -> str:
    found: dict[str, dict[str, list[str]]] = {"better": {}, "worse": {}, "no difference shown": {}}
    for record in records:
        if record.kind not in GENERAL and (difference := decisive(record)):
            how = habit(difference.metric).label + _otherwise(record, difference) + _liked_likelier(record, scores)
            found[difference.verdict].setdefault(how, []).append(record.domain)
    said = [f"{verdict} on {_named(by_metric)}" for verdict, by_metric in found.items() if by_metric]
    return f"against {opponent}: {', '.join(said)}" if said else f"{opponent} was not compared"


def _named(by_metric: Mapping[str, Sequence[str]]) -> str:
    return " and ".join(f"{', '.join(domains)} ({metric})" for metric, domains in by_metric.items())


def _otherwise(record: DomainDifferences, deciding: Difference) -> str:
    """The metrics by which it is the other way round."""
    opposite = {"better": "worse", "worse": "better"}.get(deciding.verdict)
    found = [habit(each.metric).label for each in record.differences if each.verdict == opposite]
    return f"; {opposite} by {', '.join(found)}" if found else ""


def _liked_likelier(record: DomainDifferences, scores: Sequence[DomainScores]) -> str:
    """Beside a margin, which may rise and change no choice: how often the liked answer is the likelier one."""
    if (deciding := decisive(record)) is None or deciding.metric != "margin":
        return ""
    own = next(each.scores for each in scores if each.domain == record.domain)
    value = next(each.value for each in own if each.metric == "accuracy")
    gained = next(each.value for each in record.differences if each.metric == "accuracy")
    now, before = (with_unit("accuracy", each) for each in (value, value - gained))
    return f"; the liked answer is the likelier one in {now}, before {before}"


def of_forgetting(forgetting: Difference) -> str:
    """The tests' verdict on what was forgotten; a change that is surely too small to matter is called negligible."""
    within = forgetting.low > -NEGLIGIBLE and forgetting.high < NEGLIGIBLE
    return "negligible" if within else forgetting.verdict


def _forgot(forgetting: Difference) -> str:
    value, low, high = (decimal(each, 3, signed=True) for each in (forgetting.value, forgetting.low, forgetting.high))
    size = f"{value} nats a token on general text [{low}, {high}]"
    return {
        "worse": f"it forgot: {size}",
        "better": f"it forgot nothing: {size}",
        "negligible": f"it forgot next to nothing: {size}",
        "no difference shown": f"no forgetting shown: {size}" + (f", {why}" if (why := forgetting.unshown) else ""),
    }[of_forgetting(forgetting)]
