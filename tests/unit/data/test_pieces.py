from __future__ import annotations

from pathlib import Path

import pytest

from metier.data.rendering import Renderer
from metier.hub import EMBEDDED
from metier.web.chat import spelled

TEXT = "Größe ok 🙂 x"


def test_tokens_write_the_bytes_of_their_text() -> None:
    renderer = Renderer.load(EMBEDDED["nano"])
    written = [renderer.written(each) for each in renderer.raw_ids(TEXT)]
    assert b"".join(written).decode() == TEXT
    assert "bytes:\\xc3" in map(spelled, written)
    (ending,) = {renderer.written(each) for each in [renderer.tokenizer.eos_token_id]}
    assert ending.decode() == renderer.tokenizer.eos_token


@pytest.mark.parametrize("name", ["Mistral-7B-v0.3", "Phi-3-mini"])
def test_sentencepiece_writes_bytes_where_it_has_no_piece(shared: Path, name: str) -> None:
    renderer = Renderer.load(shared / "models" / "tokenizers" / name)
    assert b"".join(map(renderer.written, renderer.raw_ids(TEXT))).decode().strip() == TEXT
