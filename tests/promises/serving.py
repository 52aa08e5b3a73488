"""Tiny runs in two domains, and a server over them on a port of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metier import experiment
from metier.recipe import Recipe
from metier.run import Run
from metier.web.app import make_app
from metier.web.desk import Desk
from metier.web.guard import Rules
from metier.web.jobs import Jobs
from metier.web.keys import Keys
from metier.web.serve import Address, Server, configured
from tests.promises import two_domains

_RECIPE = f"""{two_domains.DOMAINS}
system = "Help."
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
    two_domains.write(home)
    (home / "recipe.toml").write_text(_RECIPE)
    return Recipe.load(home / "recipe.toml")


def train(home: Path, strategies: dict[str, dict[str, Any]], **plan: Any) -> dict[str, Run]:
    """Runs by name; `plan` forces choices of their plans."""
    recipe = write(home)
    return {
        name: experiment.train(recipe.override(strategy=strategy), overrides=plan)
        for name, strategy in strategies.items()
    }


@contextmanager
def served(desk: Desk, home: Path, keys: Keys | None = None, **rules: Any) -> Iterator[str]:
    """Its address, as long as the block lasts."""
    jobs = Jobs(home / "jobs", desk.add, offline=True)
    app = make_app(desk, jobs, Rules(**{"hosts": ("127.0.0.1",), **rules}), keys or Keys(), home=home)
    server = Server(configured(app, Address(port=0)), jobs, desk.voices)
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
