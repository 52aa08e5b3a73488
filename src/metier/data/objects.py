"""JSON → objects, each with the line on which it begins."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from metier.errors import Fault, RowFault


def read_objects(text: str, shown: str) -> Iterator[tuple[int, dict[str, Any]] | Fault]:
    """The objects of JSON lines, of one JSON array, or of one object that has them under their ids."""
    read = _array if text.lstrip().startswith("[") else _keyed if _is_keyed(text) else _lines
    return _objects(list(read(text)), shown, RowFault if read is _lines else Fault)


def read_inner(text: str, name: str, shown: str) -> Iterator[tuple[int, dict[str, Any]] | Fault] | None:
    """The entries of the list that one object, the whole text, holds under `name`, each with what stands beside it.

    None where the text is something else.
    """
    if not text.lstrip().startswith("{") or _broken(text):
        return None
    members = {key: (value, begin) for key, value, _, begin in _members(text)}
    inner, begin = members.pop(name, (None, 0))
    if not isinstance(inner, list) or not inner:
        return None
    beside = {key: value for key, (value, _) in members.items()}
    entries = ((line, each if isinstance(each, dict) else {name: each}) for line, each in _array(text, begin))
    return _objects([(line, {**beside, **each}) for line, each in entries], shown)


def _objects(
    found: list[tuple[int, Any]], shown: str, broken: type[Fault] = Fault
) -> Iterator[tuple[int, dict[str, Any]] | Fault]:
    """The objects; a value that is `broken` may have swallowed those behind it, but not where each has a line."""
    if len(found) > 1 and not any(isinstance(value, dict | ValueError) for _, value in found):
        yield Fault(shown, "holds values, but no JSON objects", 'write {"prompt": "…", "answer": "…"} for each row')
        return
    for line, value in found:
        place = f"{shown}:{line}"
        if isinstance(value, dict):
            if _is_text(value):
                yield line, {name: _inner(each) for name, each in value.items()}
            else:
                yield RowFault(place, "holds half of a surrogate pair", "write the character itself")
        elif isinstance(value, ValueError):
            yield broken(place, f"is not JSON: {value}", 'write one object a line: {"prompt": "…", "answer": "…"}')
        else:
            yield RowFault(place, "is not a JSON object", 'write {"prompt": "…", "answer": "…"}')


def _lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(io.StringIO(text, newline=""), start=1):
        if line.strip():
            try:
                yield number, _DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                alone = text.partition("\n")[2].lstrip()[:1] in ("{", "")
                if number == 1 and not alone:  # one value over many lines: the others fail alike
                    broken = _broken(text)
                    yield broken or 1, _plain(error) if broken else _DECODER.decode(text)
                    return
                yield number, _plain(error)


def _is_keyed(text: str) -> bool:
    """Whether one object is the whole text and holds little else than others."""
    if _broken(text.split("\n", 1)[0]) == 0 and "\n" in text.strip():  # a row by itself, and others behind it
        return False
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _KEYED.match(text) is not None
    entries = list(value.values()) if isinstance(value, dict) else []
    return 2 * sum(isinstance(each, dict) for each in entries) > len(entries)


def _broken(text: str) -> int:
    """The line on which a text ceases to be one JSON value, 0 where it is one."""
    try:
        _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return error.lineno
    except RecursionError:
        return 1
    return 0


def _array(text: str, begin: int = 0) -> Iterator[tuple[int, Any]]:
    """The elements of the array from `begin` on, with the lines on which they begin."""
    position = text.index("[", begin) + 1
    line = text.count("\n", 0, position) + 1
    while True:
        gap = _gap(text, position)
        line += text.count("\n", position, gap)
        if text.startswith("]", gap):
            return
        try:
            value, position = _DECODER.raw_decode(text, gap)
        except (ValueError, RecursionError) as error:
            yield line, _plain(error)
            return
        yield line, value
        line += text.count("\n", gap, position)


def _keyed(text: str) -> Iterator[tuple[int, Any]]:
    """The objects of an object whose keys are their ids, with the lines on which they begin."""
    for key, value, line, _ in _members(text):
        yield line, {"id": key, **value} if isinstance(value, dict) else value


def _members(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """An object's keys with their values, the lines of the keys, and where the values begin."""
    position, line = text.index("{") + 1, text.count("\n", 0, text.index("{")) + 1
    while not text.startswith("}", gap := _gap(text, position)):
        line += text.count("\n", position, gap)
        try:
            key, colon = _DECODER.raw_decode(text, gap)
            begin = _gap(text, text.index(":", colon) + 1)
            value, position = _DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError) as error:
            yield "", _plain(error), line, gap
            return
        yield key, value, line, begin
        line += text.count("\n", gap, position)


def _gap(text: str, position: int) -> int:
    """Where white space and commas end."""
    found = _SEPARATORS.match(text, position)
    assert found is not None, "the pattern matches nothing too"
    return found.end()


_KEYED = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{')
_SEPARATORS = re.compile(r"\s*,?\s*")


def listed(value: Any) -> Any:
    """A list or an object that stands in a csv file as JSON text; None where such text is broken."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value


class _Number(str):
    """A number as the file writes it."""


# NaN is the missing value that a table's export means by it.
_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=lambda _: None)


def _inner(value: Any) -> Any:
    """A cell: its own number stays as written, those within a list or an object are numbers, as tools want them."""
    if isinstance(value, dict):
        return {name: _value(_inner(each)) for name, each in value.items()}
    return [_value(_inner(each)) for each in value] if isinstance(value, list) else value


def _value(value: Any) -> Any:
    if not isinstance(value, _Number):
        return value
    try:
        return int(value) if value.lstrip("-").isdecimal() else float(value)
    except ValueError:  # more digits than Python takes
        return str(value)


def _plain(error: ValueError | RecursionError) -> ValueError:
    """The complaint without the place in the text, which people look for by its line."""
    match error:
        case json.JSONDecodeError():
            return ValueError(error.msg.removesuffix(" at"))
        case RecursionError():
            return ValueError("nested too deeply")
    return ValueError("a key has no value")


def _is_text(value: dict[str, Any]) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
