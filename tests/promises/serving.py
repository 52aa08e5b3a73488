"""Tiny runs in two domains, and a server over them on a port of its own."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from metier import experiment
from metier.recipe import Recipe
from metier.run import Run
from metier.web.app import make_app
from metier.web.desk import Desk
from metier.web.guard import Rules
from metier.web.keys import Keys
from tests.unit import tiny

_RECIPE = """
model = "base"
[[domain]]
name = "mood"
data = "mood.csv"
prompt = "{text}"
answer = "{label}"
labels = ["up", "down"]
heldout = 0.4
[[domain]]
name = "help"
data = "help.csv"
prompt = "{question}"
answer = "{answer}"
system = "Help."
heldout = 0.4
[train]
num_train_epochs = 1
learning_rate = 2e-2
[eval]
max_new_tokens = 6
general_text = "general.csv"
general_choices = ""
"""


def write(home: Path) -> Recipe:
    """A recipe with its data."""
    tiny.save(home / "base")
    (home / "recipe.toml").write_text(_RECIPE)
    moods = [(f"share {n} {('rises', 'falls')[n % 2]}", ("up", "down")[n % 2]) for n in range(40)]
    helps = [(f"how do I open the {n}th box?", f"lift lid {n % 3}") for n in range(40)]
    tables: dict[str, list[tuple[str, ...]]] = {
        "mood.csv": [("text", "label"), *moods],
        "help.csv": [("question", "answer"), *helps],
        "general.csv": [("text",), ("The sea is calm today.",), ("Two and two make four.",)],
    }
    for name, rows in tables.items():
        with (home / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return Recipe.load(home / "recipe.toml")


def train(home: Path, strategies: dict[str, dict[str, Any]]) -> dict[str, Run]:
    recipe = write(home)
    return {name: experiment.train(recipe.override(strategy=strategy)) for name, strategy in strategies.items()}


@contextmanager
def served(desk: Desk, home: Path, keys: Keys | None = None, **rules: Any) -> Iterator[str]:
    """Its address, as long as the block lasts."""
    app = make_app(desk, Rules(**{"hosts": ("127.0.0.1",), **rules}), keys or Keys(), home=home, offline=True)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
