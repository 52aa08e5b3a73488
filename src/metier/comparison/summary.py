"""A comparison's table as text: for a terminal, for a spreadsheet, and for a pull request."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metier.evaluation.standings import OVERALL
from metier.figures import chance, decimal, duration, figure, interval, money, size
from metier.report.trends import doubling
from metier.tables import Part, Table

_SCORES = ("strategy", "overall of 100", "− base", "verdict", "− best")
_COSTS = ("forgot", "tuning", "1,000 answers", "memory", "trained")


def parts(table: Mapping[str, Any]) -> Iterator[Part]:
    """The whole table with its verdict."""
    yield Table((*_SCORES, *_COSTS), [_row(line) for line in table["lines"]])
    yield Table(("strategy", *table["domains"]), [_domains(line, table["domains"]) for line in table["lines"]])
    for curve in table["curves"]:
        points = [f"{point['examples']:g}: {figure(OVERALL, point['value'])}" for point in curve["points"]]
        told = "; ".join(filter(None, [", ".join(points), doubling(curve)]))
        yield f"{curve['name']}, by examples a domain: {told}"
    for name, why in table["failed"].items():
        yield f"failed: {name}: {why}"
    yield table["verdict"]
    yield from (f"warning: {each}" for each in table["warnings"])


def markdown(name: str, table: Mapping[str, Any]) -> str:
    """Markdown for a pull request."""
    head = ("strategy", "overall of 100", "− untuned base", "", "− best", "1,000 answers", "trained")
    rows = [_markdown_row(line, table) for line in table["lines"]]
    lines = [f"### {name}", "", table["verdict"], "", _piped(head), _piped(["---"] * len(head)), *map(_piped, rows)]
    lines += [
        "",
        *(f"- warning: {each}" for each in table["warnings"]),
        *(f"- failed: {name}: {why}" for name, why in table["failed"].items()),
    ]
    note = f"Mean over {', '.join(table['domains'])} of the primary metric, out of 100, with 95 % intervals. Paired"
    return "\n".join([*lines, f"{note} tests on the same held-out items, Holm over the strategies."]).rstrip() + "\n"


def as_csv(table: Mapping[str, Any]) -> str:
    """One line a strategy, scores out of 1, plain numbers."""
    names: tuple[str, ...] = ("name", "model", "layout", "rows", "overall", "low", "high", "seeds", "spread")
    names += ("minus_base", "minus_base_low", "minus_base_high", "minus_base_p", "minus_base_verdict")
    names += ("minus_best", "minus_best_low", "minus_best_high", "p_inferior", "forgetting", "guards_hold")
    names += ("training_seconds", "seconds_per_1000", "price_per_1000", "peak_memory", "parameters", "bytes")
    names += ("failed", "unparsed", *(f"score_{domain}" for domain in table["domains"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(_csv_row(line, table["domains"]) for line in table["lines"])
    return text.getvalue()


def spanned(score: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """A value with its interval, out of 100; – where there is none."""
    if score is None:
        return "–"
    value = figure(OVERALL, score["value"], signed=signed)
    return f"{value} {interval(OVERALL, score['low'], score['high'], signed=signed)}"


def seconds(value: float | None) -> str:
    return "–" if value is None else duration(value)


def parameters(count: int) -> str:
    return f"{count / 1e6:,.2f} M" if count >= 10_000 else f"{count:,}"


def _row(line: Mapping[str, Any]) -> tuple[str, ...]:
    base, best, cost = line["against_base"], line["against_best"], line["cost"]
    forgot = line["forgetting"]
    return (
        line["name"],
        spanned(line["overall"]) + _spread(line["spread"]),
        spanned(base["overall"], signed=True) if base else "–",
        base["overall"]["verdict"] if base and base["overall"] else "",
        spanned(best["overall"], signed=True) if best else "best",
        (decimal(forgot["value"], 3, signed=True) if forgot else "–") + _guard(line),
        seconds(cost["training"]),
        seconds(cost["answering"]) + (f", {money(cost['price'])}" if cost["price"] is not None else ""),
        size(cost["memory"]) if cost["memory"] else "–",
        parameters(cost["parameters"]),
    )


def _guard(line: Mapping[str, Any]) -> str:
    return "" if line["guards_hold"] else ", a guard says no"


def _spread(value: float | None) -> str:
    return "" if value is None else f" ± {figure(OVERALL, value)} over seeds"


def _domains(line: Mapping[str, Any], domains: Sequence[str]) -> tuple[str, ...]:
    return (line["name"], *(spanned(line["by_domain"].get(domain)) for domain in domains))


def _markdown_row(line: Mapping[str, Any], table: Mapping[str, Any]) -> tuple[str, ...]:
    base, best, cost = line["against_base"], line["against_best"], line["cost"]
    name = f"**{line['name']}**" if line["name"] == table["recommended"] else line["name"]
    told = base and base["overall"]
    return (
        name,
        spanned(line["overall"]),
        spanned(told, signed=True) if told else "–",
        f"{told['verdict']}, {chance(told['p_adjusted'])}" if told else "",
        spanned(best["overall"], signed=True) if best else "best",
        seconds(cost["answering"]),
        parameters(cost["parameters"]),
    )


def _csv_row(line: Mapping[str, Any], domains: Sequence[str]) -> tuple[Any, ...]:
    overall, cost = line["overall"] or {}, line["cost"]
    base = (line["against_base"] or {}).get("overall") or {}
    best = line["against_best"] or {}
    gap = best.get("overall") or {}
    return (
        *(line[key] for key in ("name", "model", "layout", "rows")),
        *(overall.get(key) for key in ("value", "low", "high")),
        len(line["sources"]),
        line["spread"],
        *(base.get(key) for key in ("value", "low", "high", "p_adjusted", "verdict")),
        *(gap.get(key) for key in ("value", "low", "high")),
        best.get("p_inferior"),
        (line["forgetting"] or {}).get("value"),
        line["guards_hold"],
        *(cost[key] for key in ("training", "answering", "price", "memory", "parameters", "size")),
        line["failed_items"],
        line["unparsed"],
        *((line["by_domain"].get(domain) or {}).get("value") for domain in domains),
    )


def _piped(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
