"""PEFT's methods by name: `[strategy.peft]` checked against PEFT's own config class, and that config made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from peft import LNTuningConfig, LoraConfig, PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING, PeftType
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn
from transformers.pytorch_utils import Conv1D

from metier.errors import Fault, RecipeError, nearest
from metier.model import heads
from metier.strategies import Full, HeadOnly, LastN, Lora, LoraStrategy, PeftStrategy, QloraStrategy, Tuned

_PLACE = "strategy.peft"
_OF_THE_BASE = "is read from the base"
_ALLOCATES = "shifts ranks between steps by gradients, which metier's loop does not do"
# Keys of PEFT's that a recipe has no say in, and why.
_FIXED = {
    "task_type": "is what strategy.objective says",
    "peft_type": "is what strategy.method says",
    "inference_mode": "follows from what is done with the adapter",
    "base_model_name_or_path": "is the recipe's model",
    "revision": "is written into the run",
    "peft_version": "is written into the run",
    "auto_mapping": _OF_THE_BASE,
    "token_dim": _OF_THE_BASE,
    "num_layers": _OF_THE_BASE,
    "num_attention_heads": _OF_THE_BASE,
    "num_transformer_submodules": _OF_THE_BASE,
    "use_asa": f"{_ALLOCATES}",
}


def check_keys(strategy: PeftStrategy) -> None:
    """Raise `RecipeError` with every key of `[strategy.peft]` that PEFT's config class would not take."""
    if faults := list(_faults(strategy)):
        raise RecipeError("recipe", faults)


def config_of(strategy: Tuned, network: nn.Module) -> PeftConfig:
    """What PEFT is told. `full`, `last-n` and `head` are PEFT's training of whole modules, `ln_tuning`, whatever
    these are; beside the other methods a head that classifies is saved whole.
    """
    match strategy:
        case Full():
            return _whole(network, _owners(network))
        case LastN():
            return _whole(network, _last(network, strategy.layers))
        case HeadOnly():
            return _whole(network, heads.names(network))
        case LoraStrategy() | QloraStrategy():
            config: PeftConfig = _lora(strategy.peft, network)
        case PeftStrategy():
            config = _other(strategy, network)
        case _:
            raise AssertionError(strategy)
    return _with_head(config, strategy, network) if strategy.objective == "classify" else config


def _whole(network: nn.Module, names: list[str]) -> PeftConfig:
    # What PEFT does for its task SEQ_CLS would keep the head from being one of these modules.
    return LNTuningConfig(target_modules=names, task_type=None if heads.on_encoder(network) else "CAUSAL_LM")


def _with_head(config: Any, strategy: Tuned, network: nn.Module) -> PeftConfig:
    if not hasattr(config, "modules_to_save"):
        fix = "choose another method, such as lora"
        raise RecipeError(
            "recipe", [Fault("strategy.method", f"{strategy.method}: PEFT trains no head beside it", fix)]
        )
    config.modules_to_save = [*(config.modules_to_save or ()), *heads.names(network)]
    if heads.on_encoder(network):
        config.task_type = "SEQ_CLS"
    return config  # type: ignore[no-any-return]


def _faults(strategy: PeftStrategy) -> Iterator[Fault]:
    made = _class_of(strategy)
    hints = get_type_hints(made)
    known = [each.name for each in fields(made) if each.name not in _FIXED]
    if "total_step" in {each.name for each in fields(made)}:
        yield Fault("strategy.method", f"{strategy.method} {_ALLOCATES}", "choose another method, such as lora")
    counted = "cpt_token_ids" in strategy.peft  # by PEFT, of the tokens that stand in front
    if "num_virtual_tokens" in known and "num_virtual_tokens" not in strategy.peft and not counted:
        yield Fault(f"{_PLACE}.num_virtual_tokens", "is missing", "say how many: num_virtual_tokens = 20")
    for key, value in strategy.peft.items():
        place = f"{_PLACE}.{key}"
        if key in _FIXED:
            yield Fault(place, "is no choice of a recipe's", f"remove it: it {_FIXED[key]}")
        elif key not in known:
            problem = f"is not a field of PEFT's {made.__name__}{nearest(key, known)}"
            yield Fault(place, problem, f"fields here: {', '.join(known)}")
        elif wanted := _mistyped(hints[key], _listed(value)):
            yield Fault(place, f"is {_listed(value)!r}", f"it should {wanted}")


def _mistyped(hint: Any, value: Any) -> str:
    """What a value of this type should be, or "" where it is."""
    try:
        TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        told = (each["msg"].removeprefix("Input should ") for each in error.errors())
        return " or ".join(dict.fromkeys(told))
    return ""


def _class_of(strategy: PeftStrategy) -> type[Any]:
    found: type[Any] = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(strategy.method.upper())]
    return found


def _other(strategy: PeftStrategy, network: nn.Module) -> PeftConfig:
    made = _class_of(strategy)
    defaults = {each.name: each.default for each in fields(made)}
    given = {key: _listed(value) for key, value in strategy.peft.items()}
    if defaults.get("target_modules", "") is None and "target_modules" not in given:
        given |= _usual_targets(strategy.method, network, "feedforward_modules" in defaults)
    if "target_modules" in given:
        given["target_modules"] = _targets(given["target_modules"], "layers_to_transform" in given, network)
    try:
        config: PeftConfig = made(**given, task_type="CAUSAL_LM")
    except (ValueError, TypeError) as error:  # what PEFT's own class refuses
        raise refused(strategy, error) from None
    return config


def _usual_targets(method: str, network: nn.Module, feedforward: bool) -> dict[str, Any]:
    """Nothing where PEFT knows this kind of base; else every norm if norms are tuned, or every linear layer."""
    peft_type = PeftType(method.upper())
    known = getattr(PEFT_TYPE_TO_TUNER_MAPPING[peft_type], "target_module_mapping", None)
    if feedforward:
        known = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    if not known or network.config.model_type in known:  # type: ignore[union-attr]
        return {}
    if peft_type is PeftType.LN_TUNING:
        owned = {name: network.get_submodule(name).parameters() for name in _owners(network)}
        return {"target_modules": [name for name, own in owned.items() if all(each.dim() == 1 for each in own)]}
    return {"target_modules": "all-linear", **({"feedforward_modules": []} if feedforward else {})}


def _targets(named: Any, some_blocks: bool, network: nn.Module) -> Any:
    """PEFT takes numbers of blocks only beside a list of names."""
    if named != "all-linear" or not some_blocks:
        return named
    inside = tuple(f"{name}." for name in _blocks(network))
    linear = (name for name, each in network.named_modules() if isinstance(each, nn.Linear | Conv1D))
    return sorted({name.rpartition(".")[2] for name in linear if name.startswith(inside)})


def refused(strategy: Tuned, error: Exception) -> RecipeError:
    """PEFT's own words for what it does not do, as a fault of the recipe."""
    fix = f"change or add keys of [strategy.peft] as PEFT's {strategy.method} wants them, or choose another method"
    return RecipeError("recipe", [Fault(_PLACE, f"{strategy.method}: {said(error)}", fix)])


def said(error: Exception) -> str:
    """The first line of what a vendor says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _lora(lora: Lora, network: nn.Module) -> LoraConfig:
    return LoraConfig(
        r=int(lora.r),
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=lora.lora_dropout,
        target_modules=_listed(_targets(lora.target_modules, lora.layers_to_transform is not None, network)),
        exclude_modules=_listed(lora.exclude_modules),
        layers_to_transform=_listed(lora.layers_to_transform),
        rank_pattern=dict(lora.rank_pattern or {}),
        alpha_pattern=dict(lora.alpha_pattern or {}),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=True if lora.begins_in_the_weights else lora.init_lora_weights,  # type: ignore[arg-type]
        modules_to_save=list(lora.modules_to_save) if lora.modules_to_save else None,
        task_type="CAUSAL_LM",
    )


def _owners(network: nn.Module) -> list[str]:
    """The outermost modules that hold parameters themselves."""
    names: list[str] = []
    for name, module in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in names)
        if name and not inside and next(module.parameters(recurse=False), None) is not None:
            names.append(name)
    return names


def _last(network: nn.Module, count: int) -> list[str]:
    """The modules of the last `count` blocks and what belongs to no block: norms, and a head that is no embedding."""
    blocks = _blocks(network)
    if count > len(blocks):
        fix = f"choose 1 to {len(blocks)}"
        raise RecipeError("recipe", [Fault("strategy.layers", f"is {count}; the base has {len(blocks)} blocks", fix)])
    still = tuple(f"{name}." for name in blocks[:-count])
    embeddings = {id(each.weight) for each in network.modules() if isinstance(each, nn.Embedding)}
    return [
        name
        for name in _owners(network)
        if not name.startswith(still)
        and not any(id(each) in embeddings for each in network.get_submodule(name).parameters())
    ]


def _blocks(network: nn.Module) -> list[str]:
    """Names of the transformer blocks: the longest list of modules."""
    lists = [(name, each) for name, each in network.named_modules() if isinstance(each, nn.ModuleList)]
    name, longest = max(lists, key=lambda pair: len(pair[1]))
    return [f"{name}.{index}" for index in range(len(longest))]


def _listed(value: Any) -> Any:
    """TOML's arrays, frozen in a recipe, as the lists that PEFT knows."""
    if isinstance(value, Mapping):
        return {key: _listed(each) for key, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value
