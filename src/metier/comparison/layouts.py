"""Experts put together: routed by a classifier, by the base itself, or merged into one adapter.

An expert is tuned on one domain and measured on all, so that a route needs no answer that is not there already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Self

from metier.artifacts.merging import MERGED, Merge, merge_adapters
from metier.data.prompts import Prompt, read_prompts
from metier.errors import Fault, RecipeError
from metier.evaluation.answering import Limits
from metier.evaluation.lines import Line, Runs, Source
from metier.evaluation.routing import WORDING, by_base
from metier.events import Listener
from metier.files import digest, read_json, verify, write_json
from metier.grid import Cell, Comparison, Entry
from metier.inference.loaded import open_run
from metier.job import Job, prepare, typed_last
from metier.model.adapters import foreign_digest
from metier.model.loading import NumberFormat, load
from metier.recipe import Recipe
from metier.routing import Route, Router
from metier.run import Run
from metier.stages import find_base
from metier.strategies import LoraStrategy, QloraStrategy

MERGES: tuple[Merge, ...] = ("linear", "ties", "cat")
_ROUTES = 2  # counts ways of fitting and keeping: routes of another are not taken for those of this one
_ROUTERS = {"router": "routed", "base-router": "routed by the base"}


@dataclass(frozen=True)
class Experts:
    """A line of experts, what stands in where a router abstains (by seed), and the untuned base's run."""

    line: Line
    entry: Entry
    instead: Mapping[int, str]
    base: str


@dataclass(frozen=True)
class Routing:
    """Where one router sent every held-out item, by domain and id, and every hard prompt; for one seed."""

    line: str
    kind: str
    seed: int
    threshold: float
    items: Mapping[str, Mapping[str, Route]]
    prompts: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(**value)


def find_experts(entries: Sequence[Entry], lines: Sequence[Line]) -> Iterator[Experts]:
    """Every line that has experts of all domains."""
    by_name = {(entry.name, entry.rows): entry for entry in entries}
    for line in lines:
        if line.kind != "oracle" or line.failed:
            continue
        alike = [each for each in lines if each.model == line.model and not each.failed]
        base = next((each.sources[0].run for each in alike if each.kind == "base"), "")
        if not base:  # nobody would answer what a router does not send anywhere
            continue
        shared = (each for each in alike if (each.arm, each.layout, each.rows) == (line.arm, "shared", line.rows))
        runs = {source.seed: source.run for each in shared for source in each.sources}
        instead = {source.seed: runs.get(source.seed, base) for source in line.sources}
        yield Experts(line, by_name[line.name, line.rows], instead, base)


def route(
    experts: Experts, comparison: Comparison, runs: Runs, *, offline: bool, listen: Listener
) -> Iterator[tuple[Line, list[Routing]]]:
    """A line for each router in front of the experts, and where it sent what."""
    recipes = {cell.seed: cell.recipe for cell in experts.entry.cells}
    found: dict[str, list[tuple[Routing, float]]] = {kind: [] for kind in _ROUTERS}
    for source in experts.line.sources:
        asked = _Asked.of(prepare(recipes[source.seed], offline=offline), comparison)
        base = runs.run(experts.base)
        sent = {
            "router": _by_router(asked, runs.folder),
            "base-router": _by_base(base, asked, runs.folder, offline=offline, listen=listen),
        }
        for kind, each in sent.items():
            found[kind].append((asked.routing(kind, source.seed, each), each.seconds))
    for kind, routings in found.items():
        name = f"{experts.line.name}, {_ROUTERS[kind]}"
        pairs = zip(experts.line.sources, routings, strict=True)
        sources = tuple(_sent(source, each, experts.instead[source.seed], took) for source, (each, took) in pairs)
        yield (
            replace(experts.line, name=name, kind=kind, sources=sources),
            [replace(each, line=name) for each, _ in routings],
        )


def merged(experts: Experts, runs: Runs, *, offline: bool) -> Iterator[Entry]:
    """An entry for each way of merging the experts, whose runs measure the merged adapter; none but of LoRA."""
    entry = experts.entry
    if not mergeable(entry):
        return
    recipes = {cell.seed: cell.recipe for cell in entry.cells}
    for kind in MERGES:
        cells = [
            Cell(_measuring(recipes[source.seed], _merge(runs, source, kind, offline=offline)), source.seed)
            for source in experts.line.sources
        ]
        yield replace(entry, name=f"{entry.name}, merged ({kind})", layout="shared", cells=tuple(cells))


def mergeable(entry: Entry) -> bool:
    """Whether its experts can be made one adapter."""
    return entry.layout == "per-domain" and isinstance(entry.recipe.strategy, LoraStrategy | QloraStrategy)


@dataclass(frozen=True)
class _Asked:
    """What is routed: the held-out items' (domain, id) with what was typed, and the hard prompts."""

    job: Job
    known: Mapping[str, Mapping[str, Sequence[str]]]
    items: Sequence[tuple[str, str]]
    prompts: Sequence[Prompt]
    texts: Sequence[str]

    @classmethod
    def of(cls, job: Job, comparison: Comparison) -> Self:
        limit = job.recipe.eval.limit
        cut = {"train": None, "validation": None, "heldout": limit}
        known = {
            side: {each.domain.name: typed_last(each, side, last) for each in job.data.domains}
            for side, last in cut.items()
        }
        items = [(each.domain.name, item.id) for each in job.data.domains for item in each.heldout[:limit]]
        prompts = _of_present(read_hard(comparison, job.recipe), [each.domain.name for each in job.data.domains])
        texts = [text for each in known["heldout"].values() for text in each] + [each.turns[-1] for each in prompts]
        return cls(job, known, items, prompts, texts)

    def routing(self, kind: str, seed: int, found: _Sent) -> Routing:
        items: dict[str, dict[str, Route]] = {}
        for (domain, name), sent in zip(self.items, found.routes, strict=False):
            items.setdefault(domain, {})[name] = sent
        rest = zip(self.prompts, found.routes[len(self.items) :], strict=True)
        prompts = [
            {"kind": each.kind, "domain": each.domain, "allowed": list(each.allowed), "sent": sent, "share": share}
            for each, (sent, share) in rest
        ]
        return Routing("", kind, seed, found.threshold, items, prompts)


@dataclass(frozen=True)
class _Sent:
    """Where a router sent all texts, in their order, which took `seconds` for a thousand of them."""

    routes: Sequence[Route]
    threshold: float
    seconds: float

    @classmethod
    def timed(cls, threshold: float, texts: Sequence[str], send: Callable[[Sequence[str]], Sequence[Route]]) -> Self:
        begun = time.monotonic()
        routes = send(texts)
        return cls(routes, threshold, 1000 * (time.monotonic() - begun) / max(1, len(texts)))

    @classmethod
    def kept(cls, path: Path, make: Callable[[], Self]) -> Self:
        """What the file has; made where it is not there yet, so that a second look gives the same times too."""
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_json(path, asdict(make()))
        found = cls(**read_json(path))
        return replace(found, routes=[(sent, share) for sent, share in found.routes])


def read_hard(comparison: Comparison, recipe: Recipe) -> list[Prompt]:
    """The hard prompts, if there are any. Raises `FaultsError` with every fault of their file."""
    path = comparison.prompts_path
    if path and not path.exists():
        fault = Fault("prompts", f"{comparison.prompts} does not exist", "name a file of prompts, or sample:routing")
        raise RecipeError(str(comparison.path), [fault])
    return read_prompts(path, [domain.name for domain in recipe.domain]) if path else []


def _of_present(prompts: Sequence[Prompt], domains: Sequence[str]) -> list[Prompt]:
    """Without those of domains whose data is absent."""
    kept = (replace(each, allowed=tuple(name for name in each.allowed if name in domains)) for each in prompts)
    return [each for each in kept if each.domain in domains]


def _sent(source: Source, routing: Routing, instead: str, seconds: float) -> Source:
    """The expert's run of the domain that each item was sent to, or what stands in."""
    items = {
        domain: {name: source.domains[sent] if sent else instead for name, (sent, _) in routes.items()}
        for domain, routes in routing.items.items()
    }
    return replace(source, run=instead, items=items, routing=seconds)


def _by_router(asked: _Asked, folder: Path) -> _Sent:
    """Where a classifier sends the texts that was fitted on the training rows."""
    train, validation = asked.known["train"], asked.known["validation"]

    def make() -> _Sent:
        router = Router.fit(train).cautious(validation)
        return _Sent.timed(router.threshold, asked.texts, router.route)

    return _Sent.kept(folder / "routes" / f"router-{digest([_ROUTES, train, validation, asked.texts])[:10]}.json", make)


def _by_base(base: Run, asked: _Asked, folder: Path, *, offline: bool, listen: Listener) -> _Sent:
    """Where the untuned base sends the texts, which takes a forward each."""
    domains = [each.domain.name for each in asked.job.data.domains]
    what = [_ROUTES, WORDING, domains, list(asked.texts), asked.job.limits.max_length]

    def make() -> _Sent:
        loaded = open_run(base, offline=offline, listen=listen)
        engine, limits = loaded.engine(), Limits(asked.job.limits.max_length, 1, loaded.context)
        send = partial(by_base, engine, loaded.renderer, domains=domains, limits=limits, listen=listen)
        return _Sent.timed(0.0, asked.texts, send)

    return _Sent.kept(folder / "routes" / f"{base.name}-{digest(what)[:10]}.json", make)


def _merge_folder(runs: Runs, source: Source, kind: Merge) -> Path:
    what = [MERGED, kind, *(foreign_digest(runs.run(name).adapter) for name in source.domains.values())]
    return runs.folder / "merged" / f"{kind}-{digest(what)[:10]}"


def _merge(runs: Runs, source: Source, kind: Merge, *, offline: bool) -> Path:
    """The folder of the merged adapter; made where it is not there yet."""
    names, to = [*source.domains.values()], _merge_folder(runs, source, kind)
    if not (to.is_dir() and verify(to)):
        recipe = runs.run(names[0]).recipe()
        base = find_base(recipe.model, recipe.directory, offline=offline)
        network = load(base.directory, NumberFormat("float32", "float32"), "cpu", why_rows="not needed").network
        to.parent.mkdir(exist_ok=True)
        merge_adapters([runs.run(name).adapter for name in names], network, kind, to)
    return to


def _measuring(recipe: Recipe, adapter: Path) -> Recipe:
    """The recipe that measures an adapter on every domain."""
    return recipe.override(strategy={"method": "adapter", "adapter": str(adapter.resolve())})


def measured_merges(experts: Line, entry: Entry, runs: Runs) -> Iterator[Cell | None]:
    """What would measure each merge of experts that are all there; None of one that was never made."""
    recipes = {cell.seed: cell.recipe for cell in entry.cells}
    for source, kind in product(experts.sources, MERGES):
        folder = _merge_folder(runs, source, kind)
        made = folder.is_dir() and verify(folder)
        yield Cell(_measuring(recipes[source.seed], folder), source.seed) if made else None
