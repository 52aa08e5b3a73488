"""One domain of a recipe: where its rows are, how they are split, and how a row becomes a conversation."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metier.errors import Fault, nearest

Name = Annotated[str, Field(min_length=1, max_length=1000)]  # of a file or a model
Share = Annotated[float, Field(gt=0, lt=1)]
Task = Literal["support", "summary", "translation", "code"]
"""What an open answer is wanted for, which decides what it is measured by."""


class Strict(BaseModel):
    """Frozen; an unknown key is a fault, and so is a number without end."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def faults_of(error: ValidationError, what: str, fields: Collection[str]) -> Iterator[Fault]:
    """What a small file with these keys has wrong, the file being called `what`. One fault a key."""
    complaints: dict[str, list[Any]] = {}
    for detail in error.errors():
        complaints.setdefault(_place(detail["loc"]) or what, []).append(detail)
    for key, details in complaints.items():
        match details[0]["type"]:
            case "extra_forbidden":
                keys = ", ".join(sorted(fields))
                yield Fault(key, f"is not a key of a {what}{nearest(key, fields)}", f"keys: {keys}")
            case "missing":
                yield Fault(key, "is missing", "add it")
            case "value_error":
                told, _, fix = str(details[0]["ctx"]["error"]).partition("; ")
                field, _, problem = told.partition(": ")
                yield Fault(_within(key, field, what), problem, fix)
            case _:
                wanted = (each["msg"].removeprefix("Input should ").removeprefix("Value should ") for each in details)
                yield Fault(key, f"is {details[0]['input']!r:.80}", f"it should {' or '.join(dict.fromkeys(wanted))}")


_ARM = re.compile(r"constrained-|.*\[")  # how pydantic calls the arms of our unions


def _within(key: str, field: str, what: str) -> str:
    """The field of a table, which may be the place itself, or stand in front."""
    if key == what:
        return field
    return key if field in re.split(r"[ .]", key) else f"{key}.{field}"


def _place(loc: Sequence[int | str]) -> str:
    """Where a complaint points at, counted from 1, without the names that a union's arms have."""
    kept = [part for part in loc if isinstance(part, int) or not _ARM.match(part)]
    return "".join(f" {part + 1}" if isinstance(part, int) else f".{part}" for part in kept).lstrip(".")


class Permutation(Strict):
    """A split as the `datasets` library draws it: one seeded permutation, test rows first."""

    permutation: Annotated[int, Field(ge=0)] = Field(description="seed of the permutation")
    share: Share = Field(description="share of the rows that is held out")


class Listed(Strict):
    """A split that somebody published as a list of ids."""

    ids: str = Field(description="file with the ids of the rows held out: one a line, or a JSON list or object")


Heldout = Permutation | Listed | Share | Name


class Versions(Strict):
    """Rows that are one text, each naming somebody else, which must not change the answer."""

    of: str = Field(description="column that the versions of one text share; they stay on one side of every split")
    attribute: str = Field(description="column with what the versions differ in, such as gender")
    group: str = Field(description="column with whom a version names, such as woman")
    favourable: str = Field(description="the label that is good to get, of which rates and impact ratio are")


DOMAIN_NAME = r"^[a-z0-9][a-z0-9_-]*$"


class Domain(Strict):
    """One domain: where its rows are, and how a row becomes a conversation with its answer."""

    name: Annotated[str, Field(pattern=DOMAIN_NAME)] = Field(description="lower case, no spaces")
    data: Name = Field(
        description="csv, tsv, jsonl, json, parquet or text file, sample:NAME, or hub:owner/name[/config][@rev][:split]"
    )
    optional: bool = Field(False, description="skip the domain, and say so, where its data is absent")
    heldout: Heldout = Field(
        0.2,
        description="a share, a file, { ids = FILE } or { permutation = SEED, share = S }",
        union_mode="left_to_right",
    )
    validation: Share | Name = Field(0.1, description="cut from the training rows: a share or a file")
    weight: Annotated[float, Field(gt=0)] = Field(
        1.0, description="of the domain in the loss; target tokens are balanced first"
    )
    trained: bool = Field(
        True, description="false: measured only; a strategy that tunes learns and chooses nothing by its rows"
    )
    system: str | None = Field(
        None, description="system prompt in front of every conversation; a template over the columns"
    )

    encoding: str = Field("utf-8", description="of the file; a byte order mark is taken off")
    delimiter: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="of a csv file; any string; guessed without it"
    )
    columns: tuple[str, ...] | None = Field(
        None, description="names for a csv file without header; it is split from the right"
    )
    where: Mapping[str, str] = Field(default_factory=dict, description="keep only rows whose column has this value")
    explode: str | None = Field(None, description="column that holds a list: a row for each of its entries")
    skip_faulty: bool = Field(
        False,
        description="leave out rows that have a fault, such as an empty answer or a broken line; says how many",
    )

    prompt: str | None = Field(None, description="template over the columns; {instruction} is the instruction")
    answer: str | None = Field(None, description="template over the columns")
    task: Task = Field("support", description="what open answers are for: decides their metrics, the primary one first")
    tests: str | None = Field(
        None,
        description='with task = "code": column with Python assertions, run after an answer if eval.run_code is true',
    )
    instruction: str | None = Field(None, description="text for {instruction}; {labels} lists the labels")
    instructions: tuple[str, ...] | None = Field(
        None, description="several, of which the one is taken with which the base answers validation best"
    )
    labels: tuple[str, ...] | None = Field(None, description="a closed set of answers, scored by log-probability")
    labelled_by: Literal["people", "model"] | None = Field(
        None, description="who gave the answers: agreement with a model is not correctness, and the verdict says so"
    )
    label_map: Mapping[str, str] | None = Field(None, description="value in the data = label, or letter of a choice")
    bins: Mapping[str, Annotated[float, Field(allow_inf_nan=True)]] | None = Field(
        None, description="label = the bound below which a number has it, rising; the last may be inf"
    )
    choices: str | tuple[str, ...] | None = Field(
        None, description="a question's choices: the column that lists them, or their columns; {choices} letters them"
    )
    rejected: str | None = Field(None, description="column with the answer that people liked less than `answer`")
    rating: str | None = Field(None, description="column that tells whether people liked the answer")
    text: str | None = Field(None, description="column with plain text to go on reading, instead of prompt and answer")

    messages: str | tuple[str, ...] | None = Field(
        None, description="column that holds a list of {role, content}; several are laid end to end"
    )
    history: str | None = Field(None, description="column with earlier exchanges, a list of [question, answer]")
    conversation: str | None = Field(None, description="column that tells which conversation a message belongs to")
    role: str | None = Field(None, description="column with a message's role")
    content: str | None = Field(None, description="column with a message's text")
    time: str | None = Field(None, description="column that orders the messages of a conversation")
    role_map: Mapping[str, str] = Field(
        default_factory=dict, description="role in the data = system, user or assistant"
    )

    tools: str | None = Field(None, description="column with descriptions of the tools that may be called")

    id: str | None = Field(None, description="column with a row's own id; must be unique")
    group: str | None = Field(None, description="rows with the same value stay on one side of every split")
    versions: Versions | None = Field(
        None, description="{ of, attribute, group, favourable }: rows that name other people and must be answered alike"
    )

    @model_validator(mode="after")
    def _labels_are_a_set(self) -> Self:
        if self.labels is not None and (len(set(self.labels)) != len(self.labels) or len(self.labels) < 2):
            raise ValueError("labels: needs at least two different labels; list each once")
        if self.labels and self.label_map and (strange := set(self.label_map.values()) - set(self.labels)):
            raise ValueError(f"label_map: maps to {sorted(strange)}, which labels does not list; add them to labels")
        return self

    @model_validator(mode="after")
    def _versions_are_answered_by_labels(self) -> Self:
        if self.versions is None:
            return self
        if self.versions.favourable not in (self.labels or ()):
            raise ValueError(
                f"versions: favourable = {self.versions.favourable!r} is none of labels; list them, it among them"
            )
        if self.group not in (None, self.versions.of) and not isinstance(self.heldout, str):
            raise ValueError("group: does not go with versions, whose `of` is the group; remove it")
        return self

    @model_validator(mode="after")
    def _instructions_differ(self) -> Self:
        if self.instructions is not None and len(set(self.instructions)) < max(2, len(self.instructions)):
            raise ValueError("instructions: needs at least two different ones; write `instruction` for a single one")
        if self.instructions and self.instruction is not None:
            raise ValueError("instructions: does not go with instruction; keep one of them")
        return self

    @model_validator(mode="after")
    def _bins_rise(self) -> Self:
        bounds = list((self.bins or {}).values())
        if bounds and (len(bounds) < 2 or any(not low < high for low, high in pairwise(bounds))):
            raise ValueError(
                "bins: bounds do not rise; write two or more, from the lowest label's on; the last may be inf"
            )
        return self

    @model_validator(mode="after")
    def _tests_are_of_code(self) -> Self:
        if self.task == "code" and self.tests is None:
            raise ValueError("task: code is measured by tests, and there are none; name their column in `tests`")
        if self.task != "code" and self.tests is not None:
            raise ValueError('tests: are of code alone; add task = "code", or remove them')
        return self

    @model_validator(mode="after")
    def _replies_are_of_one_kind(self) -> Self:
        kinds = [key for key in ("labels", "bins", "choices", "rejected", "rating", "text") if getattr(self, key)]
        if len(kinds) > 1:
            raise ValueError(f"{kinds[1]}: does not go with {kinds[0]}; keep one of them")
        if kinds and self.task != "support":
            raise ValueError(f"task: speaks of open answers, which {kinds[0]} has none of; remove it")
        return self
