"""Turn an open language model into an expert in your domains, and prove it.

The public names are imported when they are first asked for, so that importing metier costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metier.cli.common import Progress as Progress
    from metier.errors import MetierError as MetierError
    from metier.experiment import check as check
    from metier.experiment import evaluate as evaluate
    from metier.experiment import plan as plan
    from metier.experiment import train as train
    from metier.inference.conversation import chat as chat
    from metier.recipe import Recipe as Recipe
    from metier.run import Run as Run

_PUBLIC = {
    "MetierError": "metier.errors",
    "Progress": "metier.cli.common",
    "Recipe": "metier.recipe",
    "Run": "metier.run",
    "chat": "metier.inference.conversation",
    "check": "metier.experiment",
    "evaluate": "metier.experiment",
    "plan": "metier.experiment",
    "train": "metier.experiment",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'metier' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
