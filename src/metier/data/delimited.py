"""Delimited text → records, each with the line on which it begins.

The csv module takes one character as delimiter, and behind a quote that is never closed it reads on to
a limit of its own without saying where the row began.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

_GUESSED = (",", ";", "\t", "|")
_SAMPLED = 100  # records by which a delimiter is guessed
_CLOSED = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')
_UNCLOSED = "opens a quote that is never closed"
_REST = re.compile(r"[^\r\n]*+(?P<end>\r\n|\r|\n|\Z)")


@dataclass(frozen=True)
class Record:
    """The cells of the record that begins at `line`; with a `problem` only those in front of it."""

    line: int
    cells: Sequence[str]
    problem: str = ""

    @property
    def swallows(self) -> bool:
        """Whether the problem hides everything behind it."""
        return self.problem == _UNCLOSED


def records(text: str, delimiter: str) -> Iterator[Record]:
    """Records as RFC 4180 has them, with any delimiter and cells of any length."""
    mark = re.escape(delimiter)
    one = rf"[^{mark}\r\n]*+"
    # Not possessive: Python 3.11.2 gives such a group with a lookahead no match at all (cpython#106052).
    plain = one if len(delimiter) == 1 else rf"(?:(?!{mark})[^\r\n])*"
    cell = re.compile(rf'(?:"([^"]*+(?:""[^"]*+)*+)"|((?!"){plain}))(?P<end>{mark}|\r\n|\r|\n|\Z)')
    position, line, begin = 0, 1, 1
    cells: list[str] = []
    while position < len(text) or cells:
        problem, match = "", cell.match(text, position)
        if match is None:
            closed = _CLOSED.match(text, position)
            problem = "has text behind a closing quote" if closed else _UNCLOSED
            match = _REST.match(text, closed.end() if closed else len(text))
            assert match is not None, "a line always has a rest"
        else:
            quoted, bare = match[1], match[2]
            cells.append(bare if quoted is None else quoted.replace('""', '"'))
        line += _line_ends(text[position : match.end()])
        position = match.end()
        if problem or match["end"] != delimiter:
            yield Record(begin, cells, problem)
            cells, begin = [], line


def split_lines(text: str, delimiter: str, width: int) -> Iterator[Record]:
    """A record a line, split from the right: the first cell may contain the delimiter, quotes are text."""
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        yield Record(number, line.rstrip("\r\n").rsplit(delimiter, width - 1))


def guess_delimiter(text: str, width: int | None = None) -> str:
    """The delimiter that gives the first records equally many fields: `width`, or at least two."""

    def fit(delimiter: str) -> tuple[bool, float, int]:
        if width is not None:
            counts = [len(each.cells) for each in islice(split_lines(text, delimiter, width), _SAMPLED)]
            return True, counts.count(width) / max(1, len(counts)), 0
        counts = [0 if each.problem else len(each.cells) for each in islice(records(text, delimiter), _SAMPLED)]
        first = counts[0] if counts else 0
        return first > 1, counts.count(first) / max(1, len(counts)), first

    return max(_GUESSED, key=fit)


def _line_ends(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")
