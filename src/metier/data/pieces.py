"""What each token of a vocabulary writes."""

from __future__ import annotations

import re
from functools import cached_property

from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE = re.compile("<0x([0-9A-F]{2})>")  # SentencePiece's, of what it has no piece for


class Pieces:
    """Bytes by token: one may write a part of a character."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend

    def __call__(self, token: int) -> bytes:
        piece: str = self._backend.id_to_token(token) or ""  # a network may have more of them than its tokenizer
        if token in self._added:
            return piece.encode()
        if self._letters:
            return bytes(self._letters[letter] for letter in piece)
        found = _BYTE.fullmatch(piece)
        return bytes([int(found[1], 16)]) if found else piece.replace("▁", " ").encode()

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self._backend.get_added_tokens_decoder())

    @cached_property
    def _letters(self) -> dict[str, int]:
        """Which byte each letter stands for, in byte-level vocabularies."""
        known = "ByteLevel" in str(self._backend.decoder)
        return {letter: byte for byte, letter in bytes_to_unicode().items()} if known else {}
