"""What of a recipe makes a run what it is: the same values and hashes are the same run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metier.files import digest
from metier.recipe import Recipe
from metier.strategies import MODELLESS


def key(recipe: Recipe, **parts: str) -> str:
    """What makes two runs the same: the resolved recipe without keys that have no effect, and `parts`
    (hashes of data and base, the number format)."""
    return digest({"recipe": meaning(recipe), **parts})


def meaning(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values that can change a run of its method."""
    values = recipe.values()
    values.pop("data_root")
    method = recipe.strategy.method
    # Data enters by the hash of what was read from it, so its path and reading keys do not matter.
    measured = {"trained": False}
    values["domain"] = [
        {"name": domain["name"]} | ({"weight": domain["weight"]} if domain["trained"] else measured)
        for domain in values["domain"]
    ]
    values["train"].pop("rows")  # the hash of what is left stands for it
    if replay := values["train"].get("replay"):
        replay.pop("data")  # the hash of its rows stands for it
    if not values["train"]["kl"]:
        values["train"].pop("kl")
    if not values["train"]["sweep"]:
        values["train"].pop("sweep")  # as runs were keyed before there was one
    if method in ("none", "adapter", "endpoint", *MODELLESS):
        values["train"] = {"max_length": recipe.train.max_length}
        values["domain"] = [{"name": domain["name"]} for domain in values["domain"]]
    if method in MODELLESS:
        for name in ("model", "train"):
            values.pop(name)
        values["eval"] = {"limit": recipe.eval.limit, "run_code": recipe.eval.run_code}
    for name in ("guard", "general_text", "general_choices"):  # judged anew on every call; its content is hashed
        values["eval"].pop(name, None)
    if not values["eval"]["run_code"]:
        values["eval"].pop("run_code")  # as runs were keyed before there was one
    values["strategy"] = _of_strategy(values["strategy"])
    values.pop("model", None)  # the base's hash stands for it
    return values


def _of_strategy(values: Mapping[str, Any]) -> dict[str, Any]:
    strategy = dict(values)
    for name in ("adapter", "words"):  # their content is hashed
        strategy.pop(name, None)
    for name in ("api_key_env", "price_per_million", "concurrency"):  # who pays and how fast changes no answer
        strategy.pop(name, None)
    if strategy.get("scale") == 1:
        strategy.pop("scale")
    if not strategy.get("num_fewshot"):
        strategy.pop("fewshot_sampler", None)
    if not strategy.pop("passages", None):  # what is read there is hashed
        for name in ("num_passages", "passages_prompt"):
            strategy.pop(name, None)
    return strategy
