"""Turn an open language model into an expert in your domains, and prove it.

The public names are imported when they are first asked for, so that importing metier costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Recipe": "metier.recipe",
    "Run": "metier.run",
    "check": "metier.experiment",
    "plan": "metier.experiment",
    "train": "metier.experiment",
    "evaluate": "metier.experiment",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'metier' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
