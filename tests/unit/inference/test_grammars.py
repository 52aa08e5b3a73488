from __future__ import annotations

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
