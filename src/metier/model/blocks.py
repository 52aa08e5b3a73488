"""PEFT strategies that name some of the base's blocks: checked on the base's shape, tried on kinds of modules."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from peft import LoraConfig
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from torch import nn

from metier.errors import Fault, RecipeError
from metier.model.methods import config_of
from metier.strategies import PeftStrategy, Tuned

_SOME = ("layers_to_transform", "layers_pattern", "exclude_modules")
_NAMED = ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern")
Keys = Mapping[str, Any]
_PLAIN = re.compile(r"[\w.]+")  # a name, no regular expression
_NUMBERED = re.compile(r"(^|\.)\d+(\.|$)")


def names_some(strategy: Tuned) -> bool:
    """Whether a strategy may reach some of a kind of module and leave others as they are."""
    if not isinstance(strategy, PeftStrategy):
        return False
    targets = _texts(strategy.peft, "target_modules")
    one = isinstance(strategy.peft.get("target_modules"), str) and targets != ["all-linear"]  # a regular expression
    return one or any(key in strategy.peft for key in _SOME) or any(map(_NUMBERED.search, targets))


def check_blocks(network: nn.Module, blocks: int, keys: Keys) -> None:
    """Raise `RecipeError` with every block that keys of [strategy.peft] name and the base has not."""
    if faults := list(_absent(network, blocks, keys)):
        raise RecipeError("recipe", faults)


def _absent(network: nn.Module, blocks: int, keys: Keys) -> Iterator[Fault]:
    fix = f"the base has the blocks 0 to {blocks - 1}"
    given = keys.get("layers_to_transform") or ()
    for number in (given,) if isinstance(given, int) else given:
        if not 0 <= number < blocks:
            yield Fault("strategy.peft.layers_to_transform", f"names block {number}", fix)
    names = [name for name, _ in network.named_modules()]
    for key in _NAMED:
        for text in _texts(keys, key):
            known = any(name == text or name.endswith(f".{text}") for name in names)
            if _PLAIN.fullmatch(text) and _NUMBERED.search(text) and not known:
                yield Fault(f"strategy.peft.{key}", f"{text} is no module of this base", fix)


def _texts(keys: Keys, key: str) -> Sequence[str]:
    """The names, or the one regular expression, under a key."""
    value: Any = keys.get(key) or ()
    return [value] if isinstance(value, str) else [each for each in value if isinstance(each, str)]


def everywhere(strategy: PeftStrategy, kinds: Collection[str]) -> PeftStrategy:
    """The strategy on these kinds of modules in every block, as a twin of few blocks has them."""
    kept = {key: value for key, value in strategy.peft.items() if key not in _SOME}
    whole = kept.get("modules_to_save") or ()
    kept["target_modules"] = [kind for kind in sorted(kinds) if kind not in whole]
    if isinstance(inner := kept.get("feedforward_modules"), list | tuple):
        kept["feedforward_modules"] = [kind for kind in inner if kind in kinds]
    return strategy.model_copy(update={"peft": kept})


def like_lora(strategy: PeftStrategy, network: nn.Module) -> LoraConfig:
    """Low rank on the modules that a method names: PEFT's own choice of them, where the method needs real numbers."""
    config: Any = config_of(strategy, network)
    usual = getattr(PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type], "target_module_mapping", {})
    targets = config.target_modules or usual.get(network.config.model_type)  # type: ignore[union-attr]
    given = {key: getattr(config, key) for key in _SOME if getattr(config, key, None) is not None}
    return LoraConfig(r=1, target_modules=targets, task_type="CAUSAL_LM", **given)
