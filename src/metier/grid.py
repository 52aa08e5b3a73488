"""What a comparison means: strategies, by name and difference, times models, seeds, rows and layouts → recipes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from metier.domain import Name, Strict, faults_of
from metier.errors import Fault, RecipeError
from metier.keys import override_keys, read_toml, tuples
from metier.recipe import Recipe, Rows, sample
from metier.strategies import MODELLESS, Classical, LoraStrategy, QloraStrategy, Tuned

Layout = Literal["shared", "one-set", "per-domain"]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Factor = Annotated[float, Field(gt=0)]

BASE, CLASSICAL = "untuned base", "classical baseline"  # what is always measured, where no strategy names it
_RANK = 16  # of experts, where it is left to us
_TABLES = ("train", "eval", "domain")  # of a recipe, that a difference may change


def is_comparison(path: Path) -> bool:
    """Whether a file names a recipe or has `[[strategy]]`. Where it cannot be read, whoever opens it says why."""
    try:
        raw = read_toml(path)
    except (OSError, RecipeError):
        return False
    return isinstance(raw.get("strategy"), list) or isinstance(raw.get("recipe"), str)


class Axes(Strict):
    """What a strategy is multiplied by; written in front for all of them, or in a `[[strategy]]` for it alone."""

    models: tuple[Name, ...] = Field((), description="bases side by side; the recipe's own without it")
    seeds: tuple[Seed, ...] = Field((), description="of training and of the examples shown; the mean is what counts")
    rows: tuple[Rows, ...] = Field((), description="examples a domain to learn from: counts, or shares of all")
    sweep: tuple[Factor, ...] = Field((), description="factors of the learning rate, of which validation chooses one")
    layout: tuple[Layout, ...] = Field(
        (), description="shared: one adapter for all domains; one-set: tuned on each alone; per-domain: experts"
    )

    @field_validator("models", "seeds", "rows", "sweep", "layout", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        """Each value once, for a second line of the same runs would count in every correction."""
        if isinstance(value, str | int | float):
            return (value,)
        hashable = isinstance(value, tuple) and all(isinstance(each, str | int | float) for each in value)
        return tuple(dict.fromkeys(value)) if hashable else value


class Arm(Axes):
    """A strategy: its name, its axes, and in what its recipe differs (keys of [strategy], train, eval, domain)."""

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(min_length=1, max_length=60)] = Field(description="of its line in the table")
    after: Name | None = Field(None, description="a recipe whose run is the base that it goes on from")
    peft: Mapping[str, Any] = Field(default_factory=dict, description="what it changes in [strategy.peft]")
    train: Mapping[str, Any] = Field(default_factory=dict, description="what it changes in [train]")
    eval: Mapping[str, Any] = Field(default_factory=dict, description="what it changes in [eval]")
    domain: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="what it changes in a [[domain]], by name: domain.bank.weight = 2"
    )

    @property
    def difference(self) -> Mapping[str, Any]:
        tables = {name: getattr(self, name) for name in ("peft", *_TABLES) if getattr(self, name)}
        return {**(self.model_extra or {}), **tables}


class Comparison(Axes):
    """Strategies on one recipe's data; what it writes lies in comparisons/ beside it, its runs beside the recipe."""

    recipe: Name = Field(description="the recipe from which every strategy differs")
    strategy: tuple[Arm, ...] = Field(description="[[strategy]] tables")
    train: Mapping[str, Any] = Field(default_factory=dict, description="what all strategies change in [train]")
    eval: Mapping[str, Any] = Field(default_factory=dict, description="what all strategies change in [eval]")
    margin: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.02, description="by how much, out of 1, a cheaper strategy may fall behind the best and still be taken"
    )
    price_per_hour: Annotated[float, Field(ge=0)] | None = Field(None, description="what an hour of this machine costs")
    prompts: Name | None = Field(
        None, description="prompts with the domains that may answer them, such as sample:routing, to try routers on"
    )
    volume: Annotated[int, Field(gt=0)] = Field(10_000, description="answers over which the cost of tuning is spread")
    path: Annotated[Path, Field(exclude=True)] = Path("comparison.toml")
    changes: Annotated[Mapping[str, Any], Field(exclude=True)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _strategies_have_own_names(self) -> Self:
        names = [arm.name for arm in self.strategy]
        if not names:
            raise ValueError("strategy: there is none; add a [[strategy]] table with a name and a method")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"strategy: the name {twice[0]!r} is used twice; give every strategy its own name")
        return self

    @classmethod
    def load(cls, path: str | Path, changes: Mapping[str, Any] | None = None) -> Comparison:
        """Read a TOML comparison; `changes` are made to its recipe. Raises `RecipeError` with every fault."""
        path = Path(path)
        try:
            raw = read_toml(path)
        except FileNotFoundError:
            fault = Fault(str(path), "does not exist", "`metier init --recipe strategies` writes one")
            raise RecipeError(str(path), [fault]) from None
        except IsADirectoryError:
            what, fix = "is a folder", "give a comparison (toml), or two runs"
            if (path / "run.json").exists():
                what = "is a run by itself"
            elif (path / "comparison.json").exists():
                what, fix = "is what a comparison wrote", f"recompute it with: metier compare --check {path}"
            fault = Fault(str(path), what, fix)
            raise RecipeError(str(path), [fault]) from None
        if "domain" in raw or isinstance(raw.get("strategy"), dict):
            fault = Fault(str(path), "is a recipe, it has no [[strategy]]", f"run it with `metier train {path}`")
            raise RecipeError(str(path), [fault])
        if strange := sorted({"path", "changes"} & raw.keys()):
            raise RecipeError(str(path), [Fault(strange[0], "is not a key of a comparison", "remove it")])
        return cls.of({**raw, "changes": dict(changes or {})}, path)

    @classmethod
    def of(cls, raw: Mapping[str, Any], path: Path) -> Comparison:
        """Validate plain values; `path` names the comparison in faults and anchors its recipe."""
        try:
            return cls.model_validate({**tuples(dict(raw)), "path": path})
        except ValidationError as error:
            fields = set(cls.model_fields) - {"path", "changes"}
            raise RecipeError(str(path), [*faults_of(error, "comparison", fields)]) from None

    @property
    def directory(self) -> Path:
        """Where its table and report are written."""
        return self.path.parent / "comparisons" / self.path.stem

    def entries(self) -> list[Entry]:
        """Every line of the table, with the recipes of the runs that it needs. Raises with the faults of all."""
        if not (self.path.parent / self.recipe).exists():
            fault = Fault("recipe", f"{self.recipe} does not exist", "name the recipe from which strategies differ")
            raise RecipeError(str(self.path), [fault])
        base = Recipe.load(self.path.parent / self.recipe)
        base = _differing(base, {"train": self.train, "eval": self.eval}).override(**self.changes)
        found: list[Entry] = []
        faults: list[Fault] = []
        for arm in self.strategy:
            try:
                stage = Recipe.load(self.path.parent / arm.after) if arm.after else None
                entries = _entries(self, arm, _differing(base, arm.difference))
                found += [replace(each, after=stage.override(model=each.model)) if stage else each for each in entries]
            except RecipeError as error:
                place = f"strategy {arm.name!r}"
                faults += [Fault(f"{place}: {each.place}", each.problem, each.fix) for each in error.faults]
        if not faults:
            found = [replace(each, base=_asks(each.recipe) == _asks(_bare(base, each.model))) for each in found]
            found += self._always(base, found)
            faults += _called_alike(found)
        if faults:
            raise RecipeError(str(self.path), faults)
        return found

    @property
    def prompts_path(self) -> Path | None:
        """Where the hard prompts lie; relative to the comparison."""
        if self.prompts is None or self.prompts.startswith("sample:"):
            return sample(self.prompts) if self.prompts else None
        return self.path.parent / self.prompts

    def _always(self, base: Recipe, found: Sequence[Entry]) -> Iterator[Entry]:
        """The untuned base of every model, and the classical baseline, where no strategy is that."""
        models = [*dict.fromkeys(each.model for each in found if each.recipe.strategy.method not in MODELLESS)]
        known = {each.model for each in found if each.base}
        if wanting := [model for model in models if model not in known]:
            arm = Arm(name=BASE, models=tuple(wanting))
            names = _named(BASE, wanting) if len(models) > 1 else {wanting[0]: BASE}
            for each in _entries(self, arm, _bare(base, wanting[0])):
                yield replace(each, name=names[each.model], base=True)
        if not any(isinstance(each.recipe.strategy, Classical) for each in found):
            yield from _entries(self, Arm(name=CLASSICAL), base.override(strategy={"method": "classical"}))


class Named(Protocol):
    """A line, before it is run or behind."""

    @property
    def name(self) -> str: ...

    @property
    def rows(self) -> int | float: ...


def told_apart(lines: Sequence[Named]) -> list[str]:
    """Their names, with the number of rows where several are called alike."""
    names = [each.name for each in lines]
    return [each.name if names.count(each.name) == 1 else f"{each.name}, rows = {each.rows}" for each in lines]


@dataclass(frozen=True)
class Cell:
    """One run of an entry; `domain` is what it alone was tuned on, "" where all."""

    recipe: Recipe
    seed: int
    domain: str = ""


@dataclass(frozen=True)
class Entry:
    """One line of the table: an arm with one model, one layout and so many rows; `cells` by seed (and domain).

    `after` is the recipe of the stage before it, whose run takes the model's place; `base` tells the bare untuned one.
    """

    name: str
    arm: str
    model: str
    layout: Layout
    rows: int | float
    cells: tuple[Cell, ...]
    after: Recipe | None = None
    base: bool = False

    @property
    def recipe(self) -> Recipe:
        return self.cells[0].recipe


def _bare(recipe: Recipe, model: str) -> Recipe:
    """The untuned base of a model, asked as the recipe asks."""
    return recipe.override(strategy={"method": "none"}, model=model)


def _asks(recipe: Recipe) -> Mapping[str, Any]:
    """What makes the answers of something that is not tuned."""
    return {key: value for key, value in recipe.values().items() if key != "train"}


def _called_alike(entries: Sequence[Entry]) -> Iterator[Fault]:
    known: set[tuple[str, int | float]] = set()
    for each in entries:
        if (each.name, each.rows) in known:
            yield Fault(
                f"strategy {each.arm!r}", f"has a line that is called {each.name!r} as another is", "rename one"
            )
        known.add((each.name, each.rows))


def _differing(base: Recipe, changed: Mapping[str, Any]) -> Recipe:
    """The recipe with a difference. A method of its own leaves nothing of the recipe's strategy."""
    values, difference = base.values(), dict(changed)
    changes: dict[str, Any] = {}
    for table in _TABLES:
        for key, value in dict(difference.pop(table, {})).items():
            deeper = value.items() if table == "domain" and isinstance(value, Mapping) else ()
            changes |= {f"{table}.{key}.{name}": each for name, each in deeper} or {f"{table}.{key}": value}
    if "model" in difference and difference.get("method") != "endpoint":  # whose model is the one that answers there
        changes["model"] = difference.pop("model")
    if difference.get("method", values["strategy"]["method"]) != values["strategy"]["method"]:
        values["strategy"] = difference
    else:
        peft = dict(difference.pop("peft", {}))
        changes |= {f"strategy.{key}": value for key, value in difference.items()}
        changes |= {f"strategy.peft.{key}": value for key, value in peft.items()}
    return Recipe.of(override_keys(values, changes), base.path)


def _entries(comparison: Comparison, arm: Arm, recipe: Recipe) -> Iterator[Entry]:
    def axis(name: str, otherwise: tuple[Any, ...], *, has_effect: bool = True) -> tuple[Any, ...]:
        own = getattr(arm, name) or getattr(comparison, name)
        return (own or otherwise) if has_effect else otherwise

    tuned = isinstance(recipe.strategy, Tuned)
    learns = tuned or isinstance(recipe.strategy, Classical) or getattr(recipe.strategy, "num_fewshot", 0) > 0
    has_model = recipe.strategy.method not in (*MODELLESS, "endpoint")
    models = axis("models", (recipe.model,), has_effect=has_model and "model" not in arm.difference)
    rows = axis("rows", (recipe.train.rows,), has_effect=learns)
    if recipe.train.rows not in (1.0, *rows):
        raise RecipeError(str(comparison.path), [Fault("train.rows", "does not go with rows", "keep one of them")])
    seeds = axis("seeds", (recipe.train.seed,), has_effect=learns)
    parted = tuned and not _classifies(recipe) and sum(domain.trained for domain in recipe.domain) > 1
    layouts = axis("layout", ("shared",), has_effect=parted)
    if "per-domain" in layouts and (idle := [domain.name for domain in recipe.domain if not domain.trained]):
        problem = f"per-domain has an expert for every domain, and {idle[0]} is measured only"
        raise RecipeError(str(comparison.path), [Fault("layout", problem, "leave that domain, or per-domain, out")])
    sweep = axis("sweep", (), has_effect=tuned)
    names = _named(arm.name, models) if len(models) > 1 else {models[0]: arm.name}
    for model, layout, count in product(models, layouts, rows):
        changed = recipe.override(**{"model": model, "train.rows": count, **({"train.sweep": sweep} if sweep else {})})
        seeded = [changed.override(**{"train.seed": seed}) for seed in seeds]
        yield from _laid_out(names[model], arm, layout, count, seeded)


def _laid_out(name: str, arm: Arm, layout: Layout, rows: int | float, seeded: list[Recipe]) -> Iterator[Entry]:
    model, domains = seeded[0].model, [domain.name for domain in seeded[0].domain if domain.trained]

    def cells(*alone: str) -> tuple[Cell, ...]:
        return tuple(Cell(_expert(each, domain), each.train.seed, domain) for domain in alone for each in seeded)

    if layout == "shared":
        yield Entry(name, arm.name, model, layout, rows, cells(""))
    elif layout == "per-domain":
        yield Entry(f"{name}, per domain", arm.name, model, layout, rows, cells(*domains))
    else:
        for domain in domains:
            yield Entry(f"{name}, on {domain} alone", arm.name, model, layout, rows, cells(domain))


def _expert(recipe: Recipe, domain: str) -> Recipe:
    """Tuned on one domain, measured on all."""
    if not domain:
        return recipe
    changes: dict[str, Any] = {f"domain.{each.name}.trained": each.name == domain for each in recipe.domain}
    if isinstance(recipe.strategy, LoraStrategy | QloraStrategy) and recipe.strategy.peft.r == "auto":
        changes["strategy.peft.r"] = _RANK  # by their own rows experts would differ in it, and could not be merged
    return recipe.override(**changes)


def _classifies(recipe: Recipe) -> bool:
    """Whether a head answers, which knows the labels of its own domains only."""
    return recipe.strategy.method == "head" or getattr(recipe.strategy, "objective", "") == "classify"


def _named(name: str, models: Sequence[str]) -> dict[str, str]:
    """By model a line's name with the shortest end of the model's that tells it from the others."""
    parts = {model: model.replace("\\", "/").rstrip("/").split("/") for model in models}
    for length in range(1, max(map(len, parts.values())) + 1):
        ends = {model: "/".join(each[-length:]) for model, each in parts.items()}
        if len(set(ends.values())) == len(models):
            break
    return {model: f"{name} · {ends[model]}" for model in models}
