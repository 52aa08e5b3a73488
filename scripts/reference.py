"""docs/reference/recipe.md and commands.md, written from the models and the command line themselves.

python scripts/reference.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo

from metier.cli.main import app
from metier.domain import Domain, Listed, Permutation, Strict, Versions
from metier.files import write_atomic
from metier.grid import Arm, Axes, Comparison
from metier.recipe import Eval, Recipe, Replay, Train
from metier.strategies import METHODS, Endpoint, Foreign, LastN, Lora, LoraStrategy, Price, WordList

BAR = "\\|"  # a bar within a cell
REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
_WORDS = "A TOML file: `otherwise`, a label, and `[[rule]]` with `label`, `words` and `least` (1), asked in order."
_WRITTEN = "Written by `make reference`; a test keeps it so."
_TABLES: tuple[tuple[str, str, type[Strict], tuple[str, ...]], ...] = (
    ("The recipe itself", "At the top of the file.", Recipe, ("domain", "strategy", "train", "eval", "path")),
    ("`[[domain]]`", "One for every domain.", Domain, ()),
    ("`heldout = { permutation = … }`", "A split as the `datasets` library draws it.", Permutation, ()),
    ("`heldout = { ids = … }`", "A split that somebody published as a list of ids.", Listed, ()),
    ("`versions = { of = … }`", "Texts in versions that name other people; one favourable label.", Versions, ()),
    ("`[strategy]`", "", LoraStrategy, ("method", "peft")),
    ('`[strategy]` with `method = "last-n"`', "Beside those above.", LastN, (*LoraStrategy.model_fields,)),
    ('`[strategy]` with `method = "adapter"`', "An adapter made elsewhere.", Foreign, (*LoraStrategy.model_fields,)),
    (
        '`[strategy]` with `method = "endpoint"`',
        "A model that answers elsewhere.",
        Endpoint,
        (*LoraStrategy.model_fields,),
    ),
    ('`[strategy]` with `method = "word-list"`', _WORDS, WordList, ("method",)),
    ("`price_per_million = { … }`", "In any currency.", Price, ()),
    ("`[strategy.peft]`", "Of `lora` and `qlora`, by PEFT's names; other PEFT methods take PEFT's own keys.", Lora, ()),
    ("`[train]`", "", Train, ()),
    ("`[train.replay]`", "General rows beside the recipe's own, against forgetting.", Replay, ()),
    ("`[eval]`", "", Eval, ()),
)
_COMPARED: tuple[tuple[str, str, type[Strict], tuple[str, ...]], ...] = (
    ("The comparison itself", "At the top of the file.", Comparison, ("strategy", "path", "changes")),
    (
        "`[[strategy]]`",
        "Beside the axes above, for it alone, and any key of a recipe's `[strategy]`.",
        Arm,
        (*Axes.model_fields,),
    ),
)


def recipe_page() -> str:
    """Every key of a recipe, and of a comparison, with its type, default and meaning."""
    parts = ["# A recipe's keys", f"{_WRITTEN} An unknown key is an error that names the nearest valid one."]
    parts += _sections(_TABLES)
    parts += ["# A comparison's keys", "What `metier compare` runs: docs/guides/comparing.md.", *_sections(_COMPARED)]
    return "\n\n".join(parts) + "\n"


def _sections(tables: Iterable[tuple[str, str, type[Strict], tuple[str, ...]]]) -> Iterator[str]:
    for title, text, model, without in tables:
        fields = {name: field for name, field in model.model_fields.items() if name not in without}
        rows = [_key(name, field) for name, field in fields.items()]
        if title == "`[strategy]`":
            rows.insert(0, _row("`method`", "text", "`lora`", ", ".join(METHODS)))
        head = ["| key | type | default | meaning |", "|---|---|---|---|"]
        yield from (f"## {title}", *([text] if text else []), "\n".join([*head, *rows]))


def commands_page() -> str:
    """Every verb with its arguments and flags."""
    exits = "Exit 0: done, 2: your mistake or the machine's refusal, 3: a guard said no, 1: ours."
    parts = ["# Commands", f"{_WRITTEN} Messages go to stderr, data (`--json`) to stdout. {exits}"]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        context = typer.Context(command)
        records = [each.get_help_record(context) for each in command.params]
        rows = [_row(f"`{spelled}`", said) for spelled, said in records]
        head = ["| argument or flag | meaning |", "|---|---|"]
        parts += [f"## `metier {name}`", str(command.help), "\n".join([*head, *rows])]
    return "\n\n".join(parts) + "\n"


def _key(name: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    said = "required" if field.is_required() else "" if default in (None, {}) else f"`{_toml(default)}`"
    annotation: Any = field.rebuild_annotation()
    return _row(
        f"`{name}`",
        " or ".join(dict.fromkeys(_types(TypeAdapter(annotation).json_schema()))),
        said,
        field.description or "",
    )


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else json.dumps(value, ensure_ascii=False)


def _types(schema: Mapping[str, Any]) -> Iterator[str]:
    """A JSON schema's types in a reader's words, `null` left out."""
    for arm in schema.get("anyOf", [schema]):
        match arm:
            case {"const": value}:
                yield f"`{_toml(value)}`"
            case {"enum": values}:
                yield from (f"`{_toml(value)}`" for value in values)
            case {"type": "array"}:
                yield "list"
            case {"type": "object"} | {"$ref": _}:
                yield "table"
            case {"type": "null"}:
                continue
            case {"type": kind}:
                words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
                yield words.get(kind, kind) + _bounds(arm)


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "to"}
    return "".join(f", {word} {schema[key]}" for key, word in words.items() if key in schema)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


PAGES = {"recipe.md": recipe_page, "commands.md": commands_page}

if __name__ == "__main__":
    for file, page in PAGES.items():
        write_atomic(REFERENCE / file, page())
