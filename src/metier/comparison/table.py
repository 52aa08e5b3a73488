"""Lines → the table: scores, paired tests, costs, and what to take. All of it follows from runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from metier.comparison.advice import Candidate, advise, answer_of, price_of_1000
from metier.comparison.costs import Cost, Costs
from metier.comparison.experts import compare_layouts, describe, of_expert
from metier.comparison.layouts import Routing
from metier.evaluation.answers import Answer
from metier.evaluation.forgotten import changed_choices, forgetting, losses
from metier.evaluation.lines import Line, Runs
from metier.evaluation.metrics import CLOSED, to_dict
from metier.evaluation.standings import Contrast, Field, Standing, adjust
from metier.evaluation.verdict import of_labels
from metier.grid import Comparison
from metier.scores import Difference, Score

FORMAT = 2
_OF_EXPERTS = ("oracle", "router", "base-router", "merge")


@dataclass(frozen=True)
class _Row:
    """`lost` is what its runs forgot, with the guards on it."""

    line: Line
    keys: Sequence[str]
    answers: Sequence[Sequence[Answer]]
    standing: Standing
    cost: Cost
    lost: Sequence[Mapping[str, Any]]

    @property
    def candidate(self) -> Candidate:
        guarded = all(guard["passed"] for each in self.lost for guard in each["guard"].values())
        return Candidate(self.line.name, self.standing, self.cost, guarded)


def tabulate(comparison: Comparison, lines: Sequence[Line], routings: Sequence[Routing], runs: Runs) -> dict[str, Any]:
    """Everything in comparison.json that is computed."""
    lines = _paired(lines, runs)
    known = [line for line in lines if not line.failed]
    field = Field.of({key: answers for line in known for key, answers in _drawn(line, runs).items()})
    rows = [_row(line, runs, field) for line in _largest(known, runs)]
    ranked = sorted((row for row in rows if row.standing.overall), key=lambda row: -row.candidate.value)
    against_base = adjust(_against_base(rows, field, comparison.margin))
    against_best = adjust(_against(ranked[0], rows, field, comparison.margin)) if ranked else {}
    advice = advise(comparison, [row.candidate for row in ranked], against_base, against_best)
    question = _tuned_or_asked(ranked, field, runs)
    return {
        "domains": list(field.domains),
        "metrics": {name: each.metric for name, each in field.aligned.items()},
        "margin": comparison.margin,
        "lines": [
            _line(comparison, row, against_base, against_best) | {"same_as": _same_as(row, rows)} for row in rows
        ],
        "failed": {line.name: line.failed for line in lines if line.failed},
        "best": advice.best,
        "recommended": advice.recommended,
        "cost_rests_on": advice.rests_on,
        "verdict": advice.verdict + (f" {answer_of(question)}" if question else ""),
        "tuned_or_asked": _told(question) if question else None,
        "warnings": list(_warnings(known, runs)),
        "curves": _curves(known, runs, field),
        "layouts": compare_layouts([row.line for row in rows], {row.line.name: row.keys for row in rows}, field),
        "routers": [describe(each, field.domains) for each in routings],
    }


def _paired(lines: Sequence[Line], runs: Runs) -> list[Line]:
    """The lines; one that was asked other items than those before it has failed, for nothing pairs it with them."""
    asked: dict[str, dict[str, tuple[object, ...]]] = {}
    first: dict[str, str] = {}
    kept = []
    for line in lines:
        mine: dict[str, dict[str, tuple[object, ...]]] = {}
        for each in runs.of_line(line)[0] if not line.failed else ():
            mine.setdefault(each.domain, {})[each.id] = (each.group, each.reference, each.labels, each.liked)
        strange = [name for name, items in mine.items() if asked.setdefault(name, items) != items]
        for name in mine:
            first.setdefault(name, line.name)
        why = "; ".join(f"was asked other items of {name} than {first[name]}" for name in strange)
        kept.append(replace(line, failed=why) if why else line)
    return kept


def _largest(lines: Sequence[Line], runs: Runs) -> list[Line]:
    """Of every strategy the line that learned from the most examples."""
    most: dict[str, Line] = {}
    for line in lines:
        other = most.get(line.name)
        if other is None or _examples(line, runs) > _examples(other, runs):
            most[line.name] = line
    return list(most.values())


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
    named = dict.fromkeys(name for source in line.sources for name in source.runs)
    lost = [_lost(runs.answers(name), line.guard) for name in named]
    return _Row(line, [*answers], [*answers.values()], field.stand([*answers]), Costs(runs).of(line), lost)


def _lost(answers: Sequence[Answer], guard: Mapping[str, float]) -> Mapping[str, Any]:
    text = forgetting(answers) if any(each.kind == "text" for each in answers) else None
    return losses(text, changed_choices(answers), guard)


def _against_base(rows: Sequence[_Row], field: Field, margin: float) -> dict[str, Contrast]:
    """Every row against the untuned base of its own model."""
    bases = {row.line.model: row for row in rows if row.line.kind == "base"}
    pairs = [(row, bases[row.line.model]) for row in rows if row.line.model in bases]
    return {row.line.name: field.contrast(row.keys, base.keys, margin) for row, base in pairs if base is not row}


def _against(best: _Row, rows: Sequence[_Row], field: Field, margin: float) -> dict[str, Contrast]:
    others = (row for row in rows if row is not best)
    return {row.line.name: field.contrast(row.keys, best.keys, margin) for row in others}


def _tuned_or_asked(ranked: Sequence[_Row], field: Field, runs: Runs) -> tuple[str, str, Difference] | None:
    """The best tuned line beside the best that is only asked; p times the pairs of which these are one."""
    tuned = [row for row in ranked if _tunes(row.line, runs)]
    asked = [row for row in ranked if not _tunes(row.line, runs) and runs.first(row.line).facts["method"] == "none"]
    if not tuned or not asked:
        return None
    found = field.contrast(tuned[0].keys, asked[0].keys, 1.0).overall
    assert found, "both are ranked"
    p = min(1.0, found.p * len(tuned) * len(asked))
    return tuned[0].line.name, asked[0].line.name, replace(found, p_adjusted=p)


def _tunes(line: Line, runs: Runs) -> bool:
    """Whether it rests on tuning; what stands in for a router's experts may not."""
    return line.kind in _OF_EXPERTS or bool(runs.first(line).facts.get("trained"))


def _told(question: tuple[str, str, Difference]) -> dict[str, Any]:
    tuned, asked, found = question
    return {"tuned": tuned, "asked": asked, **to_dict(found)}


def _line(
    comparison: Comparison, row: _Row, against_base: Mapping[str, Contrast], against_best: Mapping[str, Contrast]
) -> dict[str, Any]:
    name, standing, alone = row.line.name, row.standing, len(row.line.sources[0].runs) == 1
    return {
        **row.line.to_json(),
        "overall": _plain(standing.overall),
        "by_domain": {domain: _plain(score) for domain, score in standing.domains.items()},
        "seeds": list(standing.seeds),
        "spread": standing.spread,
        "against_base": _contrast(against_base.get(name)),
        "against_best": _contrast(against_best.get(name)),
        "cost": asdict(row.cost) | {"price": price_of_1000(comparison, row.cost)},
        "guards_hold": row.candidate.guarded,
        "forgetting": row.lost[0]["forgetting"] if alone else None,  # of the first seed
        "general_choices": row.lost[0]["general_choices"] if alone else None,
        "unparsed": sum(_unparsed(each) for answers in row.answers for each in answers),
        "failed_items": sum(bool(each.failed) for answers in row.answers for each in answers),
    }


def _same_as(row: _Row, rows: Sequence[_Row]) -> str:
    """An earlier line that said the same to every item, or ""."""
    said = [[each.output for each in answers] for answers in row.answers]
    earlier = rows[: next(place for place, other in enumerate(rows) if other is row)]
    alike = (other for other in earlier if [[each.output for each in answers] for answers in other.answers] == said)
    return next((other.line.name for other in alike), "")


def _unparsed(answer: Answer) -> bool:
    return answer.kind in CLOSED and not answer.failed and answer.output not in answer.labels


def _warnings(lines: Sequence[Line], runs: Runs) -> Iterator[str]:
    """What everybody should know who reads the table."""
    domains = [domain for line in lines for domain in runs.first(line).recipe().domain]
    if named := {domain.name for domain in domains if domain.labelled_by == "model"}:
        yield of_labels(sorted(named))
    for line in lines:
        if leaks := runs.first(line).facts.get("leaks"):
            yield f"{line.name}: {len(leaks)} held-out answers stand in the passages that it is shown: {leaks[0]}"
    if any(line.kind == "merge" and runs.first(line).plan()["storage"] != _stored(line, runs) for line in lines):
        yield "merged adapters are measured on the base in 16 bits, the experts on it in fewer"


def _stored(line: Line, runs: Runs) -> str:
    return str(runs.run(line.sources[0].learned[0]).plan()["storage"])


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
    """Rows that it learned and chose from, the mean over the domains from which it learned any."""
    counts = [
        each["train"] + each["validation"]
        for name in line.sources[0].runs
        for each in runs.run(name).facts["data"].values()
        if each["train"]
    ]
    return sum(counts) / len(counts) if counts else 0.0


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
