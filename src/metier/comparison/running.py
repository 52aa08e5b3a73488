"""Strategies → runs, each in a process of its own; what is there already is found by its hash and not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metier import child, experiment
from metier.comparison.layouts import (
    MERGES,
    Experts,
    Routing,
    find_experts,
    measured_merges,
    mergeable,
    merged,
    read_hard,
    route,
)
from metier.errors import AbsentError, Fault, FaultsError, MetierError, RecipeError
from metier.evaluation.lines import Line, Runs, Source
from metier.events import Event, Listener
from metier.grid import BASE, CLASSICAL, Cell, Comparison, Entry, told_apart
from metier.recipe import Recipe
from metier.run import Run
from metier.strategies import Tuned

Train = Callable[..., Run]
"""`child.train`, or what stands in for it: (recipe, overrides, offline=, on_event=, beside_others=) → run."""


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

    All is checked before the first run starts, but what goes on from a stage that is not there yet; a run that
    fails leaves the others alone.
    """
    entries, work = comparison.entries(), _Work(comparison, how)
    _check_prompts(comparison, entries)
    stages = [stage for entry in entries if (stage := _stage(entry))]
    work.check([*stages, *(entry for entry in entries if not entry.after)])
    work.run(stages)
    failed = {entry.name: why for entry in entries if (why := work.why_not(entry))}
    going = [_going_on(entry, work) if entry.after else entry for entry in entries if entry.name not in failed]
    work.check(going)
    going = work.present(going)
    work.run(going)
    lines = [line for entry in going if (line := work.line(entry))]
    lines += [_failed(entry, failed[entry.name]) for entry in entries if entry.name in failed]
    return _with_experts(going, lines, work, Runs(folder))


@dataclass(frozen=True)
class Ahead:
    """A line before it is run: how many runs it rests on, and the recipes of those that are missing.

    Of experts also how many of their merges are to be measured.
    """

    name: str
    entry: Entry
    runs: int
    missing: tuple[Recipe, ...]
    unmerged: int


def look_ahead(comparison: Comparison, how: How) -> list[Ahead]:
    """Every entry with what of it is missing; starts nothing. Raises with every fault of every strategy.

    What goes on from a stage is told by that stage: the rest can be looked at only once that is there.
    """
    work = _Work(comparison, how)
    entries = [_stage(entry) or entry for entry in comparison.entries()]
    _check_prompts(comparison, entries)
    work.check(entries)
    present = work.present(entries)
    return [
        Ahead(
            name,
            entry,
            len(entry.cells),
            tuple(cell.recipe for cell in entry.cells if _key(cell) in work.missing),
            work.unmerged(entry),
        )
        for name, entry in zip(told_apart(present), present, strict=True)
        if not any(isinstance(work.done.get(_key(cell)), MetierError) for cell in entry.cells)
    ]


def _with_experts(
    entries: Sequence[Entry], lines: list[Line], work: _Work, runs: Runs
) -> tuple[list[Line], list[Routing]]:
    """The lines, those of experts followed by what is put together of them."""
    routings: list[Routing] = []
    for experts in list(find_experts(entries, lines)):
        more: list[Line] = []
        merges: list[Entry] = []
        how = work.how
        try:
            for line, sent in route(experts, work.comparison, runs, offline=how.offline, listen=how.listen):
                more.append(line)
                routings += sent
        except MetierError as error:
            more.append(_not_put_together(experts.line, "routed", error))
        try:
            merges += merged(experts, runs, offline=how.offline)
        except MetierError as error:
            more.append(_not_put_together(experts.line, "merged", error))
        work.check(merges)
        work.run(merges, "merged adapters to measure")
        more += [_of_experts(each, experts) for entry in merges if (each := work.line(entry))]
        place = lines.index(experts.line) + 1
        lines[place:place] = more
    return lines, routings


def _not_put_together(line: Line, how: str, error: MetierError) -> Line:
    return replace(line, name=f"{line.name}, {how}", kind="", sources=(), failed=str(error))


def _check_prompts(comparison: Comparison, entries: Sequence[Entry]) -> None:
    """Their faults would be told last otherwise."""
    if any(entry.layout == "per-domain" for entry in entries):
        read_hard(comparison, entries[0].recipe)


def _stage(entry: Entry) -> Entry | None:
    """The stage before an entry, as an entry of its own."""
    if entry.after is None:
        return None
    cell = Cell(entry.after, entry.after.train.seed)
    return replace(entry, name=f"{entry.name}, its first stage", layout="shared", cells=(cell,), after=None)


def _going_on(entry: Entry, work: _Work) -> Entry:
    """The entry with the run of its stage in the model's place."""
    stage = _stage(entry)
    assert stage
    run = work.done[_key(stage.cells[0])]
    assert isinstance(run, Run)
    model = str(run.directory.resolve())
    return replace(entry, cells=tuple(replace(each, recipe=each.recipe.override(model=model)) for each in entry.cells))


def _failed(entry: Entry, why: str) -> Line:
    return Line(entry.name, entry.arm, entry.model, entry.layout, entry.rows, (), _kind(entry), why)


def _of_experts(line: Line, experts: Experts) -> Line:
    """A merge's line, which rests on what its experts learned."""
    pairs = zip(line.sources, experts.line.sources, strict=False)
    sources = tuple(replace(each, learned=tuple(own.domains.values())) for each, own in pairs)
    return replace(line, kind="merge", layout="per-domain", sources=sources)


@dataclass(frozen=True)
class _Work:
    """What was found or run so far, by cell: a run, or why there is none."""

    comparison: Comparison
    how: How
    done: dict[str, Run | MetierError] = field(default_factory=dict)
    missing: dict[str, tuple[Cell, Path]] = field(default_factory=dict)

    def check(self, entries: Iterable[Entry]) -> None:
        """Find every cell's finished run, if there is one. Raises with every fault of every strategy.

        Of base and baseline that nobody asked for, what cannot be is left out; so is what is tuned on one domain
        alone, where that is absent and may be.
        """
        faults: dict[str, Fault] = {}
        entries = list(entries)
        for number, entry in enumerate(entries, start=1):
            for cell in entry.cells:
                try:
                    self._look_for(cell)
                except MetierError as error:
                    if isinstance(error, AbsentError) and cell.domain:
                        continue
                    self.done[_key(cell)] = error
                    if entry.arm not in (BASE, CLASSICAL):
                        _collect(faults, entry, error)
            if number < len(entries):  # a sign of life where reading takes long
                self.how.listen(Event("reading", number, len(entries)))
        if faults:
            raise RecipeError(str(self.comparison.path), list(faults.values()))

    def present(self, entries: Iterable[Entry]) -> list[Entry]:
        """The entries that were looked for, each without the domains that are absent."""
        known = self.done.keys() | self.missing.keys()
        kept = ((entry, tuple(cell for cell in entry.cells if _key(cell) in known)) for entry in entries)
        return [replace(entry, cells=cells) for entry, cells in kept if cells]

    def run(self, entries: Sequence[Entry], what: str = "runs") -> None:
        """What is missing of them, what tunes nothing first.

        Cells that turn out to need the same run wait for it: no two processes work in one directory.
        """
        keys = dict.fromkeys(_key(cell) for entry in entries for cell in entry.cells)
        wanting = len(keys.keys() & self.missing.keys())
        if keys:
            self.how.listen(_note(f"{len(keys)} {what}, {len(keys) - wanting} of them there already"))
        while keys.keys() & self.missing.keys():
            asked = [self.missing[key] for key in keys if key in self.missing]
            first = {directory: cell for cell, directory in reversed(asked)}
            for key, result in _trained(sorted(first.values(), key=_late), self.how):
                self.done[key] = result
                del self.missing[key]
            for cell, directory in asked:
                if _key(cell) in self.missing and directory in first:
                    del self.missing[_key(cell)]
                    self._look_for(cell)

    def line(self, entry: Entry) -> Line | None:
        """An entry's line; None of base or baseline that nobody asked for and that cannot be."""
        results = [(cell, self.done[_key(cell)]) for cell in entry.cells]
        failed = next((str(result) for _, result in results if isinstance(result, MetierError)), "")
        if failed and entry.arm in (BASE, CLASSICAL):
            return None
        if failed:
            return _failed(entry, failed)
        sources = tuple(self._sources(entry))
        return replace(
            _failed(entry, ""),
            sources=sources,
            guard={str(name): limit for name, limit in entry.recipe.eval.guard.items()},
        )

    def unmerged(self, entry: Entry) -> int:
        """How many merges of its experts are to be measured still; all of them as long as an expert is missing."""
        if not mergeable(entry):
            return 0
        if any(_key(cell) in self.missing for cell in entry.cells):
            return len(MERGES) * len({cell.seed for cell in entry.cells})
        line = self.line(entry)
        if not line or line.failed:
            return 0
        cells = [*measured_merges(line, entry, Runs(entry.recipe.directory / "runs"))]
        for cell in filter(None, cells):
            self._look_for(cell)
        return sum(cell is None or _key(cell) in self.missing for cell in cells)

    def why_not(self, entry: Entry) -> str:
        """Why its stage failed, or ""."""
        stage = _stage(entry)
        before = self.done[_key(stage.cells[0])] if stage else None
        return f"the stage before it failed: {before}" if isinstance(before, MetierError) else ""

    def _look_for(self, cell: Cell) -> None:
        key = _key(cell)
        if key in self.done or key in self.missing:
            return
        means: dict[str, Any] = {"offline": self.how.offline, "on_event": self.how.listen}
        run, finished = experiment.locate(cell.recipe, self.how.overrides, **means)
        if finished:
            self.done[key] = run
        else:
            self.missing[key] = cell, run.directory

    def _sources(self, entry: Entry) -> Iterator[Source]:
        """One a seed."""
        learned = tuple(self._learned(entry))
        by_seed: dict[int, dict[str, str]] = {}
        for cell in entry.cells:
            run = self.done[_key(cell)]
            assert isinstance(run, Run), "those that failed have no line of runs"
            by_seed.setdefault(cell.seed, {})[cell.domain] = run.name
        for seed, runs in by_seed.items():
            if entry.layout == "per-domain":
                yield Source(seed, domains=runs, learned=learned)
            else:
                yield Source(seed, run=next(iter(runs.values())), learned=learned)

    def _learned(self, entry: Entry) -> Iterator[str]:
        """The run of its stage, where that lies beside its own."""
        if (stage := _stage(entry)) and entry.after and entry.after.directory == entry.recipe.directory:
            before = self.done[_key(stage.cells[0])]
            assert isinstance(before, Run), "nothing goes on from a stage that failed"
            yield before.name


def _collect(faults: dict[str, Fault], entry: Entry, error: MetierError) -> None:
    """What is wrong with several strategies alike is said of the first."""
    each = error.faults if isinstance(error, FaultsError) else [Fault("", str(error), error.hint or "mend it")]
    for fault in each:
        place = f"strategy {entry.name!r}" + (f": {fault.place}" if fault.place else "")
        faults.setdefault(str(fault), Fault(place, fault.problem, fault.fix))


def _trained(cells: Sequence[Cell], how: How) -> Iterator[tuple[str, Run | MetierError]]:
    with ThreadPoolExecutor(max_workers=how.jobs) as pool:
        futures = {pool.submit(_train, cell, how): cell for cell in cells}
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                yield _key(futures[future]), _result(future.result, f"run {number} of {len(cells)}", how.listen)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            child.stop_all()
            raise


def _result(get: Callable[[], Run], what: str, listen: Listener) -> Run | MetierError:
    try:
        run = get()
    except MetierError as error:
        listen(_note(f"{what}: failed: {error}"))
        return error
    listen(_note(f"{what}: {run.name} is finished"))
    return run


def _train(cell: Cell, how: How) -> Run:
    means: dict[str, Any] = {"offline": how.offline, "on_event": how.listen, "beside_others": how.jobs > 1}
    return how.train(cell.recipe, how.overrides, **means)


def _late(cell: Cell) -> tuple[bool, bool]:
    """What others are compared with comes first, an expert after what knows all domains."""
    return isinstance(cell.recipe.strategy, Tuned), bool(cell.domain)


def _kind(entry: Entry) -> str:
    if entry.layout == "per-domain":
        return "oracle"
    return "base" if entry.base else ""


def _key(cell: Cell) -> str:
    """What tells cells apart before their data is read."""
    return cell.recipe.to_toml()


def _note(text: str) -> Event:
    return Event("note", values={"text": text})
