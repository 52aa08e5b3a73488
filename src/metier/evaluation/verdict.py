"""What the paired tests allow to be said, in sentences; the words better and worse come from nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from metier.evaluation.metrics import PRIMARY, DomainDifferences
from metier.run import OPPONENTS
from metier.scores import Difference


def sentence(
    against: Mapping[str, Sequence[DomainDifferences]], forgetting: Difference | None, domains: Sequence[str]
) -> str:
    """The verdict on a run: against each opponent by domain, then what was forgotten."""
    parts = [_against(OPPONENTS[role], records) for role, records in against.items()]
    if forgetting:
        parts.append(_forgot(forgetting))
    return "; ".join(parts)[:1].upper() + "; ".join(parts)[1:] + "." if parts else f"Measured on {', '.join(domains)}."


def _against(opponent: str, records: Sequence[DomainDifferences]) -> str:
    found: dict[str, dict[str, list[str]]] = {"better": {}, "worse": {}, "no difference shown": {}}
    for record in records:
        if record.kind != "text" and (difference := primary(record)):
            found[difference.verdict].setdefault(difference.metric, []).append(record.domain)
    said = [f"{verdict} on {_named(by_metric)}" for verdict, by_metric in found.items() if by_metric]
    return f"against {opponent}: {', '.join(said)}" if said else f"{opponent} was not compared"


def _named(by_metric: Mapping[str, Sequence[str]]) -> str:
    return " and ".join(f"{', '.join(domains)} ({metric})" for metric, domains in by_metric.items())


def primary(record: DomainDifferences) -> Difference | None:
    """The difference on which a verdict about the domain rests, if some item could be compared."""
    return next((each for each in record.differences if each.metric == PRIMARY[record.kind]), None)


def _forgot(forgetting: Difference) -> str:
    size = f"{forgetting.value:+.3f} nats a token on general text [{forgetting.low:+.3f}, {forgetting.high:+.3f}]"
    return {
        "worse": f"it forgot: {size}",
        "better": f"it forgot nothing: {size}",
        "no difference shown": f"no forgetting shown: {size}",
    }[forgetting.verdict]
