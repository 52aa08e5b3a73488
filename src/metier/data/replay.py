"""General rows that are trained on beside a recipe's own: none of them may be what forgetting is measured on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from metier.data.dataset import Dataset
from metier.data.general import General
from metier.data.guessing import complete
from metier.data.items import Item, make_items, plain
from metier.data.mixing import Unit
from metier.data.rendering import Renderer
from metier.data.sources import as_prose, read_rows, show
from metier.data.splitting import apart
from metier.domain import Domain
from metier.errors import DataError, Fault
from metier.files import digest
from metier.recipe import Recipe
from metier.trees import Example

_WORDS = 8  # with fewer, two texts are alike by chance
_OUT = "left out of replay"


@dataclass(frozen=True)
class Pool:
    """General items with the unit of each, in the order in which steps take them; `left_out` would have leaked."""

    items: Sequence[Item] = ()
    units: Sequence[Unit] = ()
    left_out: Sequence[Fault] = ()

    @property
    def digest(self) -> str:
        return digest([[[each.content for each in item.messages], item.reference] for item in self.items])

    def first(self, count: int) -> Pool:
        return Pool(self.items[:count], self.units[:count], self.left_out)

    def answered(self, said: Mapping[str, tuple[str, bool]], renderer: Renderer, max_length: int) -> Pool:
        """With other answers by item: the text, and whether its end was said too; an empty or long one is left out."""
        pairs = []
        for item in self.items:
            text, ended = said[item.id]
            row = renderer.reply_row(item, text)
            if text.strip() and len(row.tokens) <= max_length:
                pairs.append((item, Unit((row if ended else _open(row),), replay=True)))
        return Pool([item for item, _ in pairs], [unit for _, unit in pairs], self.left_out)


def read_replay(recipe: Recipe, data: Dataset, general: General) -> Pool:
    """The items of `train.replay`, shuffled by the seed; no unit is made yet.

    What is held out, validated on or measures forgetting is left out. Raises `DataError` where nothing is left, or
    where nothing could be learned from what the file holds.
    """
    spec = recipe.train.replay
    if spec is None:
        return Pool()
    path = recipe.data_path(spec.data)
    domain = as_prose(Domain(name="replay", data=spec.data), path)
    rows = read_rows(domain, path)
    items = make_items(complete(domain, rows), rows)
    if items[0].kind in ("preference", "rated"):
        fix = "give passages (column text), or prompts with answers"
        raise DataError(show(path), [Fault(show(path), "holds liked and disliked answers", fix)])
    if spec.answers == "base" and items[0].kind == "passage":
        fix = 'give prompts, or leave answers = "base" out'
        raise DataError(show(path), [Fault(show(path), "has no prompts that the base could answer", fix)])
    measured = [item for each in data.domains for item in (*each.heldout, *each.validation)]
    kept, left_out = apart(items, [*measured, *general.choices], ("held-out", "replay"))
    kept, copies = _without_general(kept, general)
    if not kept:
        problem = "has only rows that are measured on"
        fix = "give other text: what eval.general_text and eval.general_choices hold shows forgetting"
        raise DataError(show(path), [Fault(show(path), problem, fix)])
    order = np.random.default_rng([recipe.train.seed, len(kept)]).permutation(len(kept)).tolist()
    return Pool([kept[index] for index in order], (), (*left_out, *copies))


def rendered(pool: Pool, renderer: Renderer, max_length: int) -> Pool:
    """With a unit for each row that is not too long; a long passage is read in windows."""
    pairs = [
        (item, Unit((row,), replay=True))
        for item in pool.items
        for row in _rows(item, renderer, max_length)
        if len(row.tokens) <= max_length
    ]
    return replace(pool, items=[item for item, _ in pairs], units=[unit for _, unit in pairs])


def _rows(item: Item, renderer: Renderer, max_length: int) -> list[Example]:
    return renderer.windows(item.reference, max_length) if item.kind == "passage" else [renderer.example(item)]


def _open(row: Example) -> Example:
    """Without its last token, the end of a turn that nobody ended."""
    return Example(row.tokens, (*row.weights[:-1], 0.0))


def _without_general(items: Iterable[Item], general: General) -> tuple[list[Item], list[Fault]]:
    passages = [plain(each.text) for each in (*general.heldout, *general.validation)]
    kept, left_out = [], []
    for item in items:
        if any(one in other or other in one for one in _said(item) for other in passages):
            left_out.append(Fault(item.place, "is in eval.general_text, which shows forgetting", _OUT))
        else:
            kept.append(item)
    return kept, left_out


def _said(item: Item) -> Iterator[str]:
    """Its texts that are too long to be alike by chance."""
    texts = (*(each.content for each in item.messages), *item.replies)
    return (text for text in map(plain, texts) if len(text.split()) >= _WORDS)
