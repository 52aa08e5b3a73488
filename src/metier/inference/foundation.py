"""What runs of one base look like from another engine: the base's files, its tokens, and PEFT folders by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from metier.data.rendering import Renderer
from metier.errors import MetierError
from metier.events import Listener
from metier.hub import Source
from metier.inference.loaded import identity, warn_forgeable
from metier.model.adapters import check_belongs
from metier.model.bank import bankable
from metier.run import Run
from metier.stages import find_base


@dataclass(frozen=True)
class Foundation:
    """A base, by a recipe's name for it, which may be a path from `home`, with the adapters on it."""

    model: str
    home: Path
    source: Source
    renderer: Renderer
    adapters: Mapping[str, Path]


def open_foundation(runs: Mapping[str, Run], engine: str, *, offline: bool, listen: Listener) -> Foundation:
    """Of runs of one base, template and tokenizer.

    Raises `MetierError` for a run that is more than a base with low ranks beside linear layers, `ModelError` where base
    or adapter have changed.
    """
    tuned = {name: run for name, run in runs.items() if run.facts["method"] != "none"}
    if strange := [name for name, run in tuned.items() if not bankable(run.adapter)]:
        problem = f"engine = {engine} serves low-rank adapters beside linear layers alone, not {', '.join(strange)}"
        raise MetierError(problem, "leave them out, or leave the engine to metier")
    first = next(iter(runs.values()))
    recipe = first.recipe()
    source = find_base(recipe.model, recipe.directory, offline=offline, listen=listen)
    template = first.adapter / "chat_template.jinja"
    renderer = Renderer.load(source.directory, template.read_text(encoding="utf-8") if template.exists() else None)
    warn_forgeable(recipe.model, renderer, listen)
    for run in tuned.values():
        check_belongs(run.adapter, identity(recipe.model, source, renderer))
    return Foundation(
        recipe.model, recipe.directory, source, renderer, {name: run.adapter for name, run in tuned.items()}
    )
