"""What a column's name and values say about its use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from metier.data.majority import most
from metier.data.objects import listed
from metier.data.sources import Row, columns_of, text_of

_KEYS = {"id", "ids", "uuid", "guid", "index", "idx", "number", "nr", "no", "count", "length", "url", "link"}
_KEYS |= {"date", "time", "timestamp", "datetime", "created", "updated", "name", "email", "phone", "lang", "language"}
_UNREAD = re.compile(r"\W*\d[\d.,:%\s-]*|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*|https?://\S+|true|false", re.IGNORECASE)
_UNNAMED = (("unnamed",), ("column",))
_MOST = 0.9
_SAMPLED = 1000  # values that are looked at one by one
_GRADES = 5  # so few numbers may be labels


@dataclass(frozen=True)
class Column:
    """A column of `rows` rows: its values as stripped text, without the empty ones."""

    name: str
    values: tuple[str, ...]
    rows: int

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The words of the name: `customerMessage` and `Customer_message` have the same two."""
        spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", self.name)
        return tuple(part for part in re.split(r"[\W_]+", spaced.lower()) if part)

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(self.values)

    @cached_property
    def words(self) -> float:
        """Words of a value on average."""
        sample = self.values[:_SAMPLED]
        return sum(len(value.split()) for value in sample) / max(1, len(sample))

    def repeats(self, times: float, distinct: int) -> bool:
        """Whether it has few short values, each of them so often on average: then they are labels."""
        few = 2 <= len(self.counts) <= distinct and len(self.values) >= times * len(self.counts)
        return few and self.is_filled and self._mostly(_is_short)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Its short values; what is long among them is no label."""
        return tuple(sorted(filter(_is_short, self.counts)))

    @property
    def is_filled(self) -> bool:
        return 2 * len(self.values) >= max(1, self.rows)

    @cached_property
    def is_label(self) -> bool:
        return self.repeats(3, 100) and len(self.labels) == len(self.counts)

    @cached_property
    def is_closed(self) -> bool:
        """Whether it holds a closed set of answers; sums and years repeat too, but a few grades are a set."""
        return self.is_label and (len(self.counts) <= _GRADES or not self._mostly(_is_unread))

    @cached_property
    def is_readable(self) -> bool:
        """Whether it holds what people read: neither keys nor dates, numbers, addresses or a row's index."""
        if not self.is_filled or _KEYS & set(self.parts) or self.parts[:1] in _UNNAMED:
            return False
        return self.is_label or not self._mostly(_is_unread) | self._is_key()

    @cached_property
    def is_text(self) -> bool:
        return self.is_readable and not self.is_label

    def _is_key(self) -> bool:
        """One token with a digit in each row: a code, of which many are no labels."""
        return self._mostly(lambda value: bool(re.fullmatch(r"\S*\d\S*", value)))

    def _mostly(self, says: Callable[[str], bool]) -> bool:
        return most(map(says, self.values[:_SAMPLED]), _MOST)


def _is_short(value: str) -> bool:
    return len(value.split()) <= 6


def _is_unread(value: str) -> bool:
    return bool(_UNREAD.fullmatch(value))


def survey(rows: Sequence[Row]) -> list[Column]:
    """The columns of text, without single lists or objects among it; those that mostly hold such are left out.

    So are those with braces in their name.
    """
    found = []
    for name in columns_of(rows):
        values = [row.values.get(name) for row in rows]
        if not _is_nested(values) and not re.search(r"[{}]", name):
            texts = (text_of(value).strip() for value in values if not isinstance(value, list | dict))
            found.append(Column(name, tuple(text for text in texts if text), len(rows)))
    return found


def _is_nested(values: Sequence[Any]) -> bool:
    """Whether a column mostly holds lists or objects, which in a csv file are JSON text."""
    sample = [value for value in values if value][:_SAMPLED]
    return most(isinstance(listed(value), list | dict) for value in sample)


def named(
    found: Iterable[Column], names: Sequence[str], suits: Callable[[Column], bool], *, exact: bool = False
) -> Column | None:
    """The column whose name is one of `names`, or unless `exact` has one as a word: never as a part of a word."""
    ranked = []
    for position, column in enumerate(found):
        whole = "_".join(column.parts)
        hits = [(0, names.index(whole))] if whole in names else []
        hits += [(1, names.index(part)) for part in column.parts if part in names and not exact]
        if hits and suits(column):
            ranked.append((min(hits), not column.is_readable, position, column))
    return min(ranked, key=lambda each: each[:3])[3] if ranked else None
