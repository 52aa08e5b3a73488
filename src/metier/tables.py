"""What results say, as parts (lines and tables) that a terminal prints and a notebook shows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from metier.figures import chance, decimal, duration, figure, habit, interval, latency, size, with_unit

HARDLY = "it hardly differs from its base: raise train.learning_rate or train.num_train_epochs"


@dataclass(frozen=True)
class Table:
    """Rows of texts under a head."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def __str__(self) -> str:
        """Columns aligned by spaces, numbers and words alike to the left."""
        lines = [self.head, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.head))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    def html(self) -> str:
        rows = "".join(f"<tr>{_cells('td', row)}</tr>" for row in self.rows)
        return f"<table><thead><tr>{_cells('th', self.head)}</tr></thead><tbody>{rows}</tbody></table>"


Part = str | Table


def html(parts: Iterator[Part] | Sequence[Part]) -> str:
    """Parts as a notebook shows them; whatever they quote is escaped."""
    return "".join(part.html() if isinstance(part, Table) else _paragraph(part) for part in parts)


def as_text(parts: Iterator[Part] | Sequence[Part]) -> str:
    """Parts as Python prints them: lines, and tables apart from them."""
    blocks = "\n".join(f"\n{part}\n" if isinstance(part, Table) else part for part in parts)
    return re.sub(r"\n{3,}", "\n\n", blocks).strip("\n")


def plan_parts(plan: Mapping[str, Any]) -> Iterator[Part]:
    """A plan's choices with their reasons, forecast memory and time, from its plain values."""
    yield Table(("choice", "value", "why"), [(key, str(plan[key]), why) for key, why in plan["reasons"].items()])
    yield Table(("memory", "forecast"), [(name, size(value)) for name, value in plan["memory"].items() if value])
    yield f"peak of {size(sum(plan['memory'].values()))}, in this phase: {plan['largest']}"
    if host := sum(plan["host_memory"].values()):
        yield f"beside it {size(host)} of the machine's own memory"
    if plan["seconds"]:
        times = {**plan["seconds"], "in all": sum(plan["seconds"].values())}
        yield Table(("time", "forecast"), [(name, duration(value)) for name, value in times.items()])


def score_parts(scores: Mapping[str, Any], opponents: Mapping[str, str]) -> Iterator[Part]:
    """Scores with intervals, differences with verdicts, forgetting and guards, from scores.json.

    `opponents` names those it was compared with, by method.
    """
    yield Table(("domain", "metric", "score", "95 % interval", "items", "failed"), [*_score_rows(scores)])
    if unparsed := [f"{each['unparsed']} on {each['domain']}" for each in scores["domains"] if each.get("unparsed")]:
        yield f"unparsed, which count as wrong and as no class: {', '.join(unparsed)}"
    for role, against in scores["against"].items():
        yield f"against {opponents[role]} (paired, Holm over the domains)"
        yield Table(("domain", "metric", "difference", "95 % interval", "p", "verdict"), [*_difference_rows(against)])
    for found in scores.get("counterfactuals", ()):
        yield from counterfactual_parts(found)
    if forgetting := scores["forgetting"]:
        value = decimal(forgetting["value"], 3, signed=True)
        yield f"forgetting: {value} nats a token on general text, {forgetting['verdict']}"
    if choices := scores.get("general_choices"):
        yield choices_line(choices)
    if tradeoff := scores.get("tradeoff"):
        yield f"recommended strategy.scale: {tradeoff['recommended']:g}; {tradeoff['why']}"
    if hardly_differs(scores):
        yield f"warning: {HARDLY}"
    for name, guard in scores["guard"].items():
        yield f"guard {name}: {guard_line(name, guard)}: {'passed' if guard['passed'] else 'FAILED'}"


def choices_line(choices: Mapping[str, Any]) -> str:
    """General questions before and after, with how many were lost and gained."""
    before, after = (with_unit("accuracy", choices[each]) for each in ("before", "after"))
    changed = f"{len(choices['lost'])} lost, {len(choices['gained'])} gained"
    said = f"{changed}, {choices['verdict']} ({choices['test']}, {chance(choices['p'])})"
    return f"general questions: {after} right, before {before}; {said}"


def guard_line(name: str, guard: Mapping[str, Any]) -> str:
    """By how much it got worse, of at most what: nats a token, or points of accuracy."""
    if name == "general_choices":
        value, limit = (decimal(100 * guard[each], 1, signed=True) for each in ("value", "limit"))
        return f"{value} of at most {limit} points lost"
    value, limit = (decimal(guard[each], 3, signed=True) for each in ("value", "limit"))
    return f"{value} of at most {limit} nats a token"


def counterfactual_parts(found: Mapping[str, Any]) -> Iterator[Part]:
    """Of one domain: how often the answer changes with whom a text names, and who gets the favourable one how often."""
    yield f"{found['domain']}: the same texts, naming other people: {_ranged(found['flips'])} not answered alike"
    head = ("varied", "texts", "flips, 95 % interval", "impact ratio, 95 % interval", "between groups (paired, Holm)")
    yield Table(head, [_attribute_row(each) for each in found["attributes"]])
    rates = [(each["attribute"], group, rate) for each in found["attributes"] for group, rate in each["rates"].items()]
    rows = [(attribute, group, _ranged(rate), str(rate["n"])) for attribute, group, rate in rates]
    yield Table(("varied", "group", f"answered {found['favourable']}, 95 % interval", "texts"), rows)


def _attribute_row(found: Mapping[str, Any]) -> tuple[str, ...]:
    tests = [(each, each["difference"]) for each in found["contrasts"] if each["verdict"] != "no difference shown"]
    told = [
        f"{each['group']} {with_unit('rate', test['value'], signed=True)} beside {each['other']}, p = "
        f"{test['p_adjusted']:.2g}"
        for each, test in tests
    ]
    flips, ratio = found["flips"], found["impact_ratio"]
    return found["attribute"], str(flips["n"]), _ranged(flips), _ranged(ratio), "; ".join(told) or "no difference shown"


def _ranged(score: Mapping[str, Any]) -> str:
    value = with_unit(score["metric"], score["value"])
    return f"{value} {interval(score['metric'], score['low'], score['high'])}"


def hardly_differs(scores: Mapping[str, Any]) -> bool:
    """Whether a tuned run reads general text and answers every domain as its untuned base does, as far as is shown."""
    if not scores["forgetting"] or "none" not in scores["against"]:
        return False
    text = next(each for each in scores["domains"] if each["kind"] == "text")
    moved = [("kl", each["value"]) for each in text["scores"] if each["metric"] == "kl"]
    against = scores["against"]["none"]["domains"]
    moved += [(each["metric"], each["value"]) for domain in against for each in domain["differences"]]
    return all(figure(metric, abs(value)) == figure(metric, 0.0) for metric, value in moved)


def benchmark_parts(measured: Mapping[str, Any]) -> Iterator[Part]:
    """What one asking of benchmark tasks gave: a line for each metric of each, beside the base if the run was tuned."""
    yield asked_how(measured["settings"])
    lines = measured["lines"]
    if measured["base"] is None:
        rows = [(each["task"], _benchmark_metric(each), str(each["n"]), _benchmark_score(each)) for each in lines]
        yield Table(("task", "metric", "items", "score, 95 % interval"), rows)
        return
    head = ("task", "metric", "items", "base", "tuned", "difference, 95 % interval", "p", "verdict")
    yield Table(head, [_benchmark_row(each) for each in lines])
    yield "paired tests item by item, Holm over the lines of a metric"


def asked_how(settings: Mapping[str, Any]) -> str:
    """How benchmarks were asked: how many items, what stood in front."""
    limit, shots = settings["limit"], settings["num_fewshot"]
    parts = [f"the first {limit} items of each task" if limit else "every item of each task"]
    parts += [f"{shots} examples in front"] if shots is not None else []
    return ", ".join([*parts, *(["through the chat template"] if settings["apply_chat_template"] else [])])


def cost_line(measured: Mapping[str, Any], plan: Mapping[str, Any] | None, opponents: Sequence[str]) -> str:
    """Time and memory as they were, beside the forecast where there was one; of the run alone, and it says so."""
    line = f"cost: {duration(sum(measured['seconds'].values()))}, peak memory {size(measured['peak_memory'])}"
    if plan is not None:
        line += f" (forecast {duration(sum(plan['seconds'].values()))}, {size(sum(plan['memory'].values()))})"
    if (seconds := measured.get("seconds_per_answer")) is not None:
        line += f", {latency(seconds)} an answer"
    if (price := measured.get("price_per_1000")) is not None:
        line += f", {price:.3g} per 1,000 answers"
    return line + (f"; without {' and '.join(opponents)}" if opponents else "")


def _score_rows(scores: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for domain in scores["domains"]:
        for score in domain["scores"]:
            value, low, high = (with_unit(score["metric"], score[each]) for each in ("value", "low", "high"))
            label = habit(score["metric"]).label
            yield domain["domain"], label, value, f"{low} – {high}", str(score["n"]), str(domain["failed"])


def _difference_rows(against: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for domain in against["domains"]:
        for each in domain["differences"]:
            value, low, high = (with_unit(each["metric"], each[end], signed=True) for end in ("value", "low", "high"))
            label, p = habit(each["metric"]).label, f"{each['p_adjusted']:.2g}"
            yield domain["domain"], label, value, f"{low} … {high}", p, each["verdict"]


def _benchmark_row(line: Mapping[str, Any]) -> tuple[str, ...]:
    base = _plain(line["base"]["value"]) if line["base"] else ""
    scores = (line["task"], _benchmark_metric(line), str(line["n"]), base, _plain(line["tuned"]["value"]))
    if not (each := line["difference"]):
        return (*scores, "", "", "not tested")
    ends = f"[{_plain(each['low'], signed=True)}, {_plain(each['high'], signed=True)}]"
    return (*scores, f"{_plain(each['value'], signed=True)} {ends}", f"{each['p_adjusted']:.2g}", each["verdict"])


def _benchmark_metric(line: Mapping[str, Any]) -> str:
    """lm-eval's name; its filter where it is not the plain one."""
    return str(line["metric"]).removesuffix(",none")


def _benchmark_score(line: Mapping[str, Any]) -> str:
    value, low, high = (line["tuned"][each] for each in ("value", "low", "high"))
    return _plain(value) if low is None else f"{_plain(value)} [{_plain(low)}, {_plain(high)}]"


def _plain(value: float, *, signed: bool = False) -> str:
    """In lm-eval's own unit: shares of 1, perplexities."""
    return decimal(value, 3 if abs(value) < 100 else 0, signed=signed)


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _paragraph(text: str) -> str:
    return f'<p style="white-space: pre-wrap">{escape(text.strip())}</p>'
