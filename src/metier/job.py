"""A recipe with everything that its runs read: items, rendered rows, shape. No weight is loaded here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from metier import hub
from metier.data.asking import turns_typed
from metier.data.classes import Head, open_renderer
from metier.data.dataset import Dataset, DomainData, learned, learns, load, unseen
from metier.data.general import General, read_general
from metier.data.items import Item
from metier.data.mappings import explain
from metier.data.mixing import Unit, batches, beside, shares, weighted
from metier.data.rendering import Renderer
from metier.data.replay import Pool, read_replay, rendered
from metier.data.showing import Front, choose_front
from metier.data.units import choose_objective, make_units
from metier.errors import DataError, Fault, MetierError, ModelError, RecipeError
from metier.evaluation.answering import Limits
from metier.evaluation.words import checked
from metier.events import Event, Listener, silent
from metier.memory import Shape
from metier.model.adapters import Identity, Kind, check_foreign
from metier.model.heads import is_encoder
from metier.model.loading import Config, boundary, context, probe, read_config
from metier.model.methods import check_keys
from metier.model.outline import base_shape
from metier.model.trials import count
from metier.planning import resolve
from metier.recipe import Recipe
from metier.run import Run
from metier.stages import merged, run_or_base
from metier.strategies import Foreign, Full, LastN, PeftStrategy, Tuned
from metier.tables import Part, Table, as_text, html
from metier.training.objectives import Objective
from metier.trees import Example, pack

_VALIDATION_LIMIT = 32  # open answers decoded a domain at each validation
_LISTED = 10  # faults that are shown
_SAMPLED_STEPS = 64  # of the first epoch, packed to forecast its length


@dataclass(frozen=True, repr=False)
class Job:
    """A resolved recipe, its data and what its base looks like from outside.

    `units` holds for each domain that is trained on its examples as the objective takes them. `dropped` are those that
    are longer than max_length; `weights` is what its target token counts, or its pair; `front` is what the strategy
    puts in front of questions; `kinds` is what it would train; `seen` are fingerprints of what earlier stages learned
    from; `head` is what the strategy puts on the base.
    """

    recipe: Recipe
    data: Dataset
    source: hub.Source
    renderer: Renderer
    front: Front
    config: Config
    shape: Shape
    units: Mapping[str, Sequence[Unit]]
    dropped: Sequence[Fault]
    target_tokens: Mapping[str, int]
    weights: Mapping[str, float]
    kinds: Sequence[Kind]
    general: General
    replay: Pool
    seen: Mapping[str, Sequence[str]]
    head: Head | None
    own: Objective | None = None

    @cached_property
    def heldout(self) -> list[Item]:
        """The items on which runs are measured, `limit` a domain, with what the strategy shows in front."""
        limit = self.recipe.eval.limit
        return [item for domain in self.data.domains for item in self.shown(domain, domain.heldout[:limit])]

    @cached_property
    def validation(self) -> list[Item]:
        """What every choice is made on: of each domain only so many open answers, which are dear."""
        found: list[Item] = []
        for domain in self.learned:
            limit = _VALIDATION_LIMIT if domain.validation[0].kind == "open" else None
            found += self.shown(domain, domain.validation[:limit])
        return found

    @property
    def learned(self) -> list[DomainData]:
        """The domains that are trained on and chosen by: all of them where nothing is tuned."""
        return learned(self.recipe, self.data)

    def sizes(self, each: DomainData) -> dict[str, int]:
        """How many of a domain's items the strategy uses, and for what."""
        train, validation = (each.train, each.validation) if learns(self.recipe, each) else ((), ())
        sides = {"train": train, "validation": validation, "heldout": each.heldout, "left_out": each.left_out}
        return {side: len(items) for side, items in sides.items()}

    def shown(self, domain: DomainData, items: Sequence[Item]) -> Sequence[Item]:
        """A domain's items as the strategy asks them."""
        return self.front.of(domain.domain.name, items, self.renderer)

    @property
    def limits(self) -> Limits:
        return Limits(self.recipe.train.max_length, self.recipe.eval.max_new_tokens, self.shape.context)

    @property
    def foreign(self) -> Path | None:
        """Where the adapter lies that is measured instead of training one."""
        return _foreign(self.recipe)

    def identity(self) -> Identity:
        return Identity(
            base=self.source.name,
            base_digest=self.source.weights_digest,
            tokenizer_digest=self.renderer.tokenizer_digest,
            template_digest=self.renderer.template_digest,
        )

    def steps(self, first: int | None = None) -> list[list[Unit]]:
        """The units of every optimizer step, or of so many, in the order that seed and epoch give."""
        train = self.recipe.train
        assert not isinstance(train.batch_size, str), "resolved"
        assert not isinstance(train.num_train_epochs, str), "resolved"
        domains = list(self.units.values())
        order = batches([len(units) for units in domains], train.batch_size, train.num_train_epochs, train.seed)
        steps = [[domains[domain][index] for domain, index in batch] for batch in islice(order, first)]
        return [*beside(steps, self.replay.units, train.replay.share)] if train.replay else steps

    def lines(self) -> Iterator[str]:
        """The base, how much it learns from, and what moves."""
        shape = self.shape
        yield f"model    {self.recipe.model}: {shape.parameters / 1e6:,.1f} M parameters, {shape.layers} layers"
        answers = sum(len(unit.rows) for units in self.units.values() for unit in units)
        told = f" with {answers} answers" if answers != shape.examples else ""
        distinct = f"{shape.packed_tokens:,} of them distinct"
        yield f"data     {shape.examples} examples{told}, {shape.row_tokens:,} tokens, {distinct}"
        if not self.source.whole:
            yield f"weights  {hub.to_fetch(self.source, shape.file_bytes)}"
        if self.kinds:
            yield f"moves    {shape.trainable:,} parameters: {', '.join(map(str, self.kinds))}"

    def parts(self) -> Iterator[Part]:
        """What was read from each domain, how it was understood, and what was left out."""
        head = (
            "domain",
            "answers",
            "train",
            "validation",
            "held out",
            "left out",
            "target tokens",
            "share of the loss",
        )
        total = sum(each.domain.weight for each in self.learned)
        yield Table(head, [self._row(each, total) for each in self.data.domains])
        for each in self.data.domains:
            told = [explain(each.domain, each.train), *(f"warning  {warning}" for warning in each.warnings)]
            yield "\n".join(("", each.domain.name, *told))
        yield from (f"warning  {fault}" for fault in self.front.leaks[:_LISTED])
        left_out = [fault for each in self.data.domains for fault in each.left_out]
        faults = [*self.data.notes, *self.replay.left_out, *left_out, *self.dropped]
        more = [f"note  … and {len(faults) - _LISTED} more (--json lists all)"] if len(faults) > _LISTED else []
        yield from (f"note  {fault}" for fault in faults[:_LISTED])
        yield from more

    def _row(self, each: DomainData, total: float) -> tuple[str, ...]:
        name, counts = each.domain.name, self.sizes(each).values()
        share = each.domain.weight / total if name in self.units else 0
        return name, each.heldout[0].kind, *map(str, counts), f"{self.target_tokens[name]:,}", f"{share:.0%}"

    def __repr__(self) -> str:
        return as_text([*self.parts(), *self.lines(), "no faults"])

    def _repr_html_(self) -> str:
        return html([*self.parts(), *self.lines(), "no faults"])


def typed_last(data: DomainData, side: str, most: int | None = None) -> list[str]:
    """What users of a domain typed last, without the template around it, which would give the domain away."""
    return [turns_typed(data.domain, data.columns, item)[-1] for item in getattr(data, side)[:most]]


def prepare(recipe: Recipe, *, offline: bool = False, template: str | None = None, on_event: Listener = silent) -> Job:
    """Read data, tokenizer and the base's shape; resolve the recipe. Raises with every fault of the data at once."""
    if isinstance(recipe.strategy, PeftStrategy):
        check_keys(recipe.strategy)
    if foreign := _foreign(recipe):
        check_foreign(foreign)
    how: dict[str, Any] = {"offline": offline, "listen": on_event}
    data, general, found = _all_of(
        lambda: checked(recipe, load(recipe, **how)),
        lambda: read_general(recipe),
        lambda: run_or_base(recipe.model, recipe.directory, **how),
    )
    seen = found.seen() if isinstance(found, Run) else {"train": [], "validation": []}
    data = unseen(data, seen, recipe.model)
    replay = read_replay(recipe, data, general)
    source = _merged(recipe.model, found, **how) if isinstance(found, Run) else found
    for fault in (*data.skipped, *data.scarce):
        on_event(Event("note", values={"text": f"note  {fault}"}))
    config = read_config(source.directory)
    objective = choose_objective(recipe, {each.domain.name: each.train[0].kind for each in learned(recipe, data)})
    if objective:
        recipe = recipe.override(**{"strategy.objective": objective})
    head = _head(recipe, data, config)
    renderer = open_renderer(source.directory, template, head)
    longest = min(context(config), renderer.tokenizer.model_max_length if head and head.encoder else 1 << 20)
    recipe = recipe.override(**{"train.max_length": min(recipe.train.max_length, longest)})
    front = _front(recipe, data, renderer, on_event)
    units, dropped = _render(recipe, data, renderer, front)
    tokens = {each.domain.name: sum(map(_learned_in, units.get(each.domain.name, ()))) for each in data.domains}
    weights = _weights(recipe, units, tokens)
    units = {name: [weighted(unit, weights[name], _paired(recipe)) for unit in each] for name, each in units.items()}
    job = Job(
        recipe=recipe,
        data=data,
        source=source,
        renderer=renderer,
        front=front,
        config=config,
        shape=dataclasses.replace(base_shape(source, config, recipe.strategy, foreign, head), context=longest),
        units=units,
        dropped=dropped,
        target_tokens=tokens,
        weights=weights,
        kinds=(),
        replay=rendered(replay, renderer, recipe.train.max_length),
        general=General() if head else general,  # no language model is left that could read them
        seen=seen,
        head=head,
    )
    return _with_shape(job)


def _merged(name: str, found: Run, **how: Any) -> hub.Source:
    """The base with what an earlier stage trained in it; raises `ModelError` where that was a head."""
    if getattr(found.recipe().strategy, "objective", "") == "classify":
        raise ModelError(f"model: {name}: its head tells labels apart; no language model goes on from there")
    return merged(name, found, **how)


def _head(recipe: Recipe, data: Dataset, config: Config) -> Head | None:
    """The head that the recipe asks for. Raises `ModelError` where a base without one could do nothing, and
    `RecipeError` where a domain would be asked of a head that never learned its labels."""
    classifies = isinstance(recipe.strategy, Tuned) and recipe.strategy.objective == "classify"
    if not classifies:
        probe(config)
        return None
    if names := [each.domain.name for each in data.domains if not each.domain.trained]:
        problem = "is false, but a head can only answer with labels that it was trained on"
        fix = "take the domain out, or choose another objective"
        raise RecipeError(str(recipe.path), [Fault(f"domain {name}: trained", problem, fix) for name in names])
    return Head({each.domain.name: each.train[0].replies for each in data.domains}, is_encoder(config))


def _all_of(
    one: Callable[[], Dataset], two: Callable[[], General], three: Callable[[], hub.Source | Run]
) -> tuple[Dataset, General, hub.Source | Run]:
    """All three, or the complaints of all together."""
    found: list[Any] = []
    complaints: list[MetierError] = []
    for work in (one, two, three):
        try:
            found.append(work())
        except MetierError as error:
            complaints.append(error)
    if len(complaints) > 1:
        raise MetierError("\n".join(map(str, complaints)), complaints[0].hint)
    if complaints:
        raise complaints[0]
    return found[0], found[1], found[2]


def _foreign(recipe: Recipe) -> Path | None:
    return recipe.directory / recipe.strategy.adapter if isinstance(recipe.strategy, Foreign) else None


def _front(recipe: Recipe, data: Dataset, renderer: Renderer, listen: Listener) -> Front:
    front = choose_front(recipe, data, renderer)
    for fault in front.leaks[:_LISTED]:
        listen(Event("note", values={"text": f"warning: {fault}"}))
    return front


def _render(
    recipe: Recipe, data: Dataset, renderer: Renderer, front: Front
) -> tuple[dict[str, list[Unit]], list[Fault]]:
    """Training examples by domain; one with a row over max_length is dropped and listed, never cut."""
    objective = recipe.strategy.objective if isinstance(recipe.strategy, Tuned) else "sft"
    assert objective != "auto", "chosen by now"
    units: dict[str, list[Unit]] = {}
    dropped: list[Fault] = []
    for domain in learned(recipe, data):
        items = front.of(domain.domain.name, domain.train, renderer)
        units[domain.domain.name], long = make_units(items, renderer, objective, recipe.train.max_length)
        dropped += long
        if not units[domain.domain.name]:
            fix = f"raise train.max_length (now {recipe.train.max_length}) or shorten the rows"
            raise DataError(
                str(recipe.path), [Fault(f"domain {domain.domain.name}", "has no row left to train on", fix)]
            )
    return units, dropped


def _weights(recipe: Recipe, units: Mapping[str, Sequence[Unit]], tokens: Mapping[str, int]) -> dict[str, float]:
    """What a target token of each domain counts, or a pair."""
    counts = {name: len(each) if _paired(recipe) else tokens[name] for name, each in units.items()}
    return shares(counts, {domain.name: domain.weight for domain in recipe.domain})


def _paired(recipe: Recipe) -> bool:
    """Whether the loss compares whole log-probabilities, of which a batch must not part those of a unit."""
    return isinstance(recipe.strategy, Tuned) and recipe.strategy.objective in ("dpo", "kto")


def _targets(row: Example) -> int:
    return sum(weight > 0 for weight in row.weights)


def _learned_in(unit: Unit) -> int:
    return sum(map(_targets, unit.rows))


def _with_shape(job: Job) -> Job:
    """Add the data's lengths, resolve the recipe by them, and count what its strategy trains."""
    units = [unit for each in job.units.values() for unit in each]
    rows = [row for unit in units for row in unit.rows]
    shape = dataclasses.replace(
        job.shape,
        examples=sum(map(len, job.units.values())),
        row_tokens=sum(len(row.tokens) for row in rows),
        targets=sum(map(_targets, rows)),
        longest_row=max(len(row.tokens) for row in rows),
        longest_unit=max(unit.tokens for unit in units) if _paired(job.recipe) else 0,
        decoded_items=sum(item.kind == "open" for item in job.heldout),
        general_tokens=_general(job),
        scored_tokens=_scored(job, job.heldout),
        validation_items=sum(item.kind == "open" for item in job.validation),
        validation_tokens=_scored(job, job.validation),
        answer_tokens=_long_answer(job),
    )
    recipe = resolve(job.recipe, shape)
    kinds: Sequence[Kind] = ()
    if isinstance(recipe.strategy, Tuned):
        kinds = count(job.config, recipe.strategy, job.head)
    trained = sum(kind.parameters for kind in kinds)
    doubled = getattr(getattr(recipe.strategy, "peft", None), "begins_in_the_weights", False)
    shape = dataclasses.replace(
        shape,
        trainable=trained,
        whole=isinstance(recipe.strategy, Full | LastN),
        frozen=shape.frozen or (trained if doubled else 0),
    )
    resolved = dataclasses.replace(job, recipe=recipe, shape=shape, kinds=kinds)
    return dataclasses.replace(resolved, shape=dataclasses.replace(shape, **_packed(resolved)))


def _general(job: Job) -> int:
    """Tokens that are read to see what was forgotten."""
    passages = (*job.general.heldout, *job.general.validation)
    return sum(len(job.renderer.passage(each.text).tokens) for each in passages) + _scored(job, job.general.choices)


def _scored(job: Job, items: Sequence[Item]) -> int:
    """Distinct tokens that are read to score the items."""
    rows = [row for item in items for row in job.renderer.rows(item, job.recipe.train.max_length)]
    return sum(map(len, pack(rows, 2048, fork=job.shape.forks))) if rows else 0


def _long_answer(job: Job) -> int:
    """Tokens than which one trained open answer in twenty is longer."""
    decoded = [each.domain.name for each in job.learned if each.heldout[0].kind == "open"]
    lengths = sorted(_targets(row) for name in decoded for unit in job.units[name] for row in unit.rows)
    return lengths[19 * len(lengths) // 20] if lengths else 0


def _packed(job: Job) -> dict[str, Any]:
    """Tokens of one epoch and of the largest step, and what replay adds, extrapolated from the first steps."""
    steps = job.steps(_SAMPLED_STEPS)
    limit = boundary(job.config)
    batches = [[row for unit in units for row in unit.rows] for units in steps]
    sizes = [sum(map(len, pack(rows, 1 << 30, fork=job.shape.forks, boundary=limit))) for rows in batches]
    replayed, own = (
        sum(len(row.tokens) for units in steps for unit in units if unit.replay is side for row in unit.rows)
        for side in (True, False)
    )
    epoch, train = job.shape.row_tokens / own, job.recipe.train
    return {
        "packed_tokens": round(sum(sizes) * epoch),
        "largest_step": max(sizes),
        "compared_tokens": round(replayed * epoch) if train.kl else 0,
        "replay_items": len(job.replay.items) if train.replay and train.replay.answers == "base" else 0,
    }
