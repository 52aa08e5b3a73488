"""What a run took, on what data, and how it is done again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier.figures import count, decimal, duration, latency, size
from metier.run import Run

_LISTED = 20  # rows that were left out


@dataclass(frozen=True)
class Forecast:
    """One quantity as the plan forecast it and as it was; texts, empty where there is none."""

    name: str
    forecast: str
    measured: str
    ratio: str


@dataclass(frozen=True)
class Cost:
    forecasts: tuple[Forecast, ...]
    memory: tuple[tuple[str, str], ...]
    facts: tuple[tuple[str, str], ...]
    kinds: tuple[tuple[str, str, str], ...]
    trained: str


@dataclass(frozen=True)
class Data:
    """`rows` are a domain's counts in the order of the table's columns; `notes` say what else became of the files."""

    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class Reproduction:
    """`file` is a name for the resolved recipe that overwrites nobody's own."""

    recipe: str
    file: str
    command: str
    plan: tuple[tuple[str, str, str], ...]
    versions: Mapping[str, str]
    identity: tuple[tuple[str, str], ...]


def read_cost(run: Run, events: Iterable[Mapping[str, Any]]) -> Cost:
    facts, plan = run.facts, read_plan(run)
    kinds = facts.get("trained", ())
    return Cost(
        forecasts=tuple(_forecasts(facts["measured"], plan)),
        memory=tuple((name, size(part)) for name, part in plan.get("memory", {}).items() if part),
        facts=(*_training(facts, plan, events), *_asking(facts["measured"])),
        kinds=tuple(
            (kind["name"], f"{kind['adapted']} of {kind['layers']}", count(kind["parameters"])) for kind in kinds
        ),
        trained=count(sum(kind["parameters"] for kind in kinds)),
    )


def read_data(facts: Mapping[str, Any]) -> Data:
    rows = tuple((name, *_counts(counts)) for name, counts in facts["data"].items())
    notes = (*facts.get("skipped", ()), *facts.get("notes", ()))  # of an older run there are none
    left_out: Sequence[str] = [*facts.get("left_out", ()), *facts["dropped"]]
    return Data(rows, notes, tuple(left_out[:_LISTED]), max(0, len(left_out) - _LISTED))


def read_reproduction(run: Run) -> Reproduction:
    facts, plan = run.facts, read_plan(run)
    reasons = plan.get("reasons", {})
    file = f"{Path(facts['recipe']).stem}-{run.name}.toml"
    choices = ((name, value) for name, value in plan.items() if not isinstance(value, Mapping))
    identity = {"key": facts["key"], **facts["hashes"], "revision": facts["revision"], "seed": facts["seed"]}
    return Reproduction(
        recipe=(run.directory / "recipe.toml").read_text(encoding="utf-8"),
        file=file,
        command=f"metier train {file}" + (f" --plan compute={plan['compute']}" if plan else ""),
        plan=tuple((name, _toml(value), reasons.get(name, "")) for name, value in choices),
        versions=facts["versions"],
        identity=tuple((name, str(value)) for name, value in identity.items() if value not in ("", None)),
    )


def read_plan(run: Run) -> Mapping[str, Any]:
    """Empty where there was nothing to plan."""
    return run.plan() if (run.directory / "plan.json").exists() else {}


def _forecasts(measured: Mapping[str, Any], plan: Mapping[str, Any]) -> Iterable[Forecast]:
    """Phases as they were timed, each beside the sum of the planned phases that it names, then memory."""
    planned = plan.get("seconds", {})
    for phase, seconds in measured["seconds"].items():
        yield _beside(phase, [planned[part] for part in phase.split(" and ") if part in planned], seconds, duration)
    memory = list(plan.get("memory", {}).values())
    yield _beside("peak memory", memory, measured["peak_memory"], size)


def _beside(name: str, planned: Sequence[float], measured: float, text: Callable[[float], str]) -> Forecast:
    forecast = sum(planned)
    if not forecast:
        return Forecast(name, "", text(measured), "")
    return Forecast(name, text(forecast), text(measured), f"× {measured / forecast:.2f}")


def _training(
    facts: Mapping[str, Any], plan: Mapping[str, Any], events: Iterable[Mapping[str, Any]]
) -> Iterable[tuple[str, str]]:
    if "steps" not in facts:
        return
    trained = [event["values"] for event in events if event["phase"] == "train"]
    tokens, seconds = (sum(values[name] for values in trained) for name in ("tokens", "seconds"))
    yield "steps", f"{count(facts['steps'])} of {count(plan['steps'])} planned"
    yield "stopped early", "yes, validation rose no more" if facts["stopped_early"] else "no"
    yield "kept step", f"{count(facts['best_step'])}, the best on validation"
    yield "tokens computed", f"{count(round(tokens))}, shared prefixes once"
    if skipped := sum("skipped" in values for values in trained):
        yield "steps skipped", f"{count(skipped)}, whose gradients overflowed float16"
    if seconds:
        yield "tokens a second", f"{count(round(tokens / seconds))}, validation left out"


def _asking(measured: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Of an endpoint; what neither it nor the recipe tells is left out."""
    if "asked" not in measured:
        return
    yield "answers", f"{count(measured['asked'])} asked now, {count(measured['replayed'])} replayed from the journal"
    yield "requests", f"{count(measured['attempts'])}, repeated ones included"
    if (seconds := measured["seconds_per_answer"]) is not None:
        yield "latency", f"{latency(seconds)} an answer, 95 % within {latency(measured['seconds_per_answer_p95'])}"
    if measured["tokens_in"] is not None and measured["tokens_out"] is not None:
        yield "tokens", f"{count(measured['tokens_in'])} read, {count(measured['tokens_out'])} written"
    if (price := measured["price_per_1000"]) is not None:
        yield "price", f"{price:.3g} per 1,000 answers, in the recipe's currency"


def _counts(counts: Mapping[str, Any]) -> Iterable[str]:
    names = ("train", "validation", "heldout", "left_out", "target_tokens")
    return (*(count(counts[name]) for name in names), decimal(counts["weight"], 3))


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
