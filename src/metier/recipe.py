"""A recipe says what a run means; hardware never enters it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal, Self

import tomlkit
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from metier.domain import Domain, Listed, Name, Permutation, Share, Strict, Versions
from metier.errors import Fault, RecipeError, nearest
from metier.keys import override_keys, read_toml, tuples
from metier.strategies import (
    METHODS,
    OWN_METHODS,
    Auto,
    Endpoint,
    Foreign,
    LastN,
    Lora,
    LoraStrategy,
    Price,
    QloraStrategy,
    Strategy,
    Tuned,
    WordList,
)


class Replay(Strict):
    """General rows that are trained on beside the recipe's own, so that less is forgotten."""

    data: Name = Field(description="passages (column text), or prompts with answers; a file or sample:NAME")
    share: Share = Field(0.05, description="of the loss, in every step; at least one row a step")
    answers: Literal["file", "base"] = Field(
        "file", description="the file's own, or what the untuned base says to its prompts"
    )


def _counted(value: Any) -> Any:
    if isinstance(value, int) and value < 4:
        raise ValueError(f"rows: is {value}; write a count from 4 on, or a share such as 0.5; 1.0 is all of them")
    return value


Rows = Annotated[
    Annotated[int, Field(ge=4)] | Annotated[float, Field(gt=0, le=1)],
    BeforeValidator(_counted),
]
"""How many rows a domain has to learn from: a count, or a share of all."""


class Train(Strict):
    """Training, in transformers' words; `batch_size` means examples per optimizer step on any hardware."""

    num_train_epochs: Annotated[float, Field(gt=0, le=1000)] | Auto = "auto"
    learning_rate: Annotated[float, Field(gt=0)] | Auto = "auto"
    batch_size: Annotated[int, Field(gt=0, le=65_536)] | Auto = Field("auto", description="examples per optimizer step")
    max_length: Annotated[int, Field(ge=8)] = Field(
        1024, description="tokens, at most the base's context; a longer row is dropped, counted and listed"
    )
    warmup_steps: Annotated[float, Field(ge=0)] = Field(
        0.03, description="below 1 a share of the run, else a count of steps"
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    eval_steps: Annotated[float, Field(gt=0)] = Field(
        0.2, description="validation every so many steps; below 1 a share of the run"
    )
    early_stopping_patience: Annotated[int, Field(gt=0)] = Field(
        3, description="validations without a better score before stopping"
    )
    rows: Rows = Field(
        1.0, description="examples a domain to learn and choose from: a count, or a share; the fewer lie in the more"
    )
    sweep: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="factors of learning_rate, each tried for a fifth of the steps; validation chooses"
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 17

    replay: Replay | None = Field(
        None, description="general rows beside the recipe's own: { data = FILE, share = 0.05 }"
    )
    kl: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of KL(base, tuned) on the replay rows, in nats a token, added to the loss"
    )

    @model_validator(mode="after")
    def _kl_has_rows(self) -> Self:
        if self.kl and self.replay is None:
            raise ValueError("kl: has no rows to be measured on; name some in train.replay")
        return self

    @model_validator(mode="after")
    def _warmup_is_short_or_counted(self) -> Self:
        if 0.1 < self.warmup_steps < 1:
            raise ValueError(
                f"warmup_steps: {self.warmup_steps:g} of the run is more than a tenth; "
                "give an explicit count of steps if you mean it"
            )
        return self


class Eval(Strict):
    """How the run is measured."""

    general_text: Name = Field(
        "sample:general",
        description="passages (column text) on which forgetting is measured; by every fourth a scale is chosen",
    )
    general_choices: Annotated[str, Field(max_length=1000)] = Field(
        "sample:general_choices",
        description='questions with choices, asked before and after; "" asks none',
    )
    max_new_tokens: Annotated[int, Field(gt=0)] = Field(256, description="of an open answer")
    run_code: bool = Field(
        False, description="run the tests of answers that are code, confined and with limits; validation runs none"
    )
    limit: Annotated[int, Field(gt=0)] | None = Field(None, description="measure only so many held-out items a domain")
    guard: Mapping[Literal["general_text", "general_choices"], Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="by how much it may get worse, else exit 3: text in nats a token, choices in accuracy (0.02)",
    )

    @model_validator(mode="after")
    def _what_is_guarded_is_asked(self) -> Self:
        if "general_choices" in self.guard and not self.general_choices:
            raise ValueError("guard.general_choices: has nothing to judge; name a file in general_choices")
        return self


class Recipe(Strict):
    """Exactly one run. `directory` is where relative paths and `runs/` belong."""

    model: Name = Field(description="owner/name on the hub (@revision), a path, or nano (embedded)")
    data_root: str = Field("", description="folder in front of relative data paths; relative to the recipe")
    domain: tuple[Domain, ...]
    strategy: Strategy = Field(default_factory=lambda: LoraStrategy(method="lora"))
    train: Train = Field(default_factory=Train)
    eval: Eval = Field(default_factory=Eval)
    path: Annotated[Path, Field(exclude=True)] = Path("recipe.toml")

    @model_validator(mode="after")
    def _domains_have_own_names(self) -> Self:
        names = [domain.name for domain in self.domain]
        if not names:
            raise ValueError("domain: there is none; add a [[domain]] table with name and data")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"domain: the name {twice[0]!r} is used twice; give every domain its own name")
        if not any(domain.trained for domain in self.domain):
            raise ValueError("domain: none of them is trained on; take `trained = false` out of one at least")
        return self

    @model_validator(mode="after")
    def _what_is_run_is_code(self) -> Self:
        if self.eval.run_code and not any(domain.tests for domain in self.domain):
            raise ValueError('eval.run_code: has no tests to run; give a domain task = "code" and tests, or remove it')
        return self

    @model_validator(mode="after")
    def _what_replays_is_a_language_model(self) -> Self:
        strategy = self.strategy
        classifies = isinstance(strategy, Tuned) and (strategy.objective == "classify" or strategy.method == "head")
        if self.train.replay and classifies:
            raise ValueError("train.replay: has no meaning for a head that classifies; remove it")
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
        """Read a TOML recipe; raise `RecipeError` with every fault at once."""
        path = Path(path)
        try:
            raw = read_toml(path)
        except FileNotFoundError:
            raise RecipeError(
                str(path), [Fault(str(path), "does not exist", "`metier init FILE` writes one")]
            ) from None
        except IsADirectoryError:
            fault = Fault(str(path), "is a folder", f"name the recipe in it, such as {path / 'recipe.toml'}")
            raise RecipeError(str(path), [fault]) from None
        except RecipeError:
            if path.suffix.lower() in ("", ".toml"):
                raise
            fault = Fault(str(path), "is no recipe", f"`metier init {path}` writes one for this data")
            raise RecipeError(str(path), [fault]) from None
        if isinstance(raw.get("strategy"), list):
            fault = Fault(str(path), "is a comparison, it has [[strategy]]", f"run it with `metier compare {path}`")
            raise RecipeError(str(path), [fault])
        return cls.of(override_keys(raw, overrides or {}), path)

    @classmethod
    def of(cls, raw: Mapping[str, Any], path: Path) -> Recipe:
        """Validate plain values; `path` names the recipe in faults and anchors relative paths."""
        try:
            return cls.model_validate({**tuples(dict(raw)), "path": path})
        except ValidationError as error:
            raise RecipeError(str(path), list(_faults(error))) from None

    def override(self, **changes: Any) -> Recipe:
        """A copy with dotted keys changed: `override(**{"train.learning_rate": 1e-4})`."""
        return Recipe.of(override_keys(self.values(), changes), self.path)

    def values(self) -> dict[str, Any]:
        """Every value, defaults included, in plain types; `of` reads them back."""
        return self.model_dump(mode="json", exclude_none=True, exclude={"path"})

    def to_toml(self) -> str:
        return as_toml(self.values())

    @property
    def directory(self) -> Path:
        return self.path.parent

    def data_path(self, name: str) -> Path:
        """Where a data file lies; `sample:NAME` is embedded."""
        if name.startswith("sample:"):
            return sample(name)
        return self.directory / self.data_root / name


def as_toml(values: Mapping[str, Any]) -> str:
    """Plain values as a user would write them into a file."""
    return tomlkit.dumps(values)


def sample(name: str) -> Path:
    """Where an embedded file or folder lies, by sample:NAME."""
    stem = name.removeprefix("sample:")
    return next(iter(sorted(SAMPLES.glob(f"{stem}.*"))), SAMPLES / stem)


SAMPLES = Path(__file__).parent / "assets" / "samples"


def _faults(error: ValidationError) -> Iterator[Fault]:
    """One fault a key: the arms of a union each complain about the same one."""
    complaints: dict[str, list[Any]] = {}
    for detail in error.errors():
        complaints.setdefault(_dotted(detail), []).append(detail)
    for key, details in complaints.items():
        if not any(other.startswith(f"{key}.") for other in complaints):  # an arm that fits better says more
            yield _fault(key, details)


def _dotted(detail: Any) -> str:
    """The key as the user wrote it, without the names of methods and of a union's arms."""
    *parents, last = [str(part) for part in detail["loc"]] or ["recipe"]
    kept = [part for part in parents if part.isdecimal() or part in _NAMES]
    if last in _NAMES or last.isdecimal() or detail["type"] == "extra_forbidden" or not kept:
        kept.append(last)
    return ".".join(part if _BARE.fullmatch(part) else json.dumps(part) for part in kept)


_BARE = re.compile(r"[\w-]+")  # a key that is seen without quotes


def _fault(key: str, details: list[Any]) -> Fault:
    detail, parts = details[0], key.split(".")
    match detail["type"]:
        case "extra_forbidden":
            return _unknown(key, parts[-1], parts[:-1])
        case "missing":
            return Fault(key, "is missing", "add it")
        case "union_tag_not_found":
            return Fault(f"{key}.method", "is missing", _CHOICE)
        case "union_tag_invalid":
            tag = str(detail["ctx"]["tag"])
            meant = f"; did you mean {_KNOWN_AS[tag]}?" if tag in _KNOWN_AS else nearest(tag, METHODS)
            return Fault(f"{key}.method", f"{tag!r} is not a method{meant}", _CHOICE)
        case "string_pattern_mismatch" if key.endswith(".name"):
            fix = "write lower case letters, digits, - and _, such as support or bank-uk"
            return Fault(key, f"is {_REPR.repr(detail['input'])}", fix)
        case "value_error":
            text, _, fix = str(detail["ctx"]["error"]).partition("; ")
            field, _, problem = text.partition(": ")
            return Fault(field if key == "recipe" else f"{key}.{field}", problem, fix)
    told = (
        _TABLE.sub("be a table", each["msg"].removeprefix("Input should ").removeprefix("String should "))
        for each in details
    )
    wanted = " or ".join(dict.fromkeys(told))
    return Fault(key, f"is {_REPR.repr(detail['input'])}", f"it should {wanted}")


_CHOICE = f"choose {', '.join(OWN_METHODS)}, or a method of PEFT's (docs/reference/methods.md)"
_BY_SHOTS = 'method = "none" with strategy.num_fewshot'
_KNOWN_AS = {  # what people call a method → how a recipe says it
    "dora": 'method = "lora" with strategy.peft.use_dora = true',
    "rslora": 'method = "lora" with strategy.peft.use_rslora = true',
    "pissa": 'method = "lora" with strategy.peft.init_lora_weights = "pissa"',
    "olora": 'method = "lora" with strategy.peft.init_lora_weights = "olora"',
    "freeze": 'method = "last-n"',
    "prompting": _BY_SHOTS,
    "few-shot": _BY_SHOTS,
    "retrieval": 'method = "none" with strategy.passages',
    "rag": 'method = "none" with strategy.passages',
    "openai": 'method = "endpoint"',
    "api": 'method = "endpoint"',
    "zero-shot": 'method = "none"',
    **{each: f'method = "lora" with strategy.objective = "{each}"' for each in ("sft", "dpo", "kto", "lm", "classify")},
}

_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 80
_TABLE = re.compile(r"be a valid dictionary(?: or instance of \w+)?")  # what pydantic calls a table


def _unknown(key: str, name: str, parents: list[str]) -> Fault:
    """A key that no model has: meaningless here, misspelt, or invented."""
    if parents == ["strategy"] and name in Tuned.model_fields:
        return Fault(key, "has no meaning with a method that trains nothing", "remove it, or choose another method")
    if parents[:1] == ["strategy"] and name in {*_METHODS_OWN, "peft", *Lora.model_fields}:
        method = _METHODS_OWN.get(name, "lora")
        return Fault(key, "has no meaning with this method", f'remove it, or set strategy.method = "{method}"')
    fields = _fields(parents)
    if (meant := _ALIASES.get(name)) in fields:
        return Fault(key, f"is not a field of a recipe; did you mean `{meant}`?", "take that name")
    if not parents and (table := next((key for key in ("train", "eval") if name in _TABLES[key].model_fields), "")):
        return Fault(key, f"is not a field of a recipe by itself; did you mean `{table}.{name}`?", "name its table")
    return Fault(key, f"is not a field of a recipe{nearest(name, fields)}", f"fields here: {', '.join(sorted(fields))}")


_ALIASES = {  # what other tools call a field
    "epochs": "num_train_epochs",
    "lr": "learning_rate",
    "warmup": "warmup_steps",
    "warmup_ratio": "warmup_steps",
    "micro_batch_size": "batch_size",
    "per_device_train_batch_size": "batch_size",
    "cutoff_len": "max_length",
    "max_seq_length": "max_length",
    "sequence_len": "max_length",
    "rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "test_size": "heldout",
    "val_set_size": "validation",
    "system_prompt": "system",
    "path": "data",
}
_METHODS_OWN = {"layers": "last-n", "adapter": "adapter", "quantization_bit": "qlora", "words": "word-list"}
_METHODS_OWN |= {name: "endpoint" for name in Endpoint.model_fields if name not in Tuned.model_fields}


def _fields(parents: list[str]) -> set[str]:
    match [part for part in parents if not part.isdecimal()]:
        case []:
            return set(Recipe.model_fields) - {"path"}
        case ["strategy"]:
            return {name for model in _STRATEGIES for name in model.model_fields}
        case ["strategy", "price_per_million"]:
            return set(Price.model_fields)
        case ["train", "replay"]:
            return set(Replay.model_fields)
        case ["strategy", "peft"]:
            return set(Lora.model_fields)
        case [table] if table in _TABLES:
            return set(_TABLES[table].model_fields)
        case _:
            return {*Permutation.model_fields, *Listed.model_fields, *Versions.model_fields}


_STRATEGIES: tuple[type[Strict], ...] = (LastN, Foreign, QloraStrategy, Endpoint, WordList)
_TABLES: dict[str, type[Strict]] = {"domain": Domain, "train": Train, "eval": Eval}
_MODELS: tuple[type[Strict], ...] = (Recipe, Domain, Permutation, Listed, Versions, Price, Lora, Train, Replay, Eval)
_NAMES = {name for models in (_MODELS, _STRATEGIES) for model in models for name in model.model_fields}
