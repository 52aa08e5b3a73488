"""A run as the base of the next: continued pre-training, then instructions, then preferences.

What a run tuned is merged into its base once, into `merged/` beside its adapter, and is from then on a base like
any other.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import nn

from metier import hub
from metier.data.rendering import Renderer
from metier.errors import DoesNotFit, ModelError
from metier.events import Event, Listener, silent
from metier.files import verify, write_atomic, write_directory
from metier.hub import Source
from metier.model.adapters import Identity, merge
from metier.model.adapters import load as load_adapter
from metier.model.loading import NumberFormat, load, read_config
from metier.run import Run

_MERGED = "merged"
_OF_THE_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")


def find_base(name: str, anchor: Path, *, offline: bool = False, listen: Listener = silent) -> Source:
    """What `hub.find` finds, or a finished run merged into its base. Raises `ModelError` where neither is there."""
    previous = run_of(name, anchor)
    return (
        merged(name, previous, offline=offline, listen=listen)
        if previous
        else hub.find(name, anchor, offline=offline, listen=listen)
    )


def run_or_base(name: str, anchor: Path, *, offline: bool = False, listen: Listener = silent) -> Run | Source:
    """A run that is the next one's base, or a base; a hub's without its weights."""
    return run_of(name, anchor) or hub.find(name, anchor, offline=offline, listen=listen, weights=False)


def run_of(name: str, anchor: Path) -> Run | None:
    """The run that a recipe's `model` names, if it names one. Raises where it cannot be a base."""
    directory = next(
        (each for each in (anchor / name, Path(os.path.expanduser(name))) if (each / "run.json").is_file()), None
    )
    if directory is None:
        return None
    run = Run.open(directory).finished()
    if not run.adapter.is_dir():
        raise ModelError(f"model: {name}: tuned nothing ({run.facts['method']}); name its base itself, or a tuned run")
    return run


def merged(name: str, run: Run, *, offline: bool, listen: Listener) -> Source:
    """The run's base with its adapter in the weights; made where it is not there yet."""
    directory = run.directory / _MERGED
    if not (directory.is_dir() and verify(directory)):
        with run.locked(wait=True):
            _merge(name, run, directory, offline, listen)
    return Source(name, directory, None)


def _merge(name: str, run: Run, directory: Path, offline: bool, listen: Listener) -> None:
    recipe = run.recipe()
    base = find_base(recipe.model, recipe.directory, offline=offline, listen=listen)
    needed, free = sum(each.bytes for each in base.tensors()), shutil.disk_usage(run.directory).free
    if needed > free:
        problem = f"model: {name}: merging takes {needed / 1e9:.1f} GB in {directory}; {free / 1e9:.1f} GB are free"
        raise DoesNotFit(problem, "free some disk, or move the run to another")
    listen(Event("note", values={"text": f"merging {name} into its base, {needed / 1e9:.2f} GB in {directory}"}))
    template = (run.adapter / "chat_template.jinja").read_text(encoding="utf-8")
    renderer = Renderer.load(base.directory, template)
    # In float32, so that only the sum is rounded to the base's own type.
    network = load(base.directory, NumberFormat("float32", "float32"), "cpu", why_rows="not needed").network
    identity = Identity(base.name, base.weights_digest, renderer.tokenizer_digest, renderer.template_digest)
    whole = merge(load_adapter(network, run.adapter, identity)).to(_dtype(base.directory))
    shutil.rmtree(directory, ignore_errors=True)  # what is there does not verify
    write_directory(directory, lambda to: _write(whole, base.directory, template, to))


def _dtype(directory: Path) -> torch.dtype:
    found = getattr(read_config(directory), "dtype", None)
    return found if isinstance(found, torch.dtype) else torch.float32


def _write(network: nn.Module, base: Path, template: str, to: Path) -> None:
    network.save_pretrained(to)  # type: ignore[operator]
    for pattern in _OF_THE_TOKENIZER:
        for path in base.glob(pattern):
            shutil.copyfile(path, to / path.name)
    write_atomic(to / "chat_template.jinja", template)
