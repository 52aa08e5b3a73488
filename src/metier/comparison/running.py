"""Strategies → runs, each in a process of its own; what is there already is found by its hash and not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metier import child, experiment
from metier.comparison.layouts import Experts, Routing, find_experts, merged, route
from metier.errors import Fault, MetierError, ModelError, RecipeError
from metier.evaluation.lines import Line, Runs, Source
from metier.events import Event, Listener
from metier.grid import BASE, Cell, Comparison, Entry
from metier.recipe import Recipe
from metier.run import Run
from metier.strategies import Tuned, Untuned

Train = Callable[..., Run]
"""`child.train`, or what stands in for it: (recipe, overrides, offline=, on_event=) → run."""


@dataclass(frozen=True)
class How:
    """Means that all runs share: choices forced on their plans, the network, how many at a time, who listens."""

    overrides: Mapping[str, Any]
    offline: bool
    jobs: int
    listen: Listener
    train: Train = child.train


def run_all(comparison: Comparison, how: How, folder: Path) -> tuple[list[Line], list[Routing]]:
    """Every entry's line, and what routers in front of experts did; the runs lie in `folder`.

    All is checked before the first run starts; one that fails leaves the others alone.
    """
    entries = comparison.entries()
    lines = _run(comparison, entries, how)
    runs, routings = Runs(folder), []
    for experts in find_experts(entries, lines):
        more: list[Line] = []
        for line, sent in route(experts, comparison, runs, offline=how.offline, listen=how.listen):
            more.append(line)
            routings += sent
        more += [
            _of_experts(each, experts) for each in _run(comparison, [*merged(experts, runs, offline=how.offline)], how)
        ]
        lines[lines.index(experts.line) + 1 : lines.index(experts.line) + 1] = more
    return lines, routings


def _of_experts(line: Line, experts: Experts) -> Line:
    """A merge's line, which rests on what its experts learned."""
    pairs = zip(line.sources, experts.line.sources, strict=False)
    sources = tuple(replace(each, learned=tuple(own.domains.values())) for each, own in pairs)
    return replace(line, kind="merge", layout="per-domain", sources=sources)


def _run(comparison: Comparison, entries: Sequence[Entry], how: How) -> list[Line]:
    """The entries' lines; only what is missing is run, what tunes nothing first."""
    found = _check(comparison, entries, how)
    wanted = _distinct(cell for entry in entries for cell in entry.cells if _key(cell) in found)
    missing = sorted((cell for cell in wanted if found[_key(cell)] is None), key=_late)
    if wanted:
        how.listen(_note(f"{len(wanted)} runs, {len(wanted) - len(missing)} of them there already"))
    done: dict[str, Run | MetierError] = {key: run for key, run in found.items() if run}
    done |= dict(_trained(missing, how))
    return [_line(entry, done) for entry in entries if all(_key(cell) in found for cell in entry.cells)]


def _late(cell: Cell) -> tuple[bool, bool]:
    """What others are compared with comes first, an expert after what knows all domains."""
    return isinstance(cell.recipe.strategy, Tuned), bool(cell.domain)


def _check(comparison: Comparison, entries: Sequence[Entry], how: How) -> dict[str, Run | None]:
    """By cell the finished run, if there is one. Raises with every fault of every strategy.

    The untuned base that nobody asked for is left out where the model cannot answer untuned.
    """
    found: dict[str, Run | None] = {}
    faults: dict[str, Fault] = {}
    for entry in entries:
        for cell in entry.cells:
            if _key(cell) in found:
                continue
            try:
                means: dict[str, Any] = {"offline": how.offline, "on_event": how.listen}
                found[_key(cell)] = experiment.find(cell.recipe, how.overrides, **means)
            except ModelError as error:
                if entry.arm != BASE:
                    faults[str(error)] = Fault(f"strategy {entry.name!r}", str(error), error.hint or "mend it")
            except MetierError as error:
                faults[str(error)] = Fault(f"strategy {entry.name!r}", str(error), error.hint or "mend it")
    if faults:
        raise RecipeError(str(comparison.path), list(faults.values()))
    return found


def _trained(cells: Sequence[Cell], how: How) -> Iterator[tuple[str, Run | MetierError]]:
    with ThreadPoolExecutor(max_workers=how.jobs) as pool:
        futures = {pool.submit(_train, cell, how): cell for cell in cells}
        for number, future in enumerate(as_completed(futures), start=1):
            cell = futures[future]
            try:
                run = future.result()
            except MetierError as error:
                how.listen(_note(f"run {number} of {len(cells)}: failed: {error}"))
                yield _key(cell), error
                continue
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            how.listen(_note(f"run {number} of {len(cells)}: {run.name} is finished"))
            yield _key(cell), run


def _train(cell: Cell, how: How) -> Run:
    run = how.train(cell.recipe, how.overrides, offline=how.offline, on_event=how.listen)
    if how.jobs > 1:
        run.update(beside_others=True)
    return run


def _line(entry: Entry, done: Mapping[str, Run | MetierError]) -> Line:
    results = [(cell, done[_key(cell)]) for cell in entry.cells]
    failed = next((str(result) for _, result in results if isinstance(result, MetierError)), "")
    by_seed: dict[int, dict[str, str]] = {}
    for cell, result in results:
        if isinstance(result, Run):
            by_seed.setdefault(cell.seed, {})[cell.domain] = result.name
    sources = tuple(_source(entry, seed, runs) for seed, runs in by_seed.items())
    kind = _kind(entry)
    line = Line(entry.name, entry.arm, entry.model, entry.layout, entry.rows, sources, kind)
    return replace(line, sources=(), failed=failed) if failed else line


def _source(entry: Entry, seed: int, runs: Mapping[str, str]) -> Source:
    if entry.layout == "per-domain":
        return Source(seed, domains=runs)
    return Source(seed, run=next(iter(runs.values())))


def _kind(entry: Entry) -> str:
    if entry.layout == "per-domain":
        return "oracle"
    return "base" if entry.recipe.strategy == Untuned(method="none") else ""


def _distinct(cells: Iterator[Cell]) -> list[Cell]:
    return list({_key(cell): cell for cell in cells}.values())


def _key(cell: Cell) -> str:
    """What tells cells apart before their data is read."""
    recipe: Recipe = cell.recipe
    return recipe.to_toml()


def _note(text: str) -> Event:
    return Event("note", values={"text": text})
