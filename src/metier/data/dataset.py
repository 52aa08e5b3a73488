"""A recipe → its data: every domain read, completed, made into items and split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from metier.data import online
from metier.data.asking import asked_columns
from metier.data.checks import few, warnings
from metier.data.conversations import Note
from metier.data.guessing import complete
from metier.data.items import Item, fingerprint, make_items
from metier.data.mappings import unused
from metier.data.online import Online
from metier.data.sources import EXPLODED, Row, as_prose, columns_of, of_rows, read_ids, read_rows, show
from metier.data.splitting import Remembered, apart, fewer, split
from metier.domain import Domain, Listed
from metier.errors import AbsentError, DataError, Fault
from metier.events import Listener, silent
from metier.files import digest, read_json, write_json
from metier.recipe import Recipe
from metier.strategies import Tuned

_FORMAT = 1
_NO_MATTER = "the recipe goes on with its other domains"
_SIDES = ("heldout", "validation", "train")
_KEYS = {"heldout", "validation", *(f"{side}_ids" for side in _SIDES)}


@dataclass(frozen=True)
class DomainData:
    """The items of one domain, whose mapping is complete; `left_out` would have leaked."""

    domain: Domain
    train: tuple[Item, ...]
    validation: tuple[Item, ...]
    heldout: tuple[Item, ...]
    left_out: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    revisions: Mapping[str, str] = field(default_factory=dict)  # data set of the hub → the commit that was read
    columns: tuple[str, ...] = ()  # out of which its questions are made
    unused: tuple[str, ...] = ()  # columns of which the mapping takes nothing
    spare: Mapping[str, tuple[Item, ...]] = field(default_factory=dict)  # by side, what `train.rows` leaves aside

    def limited(self, rows: int | float, seed: int) -> DomainData:
        """With so many rows to learn from, validation keeping its share of them; what is held out stays."""
        known = len(self.train) + len(self.validation)
        count = min(rows, known) if isinstance(rows, int) else max(2, round(rows * known))
        if count >= known:
            return self
        cut = max(1, round(count * len(self.validation) / known))
        train, validation = fewer(self.train, count - cut, seed), fewer(self.validation, cut, seed)
        ids = {item.id for item in (*train, *validation)}
        sides = {"train": self.train, "validation": self.validation}
        spare = {side: tuple(item for item in items if item.id not in ids) for side, items in sides.items()}
        return replace(self, train=train, validation=validation, spare=spare)


@dataclass(frozen=True)
class Dataset:
    """What a recipe trains and is measured on; `notes` tell what of the files is not used, `skipped` which
    optional domains are absent, `scarce` which have fewer rows than were asked for."""

    domains: tuple[DomainData, ...]
    notes: tuple[Fault, ...]
    skipped: tuple[Fault, ...] = ()
    scarce: tuple[Fault, ...] = ()

    @cached_property
    def heldout_hash(self) -> str:
        """The same for the same held-out items, whatever the file's kind; and whatever its order, but where
        one prompt has several answers, which are told apart by their order."""
        return digest([[each.domain.name, _facts(each.heldout)] for each in self.domains])

    @cached_property
    def train_hash(self) -> str:
        """Likewise for training and validation items."""
        return digest([[each.domain.name, _facts(each.train), _facts(each.validation)] for each in self.domains])


def learns(recipe: Recipe, data: DomainData) -> bool:
    """Whether a domain is trained on and chosen by; each one counts where nothing is tuned."""
    return data.domain.trained or not isinstance(recipe.strategy, Tuned)


def learned(recipe: Recipe, data: Dataset) -> list[DomainData]:
    """The domains that are. Raises `AbsentError` where those of the recipe are all absent."""
    found = [each for each in data.domains if learns(recipe, each)]
    if not found:
        fault = Fault("domain", "none that is there is trained on", "give the data of one that is at least")
        raise AbsentError(str(recipe.path), [fault])
    return found


Reader = Callable[[Domain, Path | Online, list[Fault]], list[Row]]
"""What gives the rows of a place that a domain names: `read_rows`, or `once` for the same rows again."""


def once() -> Reader:
    """A reader for recipes that differ in their instructions alone: each file is read and parsed once."""
    known: dict[tuple[str, Path | Online], list[Row]] = {}

    def read(domain: Domain, path: Path | Online, collect: list[Fault]) -> list[Row]:
        if (domain.name, path) not in known:
            known[domain.name, path] = read_rows(domain, path, collect)
        return known[domain.name, path]

    return read


def load(recipe: Recipe, *, offline: bool = False, listen: Listener = silent, read: Reader = read_rows) -> Dataset:
    """Everything that a run reads. Raises `DataError` with the faults of all domains.

    The split is drawn once: what `remember` wrote beside the recipe is reused.
    """
    memory = _read_memory(recipe)
    domains: list[DomainData] = []
    found = _Found()
    notes: list[Fault] = []
    skipped: list[Fault] = []
    scarce: list[Fault] = []
    for domain in recipe.domain:
        with found.collecting():
            try:
                places = _places(recipe, domain, offline, listen)
            except DataError as error:
                if not domain.optional:
                    raise
                skipped.append(Fault(f"domain {domain.name}", f"is skipped: {error.faults[0]}", _NO_MATTER))
                continue
            domains.append(_load(recipe, domain, places, memory.get(domain.name, {}), notes.append, read))
    if not domains and not found.faults:
        found.faults += [replace(fault, fix="give the data of one domain at least") for fault in skipped]
    if not found.faults:
        domains = [_apart_from_others(each, domains) for each in domains]
        scarce = [fault for each in domains for fault in _scarce(each, recipe.train.rows)]
        domains = [each.limited(recipe.train.rows, recipe.train.seed) for each in domains]
        found.faults += [fault for each in domains for fault in _emptied(each)]
    found.told(recipe)
    return Dataset(tuple(domains), tuple(notes), tuple(skipped), tuple(scarce))


@dataclass
class _Found:
    """Faults that are gathered instead of ending the work, with what may help against them."""

    faults: list[Fault] = field(default_factory=list)
    hint: str = ""

    @contextmanager
    def collecting(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            self.faults.extend(error.faults)
            self.hint = self.hint or error.hint

    def skipped(self, domain: Domain) -> list[Fault]:
        """Those of single rows, which such a domain leaves out; the others stay."""
        alone = [fault for fault in self.faults if domain.skip_faulty and of_rows([fault])]
        self.faults = [fault for fault in self.faults if not (domain.skip_faulty and of_rows([fault]))]
        return alone

    def told(self, recipe: Recipe) -> None:
        """Raises `DataError` with all of them, if there are any."""
        if self.faults:
            raise DataError(str(recipe.path), list(dict.fromkeys(self.faults)), self.hint)


def _places(recipe: Recipe, domain: Domain, offline: bool, listen: Listener) -> dict[str, Path | Online]:
    """Where everything lies that a domain names. Raises `DataError` for what is not to be had."""
    names = [domain.data, domain.heldout, domain.validation]
    names += [domain.heldout.ids] if isinstance(domain.heldout, Listed) else []
    places: dict[str, Path | Online] = {}
    for name in (each for each in names if isinstance(each, str)):
        if name.startswith(online.PREFIX):
            places[name] = online.find(name, offline=offline, listen=listen)
        else:
            places[name] = path = recipe.data_path(name)
            if domain.optional and not path.exists():
                raise DataError(show(path), [Fault(show(path), "does not exist", "put it there")])
    return places


def _load(
    recipe: Recipe,
    domain: Domain,
    places: Mapping[str, Path | Online],
    memory: Mapping[str, Any],
    note: Note,
    read: Reader,
) -> DomainData:
    found = _Found()
    items: list[Item] = []
    columns: tuple[str, ...] = ()
    unused_columns: tuple[str, ...] = ()
    files: dict[str, list[Item]] = {}
    if domain.instructions:  # until one is chosen
        domain = domain.model_copy(update={"instruction": domain.instructions[0]})
    domain = as_prose(domain, recipe.data_path(domain.data))
    if domain.explode and domain.group is None:
        domain = domain.model_copy(update={"group": EXPLODED})
    if domain.versions and not isinstance(domain.heldout, str):
        domain = domain.model_copy(update={"group": domain.versions.of})
    with found.collecting():
        rows = read(domain, places[domain.data], found.faults)
        unread = found.skipped(domain)
        domain = complete(domain, rows)
        columns = asked_columns(domain, columns_of(rows))
        items = make_items(_as_in(domain, "data"), rows, note, unread)
        unused_columns = tuple(unused(domain, columns_of(rows)))
    for side in ("heldout", "validation"):
        name = getattr(domain, side)
        if isinstance(name, str):
            with found.collecting():
                rows = read(domain, places[name], found.faults)
                unread = found.skipped(domain)
                files[side] = make_items(_as_in(domain, side), rows, note, unread) if items else []
    if domain.versions and domain.group not in (None, domain.versions.of):  # whose groups are others, whatever called
        files["heldout"] = [
            replace(each, group=f"{each.group} ({domain.versions.of})") for each in files.get("heldout", [])
        ]
    found.told(recipe)
    if isinstance(domain.heldout, Listed):
        files["heldout"], items = _listed(domain, items, recipe.data_path(domain.heldout.ids))
    drawn = split(domain, items, files.get("heldout"), files.get("validation"), _remembered(domain, memory))
    everything = [*drawn.train, *drawn.validation, *drawn.heldout]
    told = (*warnings(domain, everything), *few(domain, drawn.heldout, drawn.validation))
    revisions = {name: place.revision for name, place in places.items() if isinstance(place, Online)}
    sides = (drawn.train, drawn.validation, drawn.heldout, drawn.left_out)
    return DomainData(domain, *sides, told, revisions, columns, unused_columns)


def _as_in(domain: Domain, side: str) -> Domain:
    """The mapping of a side's file. Where what is held out has its own, that alone tells whom a text names."""
    if not (domain.versions and isinstance(domain.heldout, str)):
        return domain
    return domain.model_copy(update={"group": domain.versions.of} if side == "heldout" else {"versions": None})


def _listed(domain: Domain, items: Sequence[Item], path: Path) -> tuple[list[Item], list[Item]]:
    """The items whose row's id is in the list, and the others."""
    assert isinstance(domain.heldout, Listed)
    if domain.id is None:
        fault = Fault(f"domain {domain.name}: heldout.ids", "the rows have no ids", 'name their column: id = "…"')
        raise DataError(f"domain {domain.name}", [fault])
    ids = read_ids(path)
    held = [item for item in items if item.id.partition("/")[0] in ids]
    if absent := ids - {item.id.partition("/")[0] for item in held}:
        problem = f"lists {len(absent)} ids that no row has, {min(absent)!r} among them"
        raise DataError(show(path), [Fault(show(path), problem, "give the list that belongs to these rows")])
    chosen = {item.id for item in held}
    return held, [item for item in items if item.id not in chosen]


def _apart_from_others(data: DomainData, domains: Sequence[DomainData]) -> DomainData:
    """Without training items that another domain measures on, or chooses by."""
    others = [each for each in domains if each.domain.name != data.domain.name]
    heldout = [item for each in others for item in each.heldout]
    validation = [item for each in others if each.domain.trained for item in each.validation]
    kept, late = apart(data.validation, heldout, ("held-out", "validation"))
    train, first = apart(data.train, heldout, ("held-out", "training"))
    train, second = apart(train, validation, ("validation", "training"))
    left_out = (*data.left_out, *late, *first, *second)
    return replace(data, train=tuple(train), validation=tuple(kept), left_out=left_out)


def unseen(data: Dataset, seen: Mapping[str, Collection[str]], by: str) -> Dataset:
    """Without held-out items that an earlier stage learned from or chose by, and validation items that it learned.

    `seen` has fingerprints under "train" and "validation". Raises `DataError` where a side is left empty.
    """
    strange = {"heldout": {*seen["train"], *seen["validation"]}, "validation": {*seen["train"]}}
    domains = []
    for each in data.domains:
        kept: dict[str, tuple[Item, ...]] = {}
        left_out = list(each.left_out)
        for side, known in strange.items():
            items: tuple[Item, ...] = getattr(each, side)
            kept[side] = tuple(item for item in items if fingerprint(item) not in known)
            late = (item for item in items if fingerprint(item) in known)
            left_out += [Fault(item.place, f"was learned by {by}", f"left out of {side}") for item in late]
        heldout, validation = kept["heldout"], kept["validation"]
        domains.append(replace(each, heldout=heldout, validation=validation, left_out=tuple(left_out)))
    if emptied := [each.domain.name for each in domains if not (each.heldout and each.validation)]:
        problem = f"all that is held out or validated on was learned by {by}"
        fix = "give this stage other rows, or the same heldout and validation as that one had"
        raise DataError(by, [Fault(f"domain {name}", problem, fix) for name in emptied])
    return replace(data, domains=tuple(domains))


def _scarce(data: DomainData, rows: int | float) -> Iterator[Fault]:
    if isinstance(rows, int) and rows > (there := len(data.train) + len(data.validation)):
        yield Fault(f"domain {data.domain.name}", f"has {there} rows to learn from, train.rows = {rows}", "takes all")


def _emptied(data: DomainData) -> Iterator[Fault]:
    if not (data.train and data.validation):
        problem = "has only rows that another domain holds out or validates on"
        yield Fault(f"domain {data.domain.name}", problem, "give the domains different rows")


def _facts(items: Sequence[Item]) -> list[Any]:
    """What makes up the items, in an order of its own."""
    return sorted(
        [
            item.id,
            [[each.role, each.content] for each in item.messages],
            item.replies,
            item.answer,
            item.group,
            item.options,
            item.liked,
            *([astuple(item.version)] if item.version else []),  # without them as before there were any
            *([item.task, item.tests] if item.task != "support" else []),  # as runs were keyed before there were tasks
        ]
        for item in items
    )


def _memory_path(recipe: Recipe) -> Path:
    return recipe.directory / f"{recipe.path.stem}.split.json"


def _read_memory(recipe: Recipe) -> dict[str, Any]:
    """What `remember` wrote, by domain."""
    path = _memory_path(recipe)
    if not path.exists():
        return {}
    try:
        content = read_json(path)
        domains: dict[str, Any] = dict(content["domains"])
        if content["format"] == _FORMAT and all(set(entry) >= _KEYS for entry in domains.values()):
            return domains
    except (ValueError, KeyError, TypeError):
        pass
    fault = Fault(str(path), "is no split of this version", "restore it, or remove it to draw the split anew")
    raise DataError(str(path), [fault])


def _remembered(domain: Domain, memory: Mapping[str, Any]) -> Remembered:
    """Who was drawn before, as far as the recipe still asks for the same."""
    spec = _spec(domain)
    if memory.get("heldout") != spec["heldout"]:
        return Remembered()
    trained, validated = dict.fromkeys(memory["train_ids"], False), memory["validation_ids"]
    heldout = dict.fromkeys(memory["heldout_ids"], True) | dict.fromkeys(validated, False) | trained
    if memory["validation"] != spec["validation"]:
        return Remembered(heldout)
    return Remembered(heldout, dict.fromkeys(validated, True) | trained)


def remember(recipe: Recipe, data: Dataset) -> None:
    """Write who is on which side; domains that are not in the recipe now keep what they had."""
    memory = _read_memory(recipe)
    drawn = {
        each.domain.name: _spec(each.domain)
        | {f"{side}_ids": sorted(item.id for item in _drawn(each, side)) for side in _SIDES}
        for each in data.domains
    }
    if memory | drawn != memory:
        write_json(_memory_path(recipe), {"format": _FORMAT, "domains": memory | drawn})


def _drawn(data: DomainData, side: str) -> tuple[Item, ...]:
    items: tuple[Item, ...] = getattr(data, side)
    return (*items, *data.spare.get(side, ()))


def _spec(domain: Domain) -> dict[str, Any]:
    """What the recipe says of the split, as JSON has it."""
    return domain.model_dump(mode="json", include={"heldout", "validation"})
