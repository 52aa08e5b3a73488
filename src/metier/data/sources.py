"""Files → rows: delimited text, JSON, parquet and plain text, each row with the line on which it begins."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metier.data import online
from metier.data.delimited import Record, guess_delimiter, records, split_lines
from metier.data.dialects import translate
from metier.data.encodings import decode
from metier.data.objects import read_inner, read_objects
from metier.data.online import Online
from metier.data.prose import cut
from metier.domain import Domain
from metier.errors import DataError, Fault, RowFault, nearest
from metier.files import digest
from metier.recipe import SAMPLES

DELIMITED = (".csv", ".tsv", ".txt")
_JSON = (".jsonl", ".ndjson", ".json")
PARQUET = ".parquet"
PROSE = (".md", ".markdown")  # and .txt, where the domain says that it is text
EXPLODED = "exploded from"  # a column of its own: rows of one source row stay together
_NAME = 200  # characters of a path that people are shown
_CELL = 100_000  # characters; a longer cell is a mistake of whoever exported it

SKIP = "to leave such rows out: skip_faulty = true in the [[domain]], or `metier init FILE --skip-faulty`"

_Values = tuple[int, dict[str, Any]]  # a row's line and its values


@dataclass(frozen=True)
class Row:
    """A row as it stands in its file; `number` counts from 0 the rows that are kept.

    Numbers of a JSON file keep the text in which they are written, so that csv and JSON mean the same.
    """

    place: str
    number: int
    values: dict[str, Any]


def read_rows(domain: Domain, path: Path | Online, collect: list[Fault] | None = None) -> list[Row]:
    """The rows of a file, a folder of texts or a data set of the hub that `domain.where` keeps.

    Raises `DataError` with every fault of the file; with `collect`, faults of single rows go there
    instead, so that those which others find are told together with them. A row that has one is not returned.
    """
    if isinstance(path, Path) and domain.text and os.path.isdir(path):
        return _read_folder(domain, path, collect)
    shown, faults, spoiled = show(path) if isinstance(path, Path) else path.spec, list[Fault](), False
    if isinstance(path, Online):
        found: Iterable[_Values | Fault] = _plain_rows(online.read(path))
    elif path.suffix.lower() == PARQUET:
        found = _table(read_bytes(path), shown)
    else:
        text = decode(read_bytes(path), domain.encoding, shown)
        if not text.strip():
            raise DataError(shown, [Fault(shown, "is empty", "give a file with rows")])
        found = _parsed(text, domain, path)
        faults += _nul_faults(text, shown)
        spoiled = bool(faults) and path.suffix.lower() not in _JSON  # whose lines are broken by it
    found = list(_exploded(found, domain.explode, shown) if domain.explode else found)
    if not domain.text:
        found = [fault for each in found for fault in _cell_faults(each, shown)]
    entries = [each for each in found if not isinstance(each, Fault)]
    faults += [each for each in found if isinstance(each, Fault)]
    if not found:
        faults.append(Fault(shown, "has no rows", "add some"))
    if spoiled:
        entries = [entry for entry in entries if not any("\0" in text_of(cell) for cell in entry[1].values())]
    if faults and (collect is None or not entries):
        raise DataError(shown, faults, SKIP if of_rows(faults) and entries else "")
    if collect is not None:
        collect += faults
    kept = _kept(domain, entries, shown)
    plain = translate([values for _, values in kept])
    return [
        Row(f"{shown}:{line}", number, values)
        for number, ((line, _), values) in enumerate(zip(kept, plain, strict=True))
    ]


def of_rows(faults: Iterable[Fault]) -> bool:
    """Whether each fault is that of one row, without which the others can be read."""
    return all(isinstance(fault, RowFault) for fault in faults)


def as_prose(domain: Domain, path: Path) -> Domain:
    """The domain that says that Markdown, and a folder, is plain text."""
    prose = domain.text is None and (path.suffix.lower() in PROSE or os.path.isdir(path))
    return domain.model_copy(update={"text": "text"}) if prose else domain


def _is_prose(domain: Domain, path: Path) -> bool:
    """Whether a file is plain text, not a table."""
    return path.suffix.lower() in PROSE or (path.suffix.lower() == ".txt" and domain.text is not None)


def _read_folder(domain: Domain, path: Path, collect: list[Fault] | None) -> list[Row]:
    """The rows of every text file in a folder and below."""
    try:
        files = sorted(each for each in path.rglob("*") if each.suffix.lower() in (*PROSE, ".txt"))
    except OSError as error:
        fault = Fault(show(path), f"cannot be read: {error.filename}: {error.strerror}", "name a folder of your own")
        raise DataError(show(path), [fault]) from None
    if not files:
        raise DataError(show(path), [Fault(show(path), "is a folder without text files", "name a file in it")])
    empty = [each for each in files if not each.stat().st_size]
    faults = [RowFault(show(each), "is empty", "remove the file, or fill it in") for each in empty]
    if faults and (collect is None or len(faults) == len(files)):
        raise DataError(show(path), faults, SKIP if len(faults) < len(files) else "")
    if collect is not None:
        collect += faults
    rows = [
        replace(row, values={**row.values, "file": each.relative_to(path).as_posix()})
        for each in files
        if each not in empty
        for row in read_rows(as_prose(domain, path), each, collect)
    ]
    return [replace(row, number=number) for number, row in enumerate(rows)]


def _parsed(text: str, domain: Domain, path: Path) -> Iterable[_Values | Fault]:
    """The rows of a text file by its kind."""
    if _is_prose(domain, path):
        return _passages(text, path)
    if path.suffix.lower() in DELIMITED:
        return _delimited(text, domain, show(path))
    if domain.explode:
        inner = read_inner(text, domain.explode, show(path))
        if inner is not None:
            return (each if isinstance(each, Fault) else _by_itself(*each) for each in inner)
    return read_objects(text, show(path))


def _by_itself(line: int, values: dict[str, Any]) -> _Values:
    """An entry of the list that is the file: nothing belongs together with it."""
    return line, {**values, EXPLODED: digest(values)[:16]}


def _passages(text: str, path: Path) -> Iterator[_Values]:
    line, read = 1, 0
    for at, passage in cut(text):
        line, read = line + text.count("\n", read, at), at
        yield line, {"text": passage, "file": path.name}


def _exploded(found: Iterable[_Values | Fault], column: str, shown: str) -> Iterator[_Values | Fault]:
    """A row for each entry of a column's list; an entry that is an object brings its own columns."""
    for each in found:
        if isinstance(each, Fault) or EXPLODED in each[1]:
            yield each
            continue
        line, values = each
        entries = values.get(column)
        if not isinstance(entries, list) or not entries:
            problem = "holds no list" if entries != [] else "holds an empty list"
            yield RowFault(f"{shown}:{line}: {column}", problem, "remove the row, or `explode` from the recipe")
            continue
        shared = digest({name: value for name, value in values.items() if name != column})[:16]
        for entry in entries:
            own = entry if isinstance(entry, dict) else {column: entry}
            yield line, {**values, **own, EXPLODED: shared}


def read_bytes(path: Path) -> bytes:
    """The bytes of a data file; every way in which it cannot be read is a `DataError`."""
    shown, kinds = show(path), (*DELIMITED, *_JSON, PARQUET, *PROSE)
    if os.path.isdir(path):
        raise DataError(shown, [Fault(shown, "is a folder", "name a file in it")])
    if path.suffix.lower() not in kinds and os.path.exists(path):
        problem = f"is of a kind that is not read ({path.suffix or 'no suffix'})"
        packed = path.suffix.lower() in (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z")
        fix = "unpack it" if packed else f"save it as one of {', '.join(kinds)}"
        raise DataError(shown, [Fault(shown, problem, fix)])
    try:
        return path.read_bytes()
    except FileNotFoundError:
        near = nearest(path.name, [each.name for each in path.parent.glob("*")])
        fix = "name a file that is there; a recipe's relative paths begin at its folder and data_root"
        raise DataError(shown, [Fault(shown, f"does not exist{near}", fix)]) from None
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        problem = f"cannot be read: {getattr(error, 'strerror', error)}"
        fault = Fault(_short(shown), problem, "mend its name or permissions, or copy it")
        raise DataError(shown, [fault]) from None


def read_ids(path: Path) -> set[str]:
    """The ids of a list: the keys of a JSON object, the entries of a JSON list, or one a line."""
    text = decode(read_bytes(path), "utf-8", show(path))
    try:
        value = json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        value = text.split()
    found = {text_of(each) for each in value} if isinstance(value, list | dict) else {text_of(value)}
    if not found - {""}:
        raise DataError(show(path), [Fault(show(path), "lists no ids", "give one a line, or a JSON list")])
    return found - {""}


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Every column that some row has, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def text_of(value: Any) -> str:
    """A value as it would stand in a csv file; null is empty."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _short(shown: str) -> str:
    return shown if len(shown) < _NAME and shown.isprintable() else f"{shown[:_NAME]!r}…"


def show(path: Path) -> str:
    """How people read a path: from the current folder where it lies below, else as given."""
    if path.parent == SAMPLES:
        return f"sample:{path.stem}"
    try:
        shown = Path(os.path.abspath(path)).relative_to(Path.cwd()).as_posix()
    except ValueError:
        shown = path.as_posix()
    return shown if shown.strip() else repr(shown)


def _delimited(text: str, domain: Domain, shown: str) -> Iterator[_Values | Fault]:
    width = len(domain.columns) if domain.columns else None
    delimiter = domain.delimiter or guess_delimiter(text, width)
    if domain.columns:
        names, body = list(domain.columns), split_lines(text, delimiter, len(domain.columns))
        yield from _quoted_faults(text, shown)
    else:
        body = records(text, delimiter)
        header = next(body)
        if header.problem:
            yield _record_fault(header, [], delimiter, shown)
            return
        names = [cell.strip() or f"column {index}" for index, cell in enumerate(header.cells, start=1)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        yield Fault(f"{shown}:1", f"has the column {twice[0]!r} twice", "give every column its own name")
        return
    filled = [record for record in body if record.problem or any(map(str.strip, record.cells))]
    odd = [record for record in filled if record.problem or len(record.cells) != len(names)]
    if 2 * len(odd) > len(filled) > 2:
        fix = 'set delimiter; for a file whose first line is no header also columns = ["text", "label"]'
        yield Fault(shown, f"most rows do not have the first line's {len(names)} fields", fix)
        return
    for record in odd:
        yield _record_fault(record, names, delimiter, shown)
    for record in filled:
        if not record.problem and len(record.cells) == len(names):
            yield record.line, dict(zip(names, record.cells, strict=True))


def _record_fault(record: Record, names: Sequence[str], delimiter: str, shown: str) -> Fault:
    place, mark = f"{shown}:{record.line}", "tab" if delimiter == "\t" else delimiter
    if record.problem:
        column = names[len(record.cells)] if len(record.cells) < len(names) else f"field {len(record.cells) + 1}"
        kind = Fault if record.swallows else RowFault
        return kind(f"{place}: {column}", record.problem, 'put the cell in double quotes and write " inside as ""')
    count = len(record.cells)
    problem = f"has {count} field{'s' * (count != 1)}, not {len(names)}"
    return RowFault(place, problem, f"put text that contains {mark} or a line break in double quotes")


def _quoted_faults(text: str, shown: str) -> Iterator[Fault]:
    """A file without header is split without regard to quotes, which would garble one that has them."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if 2 * sum(line.startswith('"') or line.endswith('"') for line in lines) > len(lines):
        fix = "write the names as the file's first line, and remove `columns`"
        yield Fault(shown, "has cells in quotes, which `columns` does not read", fix)


def _table(data: bytes, shown: str) -> Iterator[_Values | Fault]:
    """The rows of a parquet file, counted from 1; what JSON would not know is written as text."""
    from pyarrow import ArrowException, BufferReader, parquet

    try:
        rows = parquet.read_table(BufferReader(data)).to_pylist()
    except (ArrowException, OSError) as error:
        yield Fault(shown, f"is no parquet file: {str(error).splitlines()[0]}", "write it again")
        return
    yield from _plain_rows(rows)


def _plain_rows(rows: Iterable[dict[str, Any]]) -> Iterator[_Values]:
    """Rows of a table, counted from 1, as JSON lines would have them."""
    for number, row in enumerate(rows, start=1):
        cells = {name: _as_json(value) for name, value in row.items()}
        yield number, {name: str(cell) if _is_number(cell) else cell for name, cell in cells.items()}


def _as_json(value: Any) -> Any:
    """As the same value would come from JSON: no keys that a struct lacks, and no value that is no number."""
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return None if math.isnan(value) else value
        case dict():
            return {name: _as_json(each) for name, each in value.items() if each is not None}
        case list():
            return [_as_json(each) for each in value]
        case bytes():
            return value.decode("utf-8", errors="replace")
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _nul_faults(text: str, shown: str) -> Iterator[Fault]:
    lines = [number for number, line in enumerate(text.split("\n"), start=1) if "\0" in line]
    if 2 * len(lines) > text.count("\n") > 2:
        fix = 'if it is UTF-16, set encoding = "utf-16", "utf-16-le" or "utf-16-be"'
        yield Fault(shown, "holds NUL bytes on most lines", fix)
        return
    for number in lines:
        fix = 'remove it; if the file is UTF-16, set encoding = "utf-16"'
        kind = RowFault if number > 1 else Fault  # the first line may name the columns
        yield kind(f"{shown}:{number}", "holds a NUL byte", fix)


def _cell_faults(entry: _Values | Fault, shown: str) -> Iterator[_Values | Fault]:
    """The row, or what is wrong with its cells; one with a NUL byte was told by its line."""
    if isinstance(entry, Fault):
        yield entry
        return
    line, values = entry
    lengths = {name: _longest(value) for name, value in values.items()}
    for name, length in lengths.items():
        if length > _CELL:
            problem = f"has {length:,} characters, more than {_CELL:,}"
            yield RowFault(f"{shown}:{line}: {name}", problem, f"shorten the text in {name!r} or remove the row")
    if max(lengths.values(), default=0) <= _CELL:
        yield entry


def _longest(value: Any) -> int:
    """The length of the longest text in a cell."""
    if isinstance(value, dict | list):
        return max(map(_longest, value.values() if isinstance(value, dict) else value), default=0)
    return len(value) if isinstance(value, str) else 0


def _kept(domain: Domain, entries: list[_Values], shown: str) -> list[_Values]:
    """The rows whose columns have the wanted values."""
    columns = list(dict.fromkeys(name for _, values in entries for name in values))
    place = f"domain {domain.name}: where"
    if absent := [name for name in domain.where if name not in columns]:
        fix = f"{shown} has {', '.join(columns)}"
        raise DataError(shown, [Fault(place, f"there is no column {n!r}{nearest(n, columns)}", fix) for n in absent])
    for name, wanted in domain.where.items():
        present = dict.fromkeys(text_of(values.get(name)).strip() for _, values in entries)
        entries = [each for each in entries if text_of(each[1].get(name)).strip() == wanted]
        if not entries:
            values = ", ".join(map(repr, list(present)[:10]))
            raise DataError(shown, [Fault(place, f"keeps no row: {name} is never {wanted!r}", f"values are {values}")])
    return entries
