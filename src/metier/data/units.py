"""Training items → the units of an objective, as rows of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from metier.data.items import Item
from metier.data.mixing import Unit
from metier.data.rendering import Renderer
from metier.data.replies import Kind
from metier.errors import Fault, RecipeError
from metier.recipe import Recipe
from metier.strategies import HeadOnly, Objective, Tuned
from metier.trees import Example

_KINDS: dict[Objective, set[Kind]] = {
    "dpo": {"preference"},
    "kto": {"preference", "rated"},
    "lm": {"passage"},
    "classify": {"label"},
    "sft": {"open", "label", "choice", "preference", "rated"},
}


def choose_objective(recipe: Recipe, kinds: Mapping[str, Kind]) -> Objective | None:
    """What to train a recipe's domains for, by the kinds of their items; None where nothing is trained.

    Raises `RecipeError` where the data does not go with the objective that the recipe names.
    """
    if not isinstance(recipe.strategy, Tuned):
        return None
    found, named = set(kinds.values()), recipe.strategy.objective
    if isinstance(recipe.strategy, HeadOnly):
        named = "classify"
    if named != "auto":
        if strange := [domain for domain, kind in kinds.items() if kind not in _KINDS[named]]:
            problem = f"is {named!r}, but domain {strange[0]} holds {_HOLDS[kinds[strange[0]]]}"
            fix = f'write objective = "{_own(kinds[strange[0]])}", or leave it out'
            if named == "classify":
                fix = "give that domain labels, bins or a label_map, or choose another method or objective"
            raise RecipeError(str(recipe.path), [Fault("strategy.objective", problem, fix)])
        if named == "classify" and recipe.eval.guard:
            problem = "has no meaning with objective classify, which leaves no language model that could forget"
            raise RecipeError(str(recipe.path), [Fault("eval.guard", problem, "remove it")])
        return named
    own = {_own(kind) for kind in found}
    if len(own) > 1:
        told = ", ".join(f"{domain} holds {_HOLDS[kind]}" for domain, kind in kinds.items())
        fix = "train them in stages, or name an objective that suits all"
        raise RecipeError(str(recipe.path), [Fault("strategy.objective", f"the domains differ: {told}", fix)])
    return own.pop()


def _own(kind: Kind) -> Objective:
    return {"preference": "dpo", "rated": "kto", "passage": "lm"}.get(kind, "sft")  # type: ignore[return-value]


_HOLDS: dict[Kind, str] = {
    "open": "answers",
    "label": "labels",
    "choice": "choices",
    "preference": "pairs of a liked and a disliked answer",
    "rated": "rated answers",
    "passage": "plain text",
}


def make_units(
    items: Sequence[Item], renderer: Renderer, objective: Objective, max_length: int
) -> tuple[list[Unit], list[Fault]]:
    """The units in file order, and a fault for each that is left out because a row exceeds `max_length`."""
    found = {"dpo": _pairs, "kto": _rated}.get(objective, _answers)(items, renderer, max_length)
    units: list[Unit] = []
    dropped: list[Fault] = []
    for item, unit in found:
        longest = max(len(row.tokens) for row in unit.rows)
        if longest > max_length:
            problem = f"has {longest} tokens, more than max_length = {max_length}"
            dropped.append(Fault(item.place, problem, "dropped from training"))
        else:
            units.append(unit)
    return units, dropped


def _answers(items: Sequence[Item], renderer: Renderer, max_length: int) -> Iterator[tuple[Item, Unit]]:
    """Right answers, those of one conversation together; what people disliked is no answer to learn."""
    by_row: dict[int, list[Item]] = {}
    for item in items:
        if item.liked:
            by_row.setdefault(item.row, []).append(item)
    for members in by_row.values():
        rows = [row for item in members for row in _trained(item, renderer, max_length)]
        yield max(members, key=lambda item: len(item.messages)), Unit(tuple(rows))


def _trained(item: Item, renderer: Renderer, max_length: int) -> list[Example]:
    return renderer.windows(item.reference, max_length) if item.kind == "passage" else [renderer.example(item)]


def _pairs(items: Sequence[Item], renderer: Renderer, max_length: int) -> Iterator[tuple[Item, Unit]]:
    del max_length
    for item in items:
        yield item, Unit(tuple(renderer.reply_row(item, reply) for reply in (item.reference, item.other)))


def _rated(items: Sequence[Item], renderer: Renderer, max_length: int) -> Iterator[tuple[Item, Unit]]:
    """Each reply alone; both sides count alike, however few thumbs go down (as Ethayarajh et al. 2024 advise)."""
    said = [
        (item, reply, place == item.answer and item.liked) for item in items for place, reply in enumerate(item.replies)
    ]
    share = {side: len(said) / (2 * count) for side in (True, False) if (count := sum(s == side for *_, s in said))}
    for index, (item, reply, liked) in enumerate(said):
        own = renderer.reply_row(item, reply)
        other = renderer.reply_row(item, said[(index + len(item.replies)) % len(said)][1])
        rows = (own, other) if len(other.tokens) <= max_length else (own,)
        yield item, Unit(rows, weight=share[liked], liked=liked)
