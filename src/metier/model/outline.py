"""A base from outside: its part of a `Shape`, from headers, config and small twins; no weight is read."""

from __future__ import annotations

from pathlib import Path

from metier import hub
from metier.data.classes import Head
from metier.memory import Shape
from metier.model.adapters import WEIGHTS, extent, foreign_why_rows, linear_size
from metier.model.loading import Config, context, probe
from metier.model.trials import Trial, tried
from metier.strategies import Strategy, Tuned


def base_shape(
    source: hub.Source, config: Config, strategy: Strategy, foreign: Path | None, head: Head | None
) -> Shape:
    """What the headers and the config tell of the base, and what small twins of it do."""
    parameters, file_bytes = extent(source, config, head)
    trial = Trial(foreign_why_rows(foreign) if foreign else "")
    if isinstance(strategy, Tuned):
        trial = tried(config, strategy, head)
    why_rows = trial.why_rows if head and head.encoder else probe(config) or trial.why_rows
    return Shape(
        parameters=parameters,
        linear_parameters=linear_size(config, head),
        file_bytes=file_bytes,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        cache_width=cache_width(config),
        vocabulary=config.vocab_size,
        context=context(config),
        forks=not why_rows,
        why_rows=why_rows,
        why_kept=trial.why_kept,
        foreign=foreign is not None,
        frozen=sum(tensor.size for tensor in hub.header(foreign / WEIGHTS)) if foreign else 0,
        examples=0,
        packed_tokens=0,
        row_tokens=0,
        targets=0,
        longest_row=0,
        longest_unit=0,
        largest_step=0,
        general_tokens=0,
        decoded_items=0,
        scored_tokens=0,
        validation_items=0,
    )


def cache_width(config: Config) -> int:
    """Key and value numbers that a layer keeps for one position."""
    heads = getattr(config, "num_attention_heads", None) or 1
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * width * (getattr(config, "num_key_value_heads", None) or heads))
