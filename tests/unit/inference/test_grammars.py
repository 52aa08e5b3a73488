from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from metier.data.rendering import Renderer
from metier.errors import MetierError
from metier.inference.grammars import JsonGrammar
from tests.unit import tiny


@pytest.mark.parametrize("depth", [100, 5000])
def test_a_schema_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"in": schema}}
    renderer = Renderer(tiny.tokenizer())
    with pytest.raises(MetierError, match="the schema cannot be followed: "):
        JsonGrammar(renderer, len(renderer.tokenizer), schema)


def test_a_schema_that_is_too_long_is_refused() -> None:
    schema = {"type": "object", "properties": {f"key{n}": {"type": "string"} for n in range(2000)}}
    renderer = Renderer(tiny.tokenizer())
    with pytest.raises(MetierError, match="may have 20,000"):
        JsonGrammar(renderer, len(renderer.tokenizer), schema)


MOOD: dict[str, Any] = {"type": "object", "properties": {"mood": {"type": "string"}}, "required": ["mood"]}


def followed(schema: dict[str, Any]) -> Any:
    renderer = Renderer(tiny.tokenizer())
    return JsonGrammar(renderer, len(renderer.tokenizer), schema).schema


def test_an_object_has_the_keys_that_it_names_alone() -> None:
    """A small model would think of more and more of them."""
    talk = {"type": "object", "properties": {"said": {"type": "array", "items": {"$ref": "#/$defs/Mood"}}}}
    given = {**talk, "$defs": {"Mood": MOOD}}
    found = followed(given)
    assert (found["additionalProperties"], found["$defs"]["Mood"]["additionalProperties"]) == (False, False)
    assert "additionalProperties" not in MOOD  # what was given stays as it was


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {**MOOD, "additionalProperties": {"type": "integer"}},
        {**MOOD, "required": ["mood", "why"]},
        {"allOf": [MOOD, {"type": "object", "properties": {"why": {"type": "string"}}}]},
        {**MOOD, "anyOf": [{"properties": {"why": {"type": "string"}}, "required": ["why"]}]},
    ],
)
def test_what_may_have_other_keys_keeps_them(schema: dict[str, Any]) -> None:
    assert followed(schema) == schema


@pytest.mark.parametrize("odd", [{"properties": ["mood"]}, {**MOOD, "required": 5}, {**MOOD, "required": [["mood"]]}])
def test_an_odd_schema_is_refused_at_most(odd: dict[str, Any]) -> None:
    with suppress(MetierError):
        followed({"type": "object", **odd})
