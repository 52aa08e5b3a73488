"""A TOML file's values, and dotted keys over them: `train.learning_rate=1e-4`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metier.errors import Fault, RecipeError


def read_toml(path: Path) -> dict[str, Any]:
    """A file's values. Raises `RecipeError` with the line where it is not TOML, `OSError` where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        fault = Fault(f"{path}:{line}", f"byte 0x{error.object[error.start]:02x} is not utf-8", "save it as UTF-8")
    except RecursionError:
        fault = Fault(str(path), "is not TOML: nested too deeply", "look for brackets that are never closed")
    except ValueError as error:
        problem, _, place = str(error).partition(" (at ")
        line_of = re.match(r"line (\d+)", place)
        fault = Fault(f"{path}:{line_of[1]}" if line_of else str(path), f"is not TOML: {problem}", "mend that line")
    raise RecipeError(str(path), [fault])


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` as typed after --set: the value is TOML where it can be, else text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(
            "--set", [Fault(text or '""', "is not key=value", "write for example train.learning_rate=1e-4")]
        )
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def override_keys(raw: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` with dotted keys set; a domain is named (`domain.banking.weight`) or counted from 0."""
    result: dict[str, Any] = {key: _copy(value) for key, value in raw.items()}
    for dotted, value in changes.items():
        node: Any = result
        *parents, last = dotted.split(".")
        for part in parents:
            node = _child(node, part, dotted)
        if isinstance(node, list):
            named = ", ".join(f"domain.{entry.get('name')}.{last}" for entry in node)
            raise RecipeError("--set", [Fault(dotted, "says of no domain whose it is", f"write {named}")])
        if not isinstance(node, dict):
            raise RecipeError("--set", [Fault(dotted, "is not a key of a recipe", "name a table and a field")])
        node[last] = value
    return result


def tuples(value: Any) -> Any:
    """TOML's arrays as the tuples that a frozen recipe holds."""
    if isinstance(value, Mapping):
        return {key: tuples(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return tuple(tuples(entry) for entry in value)
    return value


def _child(node: Any, part: str, dotted: str) -> Any:
    if isinstance(node, list):
        for index, entry in enumerate(node):
            if part in (str(index), entry.get("name")):
                return entry
        names = ", ".join(str(entry.get("name")) for entry in node)
        raise RecipeError("--set", [Fault(dotted, f"there is no domain {part!r}", f"choose from {names}")])
    if not isinstance(node, dict):
        raise RecipeError("--set", [Fault(dotted, "is not a key of a recipe", "name a table and a field")])
    return node.setdefault(part, {})


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(entry) for entry in value]
    return value
