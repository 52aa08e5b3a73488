"""What people ask about, where the name of their domain does not say it: medicine, banking, or anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from metier.assistant.likeness import Learned, lines
from metier.assistant.phrases import Lexicon
from metier.assistant.rules import ASSETS, Kind
from metier.assistant.scope import other_business

_KINDS: tuple[Kind, ...] = ("medical", "banking")
_FEWEST, _MOST = 20, 1000  # questions
# From this margin on a question sounds so, and so many of all have to. Of public sets of questions those on health and
# on banking have 11 to 48 in 100, others at most 7 (docs/log.md, 2026-11-22).
_MARGIN, _TENTH = -1.0, 0.1


@dataclass(frozen=True)
class Trades:
    """How much like the questions of the samples that ship others are, by kind."""

    learned: Mapping[Kind, Learned]

    @classmethod
    def open(cls, lexicon: Lexicon) -> Self:
        kinds = {kind: _asked(kind) for kind in _KINDS}
        return cls(Learned.fit_each(kinds, [*_asked("telecom"), *other_business()], lexicon))

    def sound(self, texts: Sequence[str]) -> Kind | None:
        """What these questions are about, where enough of them are like the samples' own."""
        if len(texts) < _FEWEST:
            return None
        texts = texts[:: -(-len(texts) // _MOST)]
        shares = {kind: float(np.mean(each.margins(texts) >= _MARGIN)) for kind, each in self.learned.items()}
        likeliest = max(_KINDS, key=lambda kind: shares[kind])
        return likeliest if shares[likeliest] >= _TENTH else None


def _asked(sample: str) -> list[str]:
    talks = map(json.loads, lines(ASSETS / "samples" / f"{sample}.jsonl"))
    return [turn["content"] for talk in talks for turn in talk["messages"] if turn["role"] == "user"]
