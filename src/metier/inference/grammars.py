"""Answers that have to be JSON, of a schema or any: which tokens may come next."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor

from metier.data.rendering import Renderer
from metier.errors import MetierError

_COMPACT: Any = {"whitespace_flexible": False}  # or a small model would go on with spaces for ever
_LIMITS = LLParserLimits(max_lexer_states=50_000)  # which take some 20 MB
_LONGEST = 20_000  # characters of a schema; the time that it takes grows with their square
_MAPS = ("properties", "$defs", "definitions")
_SOME = ("items", "prefixItems", "anyOf", "oneOf", "allOf", "if", "then", "else", "not", "additionalProperties")
_BY_OTHERS = ("allOf", "patternProperties", "unevaluatedProperties", "dependentSchemas")
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


class JsonGrammar:
    """Follows one answer; used up with it. `schema` None means any object.

    Raises `MetierError` for a schema that cannot be followed.
    """

    def __init__(self, renderer: Renderer, vocabulary: int, schema: Mapping[str, Any] | None) -> None:
        tokenizer = _tokenizer(renderer, vocabulary)
        self.schema = schema or _ANY_OBJECT
        try:
            if (length := len(json.dumps(self.schema))) > _LONGEST:
                raise ValueError(f"it has {length:,} characters, and may have {_LONGEST:,}")
            self.schema = _closed(self.schema)
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(self.schema), _COMPACT)
            faulty = LLMatcher.validate_grammar(grammar, tokenizer)
        except (ValueError, RecursionError) as error:  # of what is too long, or nested too deeply for either library
            faulty = str(error)
        if faulty:
            raise _unfollowed(faulty)
        self._matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=_LIMITS)  # its warnings quote the answer
        self._vocabulary = vocabulary

    def allowed(self) -> Tensor:
        """Which tokens may come next, [V] of bool; only those that end a turn where the answer is whole."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(bool))

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)

    def assert_followed(self) -> None:
        """Raises `MetierError` where the answer was cut off, for what the schema asks was found to be too much."""
        if self._matcher.is_error():
            raise _unfollowed(self._matcher.get_error())


def _unfollowed(why: str) -> MetierError:
    problem = f"response_format: the schema cannot be followed: {why.splitlines()[0]}"
    return MetierError(problem, "give a schema that says what the answer is")


def _closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """With objects of the keys alone that it names, where it does not say what others they may have.

    A small model would think of more and more keys. Where several schemas make up one object each may name some of its
    keys, and it stays as it is.
    """
    if any(map(_composes, _inside(schema))):
        return schema
    copied = deepcopy(schema)
    for each in _inside(copied):
        if _names_all(each):
            each.setdefault("additionalProperties", False)
    return copied


def _names_all(schema: Mapping[str, Any]) -> bool:
    """Whether it names the keys of an object, and needs no others."""
    named, needed = schema.get("properties"), schema.get("required", [])
    return isinstance(named, dict) and isinstance(needed, list) and all(str(each) in named for each in needed)


def _composes(schema: Mapping[str, Any]) -> bool:
    """Whether an object's keys may stand in more than one place."""
    several = not schema.keys().isdisjoint(("anyOf", "oneOf", "$ref", "if", "not"))
    return not schema.keys().isdisjoint(_BY_OTHERS) or ("properties" in schema and several)


def _inside(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all that stand within it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for key in _MAPS:
        if isinstance(named := schema.get(key), dict):
            for each in named.values():
                yield from _inside(each)
    for key in _SOME:
        several = schema.get(key)
        for each in several if isinstance(several, list) else [several]:
            yield from _inside(each)


@lru_cache(maxsize=8)
def _tokenizer(renderer: Renderer, vocabulary: int) -> LLTokenizer:
    backend: Any = renderer.tokenizer
    made: LLTokenizer = llguidance.hf.from_tokenizer(backend, vocabulary, eos_token=[*renderer.stop_ids])
    return made
