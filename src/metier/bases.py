"""Open bases that metier knows by shape: their sizes by arithmetic, their licences, the pages where each was read."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

_LIST = Path(__file__).parent / "assets" / "bases.toml"
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Base:
    """An entry of bases.toml; the shape's fields bear the names that config.json gives them."""

    name: str
    licence: str
    licence_pages: Sequence[str]
    gated: bool
    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    tie_word_embeddings: bool
    shape_pages: Sequence[str]
    read: date
    terms: str = ""
    revision: str | None = None

    @property
    def page(self) -> str:
        """Where the hub shows it, and where a gated one is asked for."""
        return f"{_HUB}/{self.name}"

    @property
    def pinned(self) -> str:
        """The name as a recipe writes it, with the revision where one is known."""
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def linear_parameters(self) -> int:
        """Weights in the linear layers but the output head: attention and a gated feed-forward."""
        return self.num_hidden_layers * sum(wide * high for wide, high in self._linears())

    @property
    def parameters(self) -> int:
        """All weights but norms and biases, together under a thousandth."""
        embeddings = self.vocab_size * self.hidden_size * (1 if self.tie_word_embeddings else 2)
        return self.linear_parameters + embeddings

    @property
    def bytes(self) -> int:
        """Its files: 16 bits a weight."""
        return 2 * self.parameters

    @property
    def cache_width(self) -> int:
        """Key and value numbers that a layer keeps for one position."""
        return 2 * self.num_key_value_heads * self.head_dim

    def adapter(self, r: int) -> int:
        """What LoRA of rank `r` trains on every linear layer: r × (inputs + outputs) each."""
        return self.num_hidden_layers * r * sum(wide + high for wide, high in self._linears())

    def _linears(self) -> list[tuple[int, int]]:
        """Inputs and outputs of a layer's linear maps: q, k, v, o, gate, up, down."""
        hidden, query = self.hidden_size, self.num_attention_heads * self.head_dim
        key, wide = self.num_key_value_heads * self.head_dim, self.intermediate_size
        attention = [(hidden, query), (hidden, key), (hidden, key), (query, hidden)]
        return [*attention, (hidden, wide), (hidden, wide), (wide, hidden)]


@cache
def known() -> tuple[Base, ...]:
    """Every listed base, the smallest first."""
    entries = tomllib.loads(_LIST.read_text(encoding="utf-8"))["base"]
    return tuple(sorted((Base(**entry) for entry in entries), key=lambda base: base.parameters))


def find(name: str) -> Base | None:
    """The entry of a hub name, if it is listed."""
    return next((base for base in known() if base.name == name), None)


def table() -> str:
    """The page docs/reference/bases.md."""
    head = ["base", "parameters", "files", "licence", "gated", "shape read on", "licence read on", "read"]
    lines = [_row(head), _row(["---"] * len(head))]
    for base in known():
        terms = f" ({base.terms}: not proposed)" if base.terms else ""
        lines.append(
            _row(
                [
                    f"[{base.name}]({base.page})",
                    f"{base.parameters / 1e9:.2f} B",
                    f"{base.bytes / 1e9:.1f} GB",
                    base.licence + terms,
                    "yes" if base.gated else "no",
                    _links(base.shape_pages),
                    _links(base.licence_pages),
                    base.read.isoformat(),
                ]
            )
        )
    return _INTRODUCTION + "\n".join(lines) + "\n"


_INTRODUCTION = """# Bases

`metier init` proposes the largest of these whose plan fits the machine within an hour; any other causal language
model with safetensors works by name, `owner/name` or `owner/name@revision`. Parameters and sizes are computed from
the shape. A gated base is proposed only where a token is set. Written from `src/metier/assets/bases.toml` by
`python -c "from metier.bases import table; print(table(), end='')"`.

"""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _links(pages: Sequence[str]) -> str:
    return ", ".join(f"[{number}]({page})" for number, page in enumerate(pages, 1))
