"""What shows forgetting: general text and general multiple-choice items, on which nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metier.data.guessing import complete
from metier.data.items import Item, make_items
from metier.data.sources import columns_of, read_rows, show, text_of
from metier.domain import Domain
from metier.errors import DataError, Fault, nearest
from metier.files import digest
from metier.recipe import Recipe

CHOICES = "general_choices"  # the domain of their answers
_EVERY = 4  # of the passages, by hash, one in so many is validated on


@dataclass(frozen=True)
class Passage:
    """General text on which forgetting is measured."""

    id: str
    text: str
    place: str


@dataclass(frozen=True)
class General:
    """`heldout` passages and `choices` are what forgetting is measured on; by `validation` a scale is chosen."""

    heldout: Sequence[Passage] = ()
    validation: Sequence[Passage] = ()
    choices: Sequence[Item] = ()

    @property
    def digest(self) -> str:
        texts = [[each.text for each in side] for side in (self.heldout, self.validation)]
        asked = [
            [item.id, [each.content for each in item.messages], item.replies, item.answer] for item in self.choices
        ]
        return digest([texts, asked])


def read_general(recipe: Recipe) -> General:
    """The passages of `eval.general_text`, cut in two by a fixed rule, and the items of `eval.general_choices`.

    Of the distinct texts in the order of their hashes every fourth is validated on; fewer than four are all held
    out. Raises `DataError`.
    """
    passages = read_passages(recipe)
    chosen = set(sorted({digest(each.text) for each in passages})[_EVERY - 1 :: _EVERY])
    sides: tuple[list[Passage], list[Passage]] = ([], [])
    for each in passages:
        sides[digest(each.text) in chosen].append(each)
    return General(*sides, read_choices(recipe))


def read_passages(recipe: Recipe) -> list[Passage]:
    """Every passage of `eval.general_text`."""
    path = recipe.data_path(recipe.eval.general_text)
    rows = read_rows(Domain(name="general_text", data=recipe.eval.general_text), path)
    columns = columns_of(rows)
    if "text" not in columns:
        problem = f"has no column text{nearest('text', columns)}"
        raise DataError(show(path), [Fault(show(path), problem, "eval.general_text needs one passage a row in it")])
    passages = [(row.place, text_of(row.values.get("text"))) for row in rows]
    if blank := [place for place, text in passages if not text.strip()]:
        raise DataError(
            show(path), [Fault(f"{each}: text", "is empty", "remove the row or fill it in") for each in blank]
        )
    return [Passage(f"{digest(text)[:16]}-{number}", text, place) for number, (place, text) in enumerate(passages)]


def read_choices(recipe: Recipe) -> list[Item]:
    """The items of `eval.general_choices`; none where it is empty."""
    if not recipe.eval.general_choices:
        return []
    path = recipe.data_path(recipe.eval.general_choices)
    domain = Domain(name=CHOICES, data=recipe.eval.general_choices)
    rows = read_rows(domain, path)
    items = make_items(complete(domain, rows), rows)
    if strange := [item for item in items if item.kind != "choice"]:
        fix = "eval.general_choices needs columns such as question, choices (a list) and answer (a letter)"
        raise DataError(show(path), [Fault(strange[0].place, "is no question with choices", fix)])
    return items
