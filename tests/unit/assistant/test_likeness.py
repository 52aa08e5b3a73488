from __future__ import annotations

from pathlib import Path

import pytest

from metier.assistant.likeness import Learned
from metier.assistant.phrases import Lexicon

NEED = ["my chest hurts and he is blue", "he fell and is blue now", "blue lips and he hurts"]
NONE = ["a parcel for me please", "please open an account", "what does a parcel cost"]


@pytest.fixture
def learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Learned:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Learned.fit(NEED, NONE, Lexicon())


def test_the_commonest_words_say_nothing_by_themselves(learned: Learned) -> None:
    """In each text of those in need stands "he" or "and", and in none of the others."""
    assert learned.margin("he") == learned.margin("and he") == learned.margin("zzz")
    assert learned.margin("he is blue") > learned.margin("blue") > 0 > learned.margin("parcel")


def test_what_was_learned_is_kept(learned: Learned, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("it is fitted anew")

    monkeypatch.setattr("metier.assistant.likeness._fit", refused)
    again = Learned.fit(NEED, NONE, Lexicon())
    assert again.margin("he is blue") == learned.margin("he is blue")
    with pytest.raises(AssertionError, match="anew"):
        Learned.fit(NEED, NEED, Lexicon())
