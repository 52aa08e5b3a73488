"""Plain text is cut between paragraphs, then lines, sentences, words; what is lost is white space."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.data.prose import cut


@given(st.text(alphabet="ab .\n", max_size=12_000))
def test_nothing_but_white_space_is_lost_and_offsets_are_true(text: str) -> None:
    passages = cut(text)
    assert "".join("".join(passage for _, passage in passages).split()) == "".join(text.split())
    assert all(text[at : at + len(passage)] == passage for at, passage in passages)


@pytest.mark.parametrize("seam", ["\n\n", "\n", ". ", " ", ""])
def test_a_long_text_is_cut_at_the_best_seam_that_it_has(seam: str) -> None:
    passages = [passage for _, passage in cut(seam.join(["word" * 20] * 300))]
    assert len(passages) > 5
    assert all(len(passage) <= 4000 for passage in passages)
    if seam.strip() or seam:
        assert all(passage.startswith("word") for passage in passages)


def test_a_short_text_is_one_passage_and_white_space_none() -> None:
    assert cut("  Once.\n\nTwice.  ") == [(2, "Once.\n\nTwice.")]
    assert cut(" \n\n ") == []
