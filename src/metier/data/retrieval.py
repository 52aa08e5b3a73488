"""Passages in front of a question: the nearest of a folder by TF-IDF, as many as leave room."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from metier.classical import Nearest
from metier.data.encodings import decode
from metier.data.items import Item
from metier.data.prose import cut
from metier.data.rendering import Renderer
from metier.data.sources import PROSE, read_bytes, read_rows, show, text_of
from metier.data.templates import fill
from metier.domain import Domain
from metier.errors import DataError, Fault
from metier.files import digest

LENGTH = 400  # characters, about 100 tokens; a passage ends with the paragraph that reaches it
_TABLES = (".jsonl", ".ndjson")  # whose column text is read
_TELLING = 40  # characters from which an answer by itself is no coincidence
_HEADING = re.compile(r"^(?=#{1,6} )", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """A passage of the folder; `place` is where it begins, as file:line."""

    place: str
    text: str


@dataclass(frozen=True)
class Shelf:
    """A folder's passages, `count` of which stand in front of a question, put together as `prompt` says.

    `room` is how many tokens the conversation may have with them.
    """

    passages: tuple[Found, ...]
    nearest: Nearest
    count: int
    prompt: str
    room: int = 0

    @classmethod
    def of(cls, passages: Sequence[Found], count: int, prompt: str) -> Self:
        return cls(tuple(passages), Nearest.fit([each.text for each in passages]), count, prompt)

    def with_room(self, room: int) -> Self:
        return replace(self, room=room)

    def in_front_of(self, items: Sequence[Item], renderer: Renderer) -> list[Item]:
        """The items with their nearest passages, nearest first; the farthest give way where there is no room."""
        ranked = self.nearest.rank([item.messages[-1].content for item in items], [self.count] * len(items))
        return [self._fitting(item, order, renderer) for item, order in zip(items, ranked, strict=True)]

    def shown_in(self, item: Item) -> list[Found]:
        """The passages that stand in front of an item, in their order there."""
        found = [each for each in self.passages if each.text in item.question]
        return sorted(found, key=lambda each: item.question.index(each.text))

    @property
    def digest(self) -> str:
        """Of everything that decides what is shown."""
        return digest([[each.text for each in self.passages], self.count, self.prompt, self.room])

    def _fitting(self, item: Item, order: Sequence[int], renderer: Renderer) -> Item:
        for count in range(len(order), 0, -1):
            texts = [self.passages[index].text for index in order[:count]]
            values = {"passages": "\n\n".join(texts), "question": item.messages[-1].content}
            shown = replace(item, question=fill(self.prompt, values))
            if len(renderer.prompt_ids(shown.asked)) <= self.room:
                return shown
        return item


def read_shelf(path: Path) -> list[Found]:
    """The passages of a file, or of a folder and those below. Raises `DataError` where there are none."""
    kinds = (*PROSE, ".txt", *_TABLES)
    files = sorted(each for each in path.rglob("*") if each.suffix.lower() in kinds) if path.is_dir() else [path]
    found = [passage for file in files for passage in _passages(file)]
    if not found:
        problem = "has no passage" if files else "has no text that is read"
        fix = f"put text into it: {', '.join(kinds)}"
        raise DataError(show(path), [Fault(f"strategy.passages: {show(path)}", problem, fix)])
    return found


def leaks(passages: Sequence[Found], heldout: Sequence[Item]) -> Iterator[Fault]:
    """Held-out items whose answer stands in a passage word for word: with its question, or by itself if it is long."""
    texts = [_plain(passage.text) for passage in passages]
    everything = "\n".join(texts)
    for item in heldout:
        answer, question = _plain(item.reference), _plain(item.messages[-1].content) if item.messages else ""
        if not question or answer not in everything:
            continue
        telling = item.kind == "open" and len(answer) >= _TELLING
        for passage, text in zip(passages, texts, strict=True):
            if answer in text and (telling or question in text):
                problem = f"its held-out answer stands in {passage.place}, word for word"
                yield Fault(item.place, problem, "take it out of the passages, or the score tells who can copy")
                break


def write_shelves(shelves: Mapping[str, Shelf]) -> dict[str, Any]:
    """What is needed to show the same passages again: those of all domains are the same, but for their room."""
    shelf = next(iter(shelves.values()))
    rooms = {name: each.room for name, each in shelves.items()}
    passages = [[each.place, each.text] for each in shelf.passages]
    return {"count": shelf.count, "prompt": shelf.prompt, "rooms": rooms, "passages": passages}


def read_shelves(value: Mapping[str, Any]) -> dict[str, Shelf]:
    """What `write_shelves` wrote."""
    shelf = Shelf.of([Found(*each) for each in value["passages"]], value["count"], value["prompt"])
    return {name: shelf.with_room(room) for name, room in value["rooms"].items()}


def _passages(path: Path) -> Iterator[Found]:
    if path.suffix.lower() in _TABLES:
        for row in read_rows(Domain(name="passages", data=path.name, text="text"), path):
            yield from (Found(row.place, text) for _, text in cut(text_of(row.values.get("text")), LENGTH))
        return
    text, shown = decode(read_bytes(path), "utf-8", show(path)), show(path)
    edges = [match.start() for match in _HEADING.finditer(text)] if path.suffix.lower() in PROSE else []
    for start, stop in zip([0, *edges], [*edges, len(text)], strict=True):  # a heading stays with what it is over
        for at, passage in cut(text[start:stop], LENGTH):
            yield Found(f"{shown}:{text.count(chr(10), 0, start + at) + 1}", passage)


def _plain(text: str) -> str:
    """Without the differences in case and white space that copies have."""
    return " ".join(text.casefold().split())
