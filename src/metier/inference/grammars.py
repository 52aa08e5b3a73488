"""Answers that have to be JSON, of a schema or any: which tokens may come next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from metier.data.rendering import Renderer
from metier.errors import MetierError

_COMPACT: Any = {"whitespace_flexible": False}  # or a small model would go on with spaces for ever
_LONGEST = 20_000  # characters of a schema; the time that it takes grows with their square
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


class JsonGrammar:
    """Follows one answer; used up with it. `schema` None means any object.

    Raises `MetierError` for a schema that cannot be followed.
    """

    def __init__(self, renderer: Renderer, vocabulary: int, schema: Mapping[str, Any] | None) -> None:
        tokenizer = _tokenizer(renderer, vocabulary)
        self.schema = schema or _ANY_OBJECT
        try:
            written = json.dumps(self.schema)
            if len(written) > _LONGEST:
                raise ValueError(f"it has {len(written):,} characters, and may have {_LONGEST:,}")
            grammar = LLMatcher.grammar_from_json_schema(written, _COMPACT)
            faulty = LLMatcher.validate_grammar(grammar, tokenizer)
        except (ValueError, RecursionError) as error:  # of what is too long, or nested too deeply for either library
            faulty = str(error)
        if faulty:
            problem = f"response_format: the schema cannot be followed: {faulty.splitlines()[0]}"
            raise MetierError(problem, "give a schema that says what the answer is")
        self._matcher = LLMatcher(tokenizer, grammar)
        self._vocabulary = vocabulary

    def allowed(self) -> Tensor:
        """Which tokens may come next, [V] of bool; only those that end a turn where the answer is whole."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self._vocabulary].astype(bool))

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)


@lru_cache(maxsize=8)
def _tokenizer(renderer: Renderer, vocabulary: int) -> LLTokenizer:
    backend: Any = renderer.tokenizer
    made: LLTokenizer = llguidance.hf.from_tokenizer(backend, vocabulary, eos_token=[*renderer.stop_ids])
    return made
