"""Templates over the columns of a row: `{name}` is a placeholder where there is such a column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from metier.domain import Domain
from metier.errors import Fault, nearest

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")
_ALONE = re.compile(r"(?<!\{)\{([^{}]+)\}(?!\})")  # not {{name}}, which texts and other tools use


@dataclass(frozen=True)
class Template:
    """A text with the columns that it inserts."""

    text: str
    columns: tuple[str, ...]

    def fill(self, cells: Mapping[str, str]) -> str:
        """The text with the row's cells; empty if there is nothing of the row in it.

        A line end beside an empty column, such as Alpaca's optional input, carries no meaning.
        """
        if self.columns and not any(cells[name] for name in self.columns):
            return ""
        return fill(self.text, cells).strip("\n")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Every `{name}` that `values` knows replaced once; other braces, and braces in values, stay."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def closed_set(domain: Domain) -> tuple[str, ...]:
    """The labels of a domain, none where its answers are open."""
    if domain.choices:
        return ()
    return domain.labels or tuple(domain.bins or dict.fromkeys((domain.label_map or {}).values()))


def prompt_template(domain: Domain, columns: Sequence[str]) -> Template:
    """The prompt with instruction and labels written into it."""
    extras = _extras(domain)
    inner = {} if domain.instruction is None else {"instruction": domain.instruction}
    names = [name for name in columns if name not in extras]
    lettered = ["choices"] if domain.choices else []  # not the column of that name, but its letters and texts
    return _template(fill(fill(domain.prompt or "", inner), extras), [*names, *lettered])


def answer_template(domain: Domain, columns: Sequence[str]) -> Template:
    return _template(domain.answer or "", columns)


def system_template(domain: Domain, columns: Sequence[str]) -> Template:
    return _template(domain.system or "", columns)


def shared_system(domain: Domain) -> str | None:
    """The system prompt that all rows have; None where a column gives it."""
    return None if domain.system and PLACEHOLDER.fullmatch(domain.system) else domain.system


def template_faults(domain: Domain, columns: Sequence[str]) -> Iterator[Fault]:
    """What the templates name and nobody has: one fault a name, not one a row."""
    for key, template in (
        ("prompt", prompt_template(domain, columns)),
        ("answer", answer_template(domain, columns)),
    ):
        for name in dict.fromkeys(match[1] for match in _ALONE.finditer(template.text)):
            if name not in (*columns, *template.columns) and (name.isidentifier() or nearest(name, columns)):
                problem = f"names {{{name}}}, which is no column{nearest(name, columns)}"
                yield Fault(f"domain {domain.name}: {key}", problem, _remedy(name, columns))
    if domain.instruction is not None and "{instruction}" not in (domain.prompt or ""):
        yield Fault(f"domain {domain.name}: instruction", "is not used", "put {instruction} into prompt, or remove it")
    if len(closed_set(domain)) == 1:
        yield Fault(f"domain {domain.name}: label_map", "knows one label only", "map to at least two, or remove it")


def _extras(domain: Domain) -> dict[str, str]:
    labels = closed_set(domain)
    return {"labels": "/".join(labels)} if labels else {}


def _template(text: str, columns: Sequence[str]) -> Template:
    names = dict.fromkeys(match[1] for match in PLACEHOLDER.finditer(text))
    return Template(text, tuple(name for name in names if name in columns))


def _remedy(name: str, columns: Sequence[str]) -> str:
    match name:
        case "instruction":
            return "write the domain's instruction"
        case "labels":
            return "give labels or label_map"
        case "choices":
            return 'name the columns that hold them, such as choices = ["a", "b", "c", "d"]'
        case _:
            return f"columns are {', '.join(columns)}"
