"""What a strategy shows in front of a domain's questions: passages, and examples before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from metier.data.dataset import Dataset, DomainData
from metier.data.items import Item
from metier.data.rendering import Renderer
from metier.data.retrieval import Shelf, leaks, read_shelf
from metier.data.shots import Shots
from metier.errors import Fault, RecipeError
from metier.files import digest
from metier.recipe import Recipe
from metier.strategies import Shown

_TURN_TOKENS = 8  # what a template puts around an answer


@dataclass(frozen=True)
class Front:
    """By domain, as far as the strategy shows any; `leaks` are held-out answers that stand in passages."""

    shots: Mapping[str, Shots] = field(default_factory=dict)
    shelves: Mapping[str, Shelf] = field(default_factory=dict)
    leaks: Sequence[Fault] = ()

    def __bool__(self) -> bool:
        return bool(self.shots or self.shelves)

    @property
    def digests(self) -> dict[str, str]:
        """Of all that is shown, by kind."""
        parts = {}
        if self.shots:
            parts["shots"] = digest({domain: shots.to_json() for domain, shots in self.shots.items()})
        if self.shelves:
            parts["passages"] = digest({domain: shelf.digest for domain, shelf in self.shelves.items()})
        return parts

    @property
    def only(self) -> str:
        """The domain, where there is but one; else nothing."""
        names = {*self.shots, *self.shelves}
        return names.pop() if len(names) == 1 else ""

    def of(self, domain: str, items: Sequence[Item], renderer: Renderer) -> Sequence[Item]:
        """A domain's items as they are asked; where there is too little room, examples give way before passages."""
        for found in (self.shelves.get(domain), self.shots.get(domain)):
            items = found.in_front_of(items, renderer) if found else items
        return items


def choose_front(recipe: Recipe, data: Dataset, renderer: Renderer) -> Front:
    """Read passages and draw examples. Raises `RecipeError` where answers leave no room, `DataError` for passages."""
    strategy = recipe.strategy
    asked = [each for each in data.domains if each.train[0].kind != "passage"]  # nothing is asked of plain text
    if not isinstance(strategy, Shown) or not strategy.shows or not asked:
        return Front()
    rooms = {each.domain.name: _room(recipe, strategy, each, renderer) for each in asked}
    shots: dict[str, Shots] = {}
    if strategy.num_fewshot:
        how = strategy.num_fewshot, strategy.fewshot_sampler
        for each in asked:
            name = each.domain.name
            shots[name] = Shots.choose(each.train, *how, room=rooms[name], seed=recipe.train.seed)
    if not strategy.passages:
        return Front(shots)
    passages = read_shelf(recipe.data_path(strategy.passages))
    shelf = Shelf.of(passages, strategy.num_passages, strategy.passages_prompt)
    heldout = [item for each in asked for item in each.heldout]
    return Front(shots, {name: shelf.with_room(room) for name, room in rooms.items()}, tuple(leaks(passages, heldout)))


def _room(recipe: Recipe, strategy: Shown, domain: DomainData, renderer: Renderer) -> int:
    """Tokens that a conversation may have, with everything in front of it and an answer behind."""
    closed = domain.train[0].kind in ("label", "choice")
    replies = {reply for item in domain.train for reply in item.replies} if closed else set()
    longest = max((len(renderer.encode(reply)) for reply in replies), default=recipe.eval.max_new_tokens)
    room = recipe.train.max_length - longest - _TURN_TOKENS
    if room < 1:
        key = "num_fewshot" if strategy.num_fewshot else "passages"
        problem = f"leaves no room in front: an answer may have {longest} of max_length = {recipe.train.max_length}"
        fix = "raise train.max_length, or lower eval.max_new_tokens"
        raise RecipeError(str(recipe.path), [Fault(f"strategy.{key}", problem, fix)])
    return room
