"""Lines → the table: scores, paired tests, costs, and the recommendation with its reason. All follows from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metier.comparison.costs import Cost, Costs
from metier.comparison.experts import compare_layouts, describe, of_expert
from metier.comparison.layouts import Routing
from metier.errors import RunError
from metier.evaluation.answers import Answer
from metier.evaluation.forgotten import forgetting
from metier.evaluation.lines import Line, Runs
from metier.evaluation.metrics import CLOSED, to_dict
from metier.evaluation.standings import NOT_WORSE, Contrast, Field, Standing, adjust
from metier.evaluation.verdict import of_forgetting, of_labels
from metier.figures import decimal
from metier.grid import Comparison
from metier.scores import Difference, Score

FORMAT = 1


@dataclass(frozen=True)
class _Row:
    line: Line
    keys: Sequence[str]
    answers: Sequence[Sequence[Answer]]
    standing: Standing
    cost: Cost
    guarded: bool  # no guard of its runs says no

    @property
    def value(self) -> float:
        return self.standing.overall.value if self.standing.overall else -1.0


def tabulate(comparison: Comparison, lines: Sequence[Line], routings: Sequence[Routing], runs: Runs) -> dict[str, Any]:
    """Everything in comparison.json that is computed. Raises ValueError where lines answered different items."""
    known = [line for line in lines if not line.failed]
    _assert_same_items(known, runs)
    field = Field.of({key: answers for line in known for key, answers in _drawn(line, runs).items()})
    shown = _largest(known)
    rows = [_row(line, runs, field) for line in shown]
    ranked = sorted((row for row in rows if row.standing.overall), key=lambda row: -row.value)
    best = ranked[0] if ranked else None
    against_base = adjust(_against_base(rows, field, comparison.margin))
    against_best = adjust(_against(best, rows, field, comparison.margin)) if best else {}
    chosen = _recommended(comparison, best, ranked, against_best)
    return {
        "domains": list(field.domains),
        "metrics": {name: each.metric for name, each in field.aligned.items()},
        "margin": comparison.margin,
        "lines": [_line(row, against_base, against_best, runs) | {"same_as": _same_as(row, rows)} for row in rows],
        "failed": {line.name: line.failed for line in lines if line.failed},
        "best": best.line.name if best else None,
        "recommended": chosen.line.name if chosen else None,
        "cost_rests_on": _unit(comparison, ranked),
        "verdict": _verdict(comparison, best, chosen, against_base, against_best, _cheaper(comparison, best, ranked)),
        "labelled_by_a_model": _labelled(known, runs),
        "curves": _curves(known, runs, field),
        "layouts": compare_layouts(shown, {row.line.name: row.keys for row in rows}, field),
        "routers": [describe(each, field.domains) for each in routings],
    }


def _assert_same_items(lines: Sequence[Line], runs: Runs) -> None:
    """Raises `RunError` where a strategy was asked other items than the first: then nothing can be paired."""
    asked: dict[str, dict[str, tuple[object, ...]]] = {}
    first: dict[str, str] = {}
    for line in lines:
        mine: dict[str, dict[str, tuple[object, ...]]] = {}
        for each in runs.of_line(line)[0]:
            mine.setdefault(each.domain, {})[each.id] = (each.group, each.reference, each.labels, each.liked)
        for domain, items in mine.items():
            if asked.setdefault(domain, items) != items:
                problem = f"strategy {line.name!r} was asked other items of {domain} than {first[domain]!r}"
                raise RunError(problem, "an item without an id is known by its prompt: name the rows' `id` column")
            first.setdefault(domain, line.name)


def _largest(lines: Sequence[Line]) -> list[Line]:
    """Of every strategy the lines with the most rows."""
    most: dict[str, float] = {}
    for line in lines:
        most[line.name] = max(most.get(line.name, 0.0), _amount(line.rows))
    return [line for line in lines if _amount(line.rows) == most[line.name]]


def _amount(rows: int | float) -> float:
    """For ordering: a share is of everything, which no count exceeds."""
    return rows if isinstance(rows, int) else 1e18 * rows


def _keyed(line: Line, runs: Runs) -> dict[str, list[Answer]]:
    """What a line answered, by a name for each of its seeds."""
    keys = [f"{line.name} {line.rows} {source.seed}" for source in line.sources]
    return dict(zip(keys, runs.of_line(line), strict=True))


def _drawn(line: Line, runs: Runs) -> dict[str, list[Answer]]:
    """That, and what each expert by itself answered in all domains."""
    keyed = _keyed(line, runs)
    if line.kind == "oracle":
        for key, source in zip([*keyed], line.sources, strict=True):
            keyed |= {of_expert(key, expert): runs.asked(name) for expert, name in source.domains.items()}
    return keyed


def _row(line: Line, runs: Runs, field: Field) -> _Row:
    answers = _keyed(line, runs)
    named = [runs.run(name) for source in line.sources for name in source.runs]
    guarded = all(guard["passed"] for run in named for guard in run.scores()["guard"].values())
    keys = [*answers]
    return _Row(line, keys, [*answers.values()], field.stand(keys), Costs(runs).of(line), guarded)


def _against_base(rows: Sequence[_Row], field: Field, margin: float) -> dict[str, Contrast]:
    """Every row against the untuned base of its own model."""
    bases = {row.line.model: row for row in rows if row.line.arm == _base_arm(rows)}
    found = {}
    for row in rows:
        base = bases.get(row.line.model)
        if base and base is not row:
            found[row.line.name] = field.contrast(row.keys, base.keys, margin)
    return found


def _base_arm(rows: Sequence[_Row]) -> str:
    """The arm that asks the untuned base bare."""
    return next((row.line.arm for row in rows if row.line.kind == "base"), "")


def _against(best: _Row, rows: Sequence[_Row], field: Field, margin: float) -> dict[str, Contrast]:
    others = (row for row in rows if row is not best)
    return {row.line.name: field.contrast(row.keys, best.keys, margin) for row in others}


def _recommended(
    comparison: Comparison, best: _Row | None, ranked: Sequence[_Row], against_best: Mapping[str, Contrast]
) -> _Row | None:
    """The cheapest whose guards hold and that is the best or shown not to fall behind it by the margin."""
    if best is None:
        return None
    good = [row for row in ranked if row.guarded and (row is best or _not_worse(against_best[row.line.name]))]
    unit = _unit(comparison, ranked)
    return min(good, key=lambda row: (_price(comparison, row.cost, unit), -row.value), default=None)


def _cheaper(comparison: Comparison, best: _Row | None, ranked: Sequence[_Row]) -> bool:
    """Whether anything costs less than the best."""
    unit = _unit(comparison, ranked)
    return best is not None and any(
        _price(comparison, row.cost, unit) < _price(comparison, best.cost, unit) for row in ranked
    )


def _not_worse(found: Contrast) -> bool:
    return found.p_inferior is not None and found.p_inferior < NOT_WORSE


def _unit(comparison: Comparison, rows: Sequence[_Row]) -> str:
    """What costs are counted in: money where there are prices, else time, else what was trained."""
    if comparison.price_per_hour is not None or any(row.cost.price is not None for row in rows):
        return "money"
    return "time" if all(row.cost.answering is not None for row in rows) else "parameters"


def _price(comparison: Comparison, cost: Cost, unit: str) -> float:
    """What tuning and `volume` answers take. Without a price of its own this machine's time counts as nothing."""
    if unit == "parameters":
        return cost.parameters
    seconds = (cost.training or 0.0) + comparison.volume / 1000 * (cost.answering or 0.0)
    if unit == "time":
        return seconds
    if cost.price is not None:
        return cost.price * comparison.volume / 1000
    return seconds / 3600 * (comparison.price_per_hour or 0.0)


def _line(
    row: _Row, against_base: Mapping[str, Contrast], against_best: Mapping[str, Contrast], runs: Runs
) -> dict[str, Any]:
    name, standing = row.line.name, row.standing
    return {
        **row.line.to_json(),
        "overall": _plain(standing.overall),
        "by_domain": {domain: _plain(score) for domain, score in standing.domains.items()},
        "seeds": list(standing.seeds),
        "spread": standing.spread,
        "against_base": _contrast(against_base.get(name)),
        "against_best": _contrast(against_best.get(name)),
        "cost": asdict(row.cost),
        "guards_hold": row.guarded,
        "forgetting": _forgetting(row.line, runs),
        "unparsed": sum(_unparsed(each) for answers in row.answers for each in answers),
        "failed_items": sum(bool(each.failed) for answers in row.answers for each in answers),
    }


def _same_as(row: _Row, rows: Sequence[_Row]) -> str:
    """An earlier line that said the same to every item, or ""."""
    said = [[each.output for each in answers] for answers in row.answers]
    earlier = rows[: next(place for place, other in enumerate(rows) if other is row)]
    alike = (other for other in earlier if [[each.output for each in answers] for answers in other.answers] == said)
    return next((other.line.name for other in alike), "")


def _labelled(lines: Sequence[Line], runs: Runs) -> str:
    """What is to be said where a model gave the answers that were wanted, or ""."""
    recipe = runs.run(lines[0].sources[0].runs[0]).recipe() if lines else None
    named = [domain.name for domain in recipe.domain if domain.labelled_by == "model"] if recipe else []
    return of_labels(named) if named else ""


def _unparsed(answer: Answer) -> bool:
    return answer.kind in CLOSED and not answer.failed and answer.output not in answer.labels


def _forgetting(line: Line, runs: Runs) -> dict[str, Any] | None:
    """Of a line that rests on one run a seed: the first seed's, as its report has it."""
    names = line.sources[0].runs
    answers = runs.answers(names[0])
    if len(names) > 1 or all(each.kind != "text" for each in answers):
        return None
    found = forgetting(answers)
    return to_dict(found) | {"verdict": of_forgetting(found)}


def _curves(lines: Sequence[Line], runs: Runs, field: Field) -> list[dict[str, Any]]:
    """Score against number of examples, of strategies that were given several."""
    alike: dict[str, list[Line]] = {}
    for line in lines:
        alike.setdefault(line.name, []).append(line)
    return [_curve(each, runs, field) for each in alike.values() if len(each) > 1]


def _curve(lines: Sequence[Line], runs: Runs, field: Field) -> dict[str, Any]:
    points = sorted(((_examples(line, runs), line) for line in lines), key=lambda point: point[0])
    keyed = [(count, [*_keyed(line, runs)]) for count, line in points]
    scores = [field.stand(keys).overall for _, keys in keyed]
    slope = field.per_doubling(keyed[-3:])
    return {
        "name": lines[0].name,
        "points": [
            {"examples": count, **asdict(score)} for (count, _), score in zip(points, scores, strict=True) if score
        ],
        "per_doubling": _plain(slope),
    }


def _examples(line: Line, runs: Runs) -> float:
    """Rows a domain that it learned and chose from, the mean over the domains."""
    data = runs.run(line.sources[0].runs[0]).facts["data"].values()
    return float(sum(each["train"] + each["validation"] for each in data) / len(data))


def _contrast(found: Contrast | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "overall": to_dict(found.overall) if found.overall else None,
        "by_domain": {domain: to_dict(each) for domain, each in found.domains.items()},
        "p_inferior": found.p_inferior,
    }


def _plain(score: Score | None) -> Any:
    return asdict(score) if score else None


def _verdict(
    comparison: Comparison,
    best: _Row | None,
    chosen: _Row | None,
    against_base: Mapping[str, Contrast],
    against_best: Mapping[str, Contrast],
    cheaper: bool,
) -> str:
    """One sentence: the best, what to take, and why."""
    if best is None or best.standing.overall is None:
        return "Nothing can be ranked: no strategy has every domain's primary metric."
    score = best.standing.overall
    said = f"Best is {best.line.name} with {_of_100(score.value)} of 100 [{_of_100(score.low)}, {_of_100(score.high)}]"
    base = against_base.get(best.line.name)
    if base and base.overall:
        said += f", {_said(base.overall)} than the untuned base" if base.overall.verdict != _NONE else _UNSHOWN
    margin = _of_100(comparison.margin)
    if chosen is None:
        return f"{said}; a guard says no to it and to every strategy as good as it."
    if chosen is best:
        why = f"nothing cheaper is shown to stay within {margin} points of it" if cheaper else "it is the cheapest, too"
        return f"{said}; take it: {why}."
    gap = against_best[chosen.line.name].overall
    assert gap
    behind = f"{_of_100(gap.value, signed=True)} [{_of_100(gap.low, signed=True)}, {_of_100(gap.high, signed=True)}]"
    return f"{said}; take {chosen.line.name}: the cheapest that stays within {margin} points of it ({behind})."


_NONE = "no difference shown"
_UNSHOWN = ", of which no difference to the untuned base is shown"


def _said(difference: Difference) -> str:
    ends = f"{_of_100(difference.low, signed=True)}, {_of_100(difference.high, signed=True)}"
    return f"{difference.verdict} by {_of_100(abs(difference.value))} [{ends}]"


def _of_100(value: float, *, signed: bool = False) -> str:
    return decimal(100 * value, 1, signed=signed)
