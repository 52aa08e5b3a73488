"""Files → rows: delimited text and JSON, each row with the line on which it begins."""

from __future__ import annotations

import codecs
import difflib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from metier.errors import DataError, Fault
from metier.recipe import SAMPLES, Domain

DELIMITED = (".csv", ".tsv", ".txt")
_JSON = (".jsonl", ".ndjson", ".json")
_DELIMITERS = (",", ";", "\t", "|")  # guessed among these
_CELL = 100_000  # characters; a longer cell is a mistake of whoever exported it
_SAMPLED = 100  # records by which a delimiter is guessed
_LISTED = 20  # faults of one file


@dataclass(frozen=True)
class Row:
    """One row as it stands in the file: `number` counts the rows that are kept, from 0.

    Numbers of a JSON file keep the text in which they are written, so that csv and JSON mean the same.
    """

    place: str
    number: int
    values: dict[str, Any]


@dataclass(frozen=True)
class _Record:
    """What stands at `line`: the cells of a row, or the `problem` behind those that could be read."""

    line: int
    cells: Sequence[str]
    problem: str = ""


def read_rows(domain: Domain, path: Path) -> list[Row]:
    """The rows of `path` that `domain.where` keeps. Raises `DataError` with every fault of the file."""
    shown = show(path)
    text = _decode(_read(path, shown), domain.encoding, shown)
    found = list(_delimited(text, domain, shown) if path.suffix.lower() in DELIMITED else _objects(text, shown))
    rows = [each for each in found if isinstance(each, Row)]
    faults = [*_nul(text, shown), *(each for each in found if isinstance(each, Fault))]
    faults += [fault for row in rows for fault in _oversized(row)]
    if not found:
        faults.append(Fault(shown, "has no rows", "add some"))
    if faults:
        raise refusal(shown, faults)
    return _kept(domain, rows, shown)


def refusal(source: str, faults: Sequence[Fault]) -> DataError:
    """The error for all faults of `source`, of which the first few are listed."""
    listed = list(faults[:_LISTED])
    if more := len(faults) - len(listed):
        listed.append(Fault(source, f"and {more} more", "mend those above, then check again"))
    return DataError(source, listed)


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Every column that some row has, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def text_of(value: Any) -> str:
    """A value as it would stand in a csv file; null is empty."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean …?` where one of `names` is near."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def show(path: Path) -> str:
    """How people read a path: from the current folder where it lies below, else as given."""
    if path.parent == SAMPLES:
        return f"sample:{path.stem}"
    try:
        return Path(os.path.abspath(path)).relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()


def guess_encoding(data: bytes) -> str:
    """utf-8 where the bytes are, else what Windows or an old system would have written."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for encoding in ("utf-8", "latin-1"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        # Latin-1 has only control characters where Windows has its quotes and dashes.
        return "cp1252" if re.search("[\x80-\x9f]", text) and encoding == "latin-1" else encoding
    raise AssertionError("every byte is a character of Latin-1")


def guess_delimiter(text: str, columns: Sequence[str] | None = None) -> str:
    """The delimiter that gives the first records equally many fields, at least two."""

    def fit(delimiter: str) -> tuple[bool, float, int]:
        if columns:
            lines = islice(io.StringIO(text, newline=""), _SAMPLED)
            fits = [line.count(delimiter) >= len(columns) - 1 for line in lines]
            return True, sum(fits) / len(fits), 0
        widths = [0 if each.problem else len(each.cells) for each in islice(records(text, delimiter), _SAMPLED)]
        return widths[0] > 1, widths.count(widths[0]) / len(widths), widths[0]

    return max(_DELIMITERS, key=fit) if text.strip() else _DELIMITERS[0]


def records(text: str, delimiter: str) -> Iterator[_Record]:
    """Delimited text as RFC 4180 has it, with any delimiter and any length of a cell.

    The csv module takes one character as delimiter, and at a quote that is never closed it reads on
    until a limit of its own, without saying where the row began.
    """
    mark = re.escape(delimiter)
    plain = rf"[^{mark}\r\n]" if len(delimiter) == 1 else rf"(?:(?!{mark})[^\r\n])"
    cell = re.compile(rf'(?:"([^"]*+(?:""[^"]*+)*+)"|(?!"){plain}*+)({mark}|\r\n|\r|\n|\Z)')
    position, line, begin = 0, 1, 1
    cells: list[str] = []
    while position < len(text) or cells:
        match = cell.match(text, position)
        if match is None:
            quoted = _QUOTED.match(text, position)
            yield _Record(begin, cells, "text behind its closing quote" if quoted else "a quote that is never closed")
            end = _LINE_END.search(text, quoted.end()) if quoted else None
            if end is None:
                return
            line += _line_ends(text[position : end.end()])
        else:
            quoted_text, end_text = match.groups()
            raw = text[position : match.start(2)]
            cells.append(raw if quoted_text is None else quoted_text.replace('""', '"'))
            line += _line_ends(raw) + (end_text != delimiter)
            end = match
        position = end.end()
        if match is None or end_text != delimiter:
            if match:
                yield _Record(begin, cells)
            cells, begin = [], line


_QUOTED = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')
_LINE_END = re.compile(r"\r\n|\r|\n")


def _line_ends(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")
