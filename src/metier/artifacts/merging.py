"""Several adapters of one base in one, through PEFT's own merging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from metier.errors import Fault, RecipeError
from metier.files import read_json, write_directory
from metier.model.adapters import IDENTITY, Adapted, add_up, check_foreign, load_foreign, write_peft

Merge = Literal["linear", "ties", "cat"]

MERGED = 1  # how adapters are merged; what was merged otherwise is not taken again
_PLACE = "merge"
_DENSITY = 0.2  # of the weights, which TIES keeps, as its authors do
_SHARED = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out")
_BESIDE = (
    "use_dora",
    "modules_to_save",
    "target_parameters",
    "trainable_token_indices",
    "lora_bias",
    "layer_replication",
    "alora_invocation_tokens",
)
_OWN = "only low-rank adapters on the same layers of the same base are merged"


def merge_adapters(
    directories: Sequence[Path],
    network: nn.Module,
    kind: Merge,
    to: Path,
    *,
    weights: Sequence[float] | None = None,
    density: float = _DENSITY,
) -> Path:
    """Write to `to`, as PEFT's own folder, the merge of adapters that lie in `directories`; the same, the same bytes.

    `network` is the base in float32; it is left as it was. "cat" is exactly the weighted sum of what the k adapters
    add to the base, at the sum of their ranks. "linear" adds A to A and B to B, each times the root of weight and
    scaling, so that one's B meets another's A too: k equal adapters come out k times as strong. "ties" (Yadav et
    al. 2023) keeps the largest share `density` of each A and each B and takes the mean of those that agree in sign.
    Without `weights` they are 1/k each, and 1 for "ties", which is a mean by itself. Raises `RecipeError` with all
    that stands against it before a weight is read, and `ModelError` where an adapter does not go on the base.
    """
    each = 1 if kind == "ties" else 1 / max(1, len(directories))
    shares = [each] * len(directories) if weights is None else list(weights)
    if faults := list(_faults(directories, kind, shares, density)):
        raise RecipeError(_PLACE, faults)
    names = [f"expert {place}" for place in range(len(directories))]
    adapted = network
    with torch.random.fork_rng(devices=[]):  # an adapter begins at random, and is overwritten
        for name, directory in zip(names, directories, strict=True):
            adapted = load_foreign(adapted, directory, name)
        assert isinstance(adapted, Adapted)
        add_up(adapted, names, shares, kind, density)
    base = str(read_json(directories[0] / "adapter_config.json").get("base_model_name_or_path") or "")
    write_directory(to, lambda staged: write_peft(adapted, base, staged))
    adapted.unload()
    return to


def _faults(directories: Sequence[Path], kind: str, weights: Sequence[float], density: float) -> Iterator[Fault]:
    if kind not in get_args(Merge):
        yield Fault(f"{_PLACE}: {kind}", "is no way of merging", f"choose from {', '.join(get_args(Merge))}")
    if not directories:
        yield Fault(_PLACE, "there is no adapter", "give the folders of two or more")
    if len(weights) != len(directories):
        problem = f"are {len(weights)} for {len(directories)} adapters"
        yield Fault(f"{_PLACE}: weights", problem, "give one each, or none for equal ones")
    if not 0 < density <= 1:
        yield Fault(f"{_PLACE}: density", f"is {density:g}", "give a share above 0, at most 1")
    found = {directory: values for directory in directories if (values := _config(directory)) is not None}
    for directory in directories:
        if directory not in found:
            yield Fault(str(directory), "holds no adapter of PEFT's", "give a folder with adapter_config.json in it")
    for directory, values in found.items():
        yield from _strange(directory, values, kind)
    for directory, values in list(found.items())[1:]:
        yield from _unlike(directory, values, *next(iter(found.items())), kind)


def _config(directory: Path) -> Mapping[str, Any] | None:
    try:
        check_foreign(directory)
    except RecipeError:
        return None
    values: Mapping[str, Any] = read_json(directory / "adapter_config.json")
    return values


def _strange(directory: Path, values: Mapping[str, Any], kind: str) -> Iterator[Fault]:
    """What is no plain low rank."""
    if values["peft_type"] != "LORA":
        yield Fault(str(directory), f"is an adapter of {str(values['peft_type']).lower()}", _OWN)
        return
    more = [key for key in _BESIDE if values.get(key)]
    more += ["bias"] if values.get("bias", "none") != "none" else []
    more += ["init_lora_weights"] if str(values.get("init_lora_weights")).startswith(("pissa", "olora")) else []
    more += ["rank_pattern"] if kind != "cat" and values.get("rank_pattern") else []
    for key in more:
        yield Fault(str(directory), f"has {key} = {values[key]!r}, which cannot be added up", _OWN)


def _unlike(
    directory: Path, values: Mapping[str, Any], first: Path, others: Mapping[str, Any], kind: str
) -> Iterator[Fault]:
    """Where an adapter differs from the first one in what all must share."""
    for key in _SHARED:
        if _sorted(values.get(key)) != _sorted(others.get(key)):
            yield Fault(str(directory), f"has another {key} than {first}", _OWN)
    if kind != "cat" and values.get("r") != others.get("r"):
        problem = f"has rank {values.get('r')}, but {first} has {others.get('r')}"
        yield Fault(str(directory), problem, f'{kind} needs equal ranks; choose "cat", or train again')
    if (own := _identity(directory)) and (other := _identity(first)) and own != other:
        yield Fault(str(directory), f"was made for another base, tokenizer or template than {first}", _OWN)


def _sorted(value: Any) -> Any:
    """Lists of names mean sets."""
    return sorted(map(str, value)) if isinstance(value, list) else value


def _identity(directory: Path) -> list[str]:
    """Hashes of what an adapter of ours belongs to; nothing is known of one made elsewhere."""
    path = directory / IDENTITY
    return [value for key, value in sorted(read_json(path).items()) if key != "base"] if path.exists() else []
