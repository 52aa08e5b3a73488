"""Adapters: what they reach, how many parameters they train, and what they are bound to."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.ln_tuning.layer import LNTuningLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn
from transformers import PreTrainedConfig

from metier.data.classes import Head
from metier.errors import Fault, ModelError, RecipeError
from metier.files import digest, file_digest, read_json, verify, write_atomic, write_json
from metier.hub import Source
from metier.model import beginnings
from metier.model.blocks import like_lora
from metier.model.heads import names, network_of
from metier.model.methods import config_of, refused, said
from metier.strategies import Lora, PeftStrategy, Tuned

Adapted = PeftModel  # for units that do not house PEFT
IDENTITY, HEAD = "identity.json", "head.json"
WEIGHTS = "adapter_model.safetensors"
_REFUSALS = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, re.error)  # PEFT's own
_FOREIGN = ("adapter_config.json", WEIGHTS)


@dataclass(frozen=True)
class Identity:
    """What an adapter belongs to; on anything else it is refused."""

    base: str
    base_digest: str
    tokenizer_digest: str
    template_digest: str


@dataclass(frozen=True)
class Kind:
    """One kind of module: how many the base has, in how many something moves, parameters trained in them."""

    name: str
    layers: int
    adapted: int
    parameters: int

    def __str__(self) -> str:
        return f"{self.name} {self.adapted}/{self.layers} ({self.parameters:,})"


def attach(network: nn.Module, strategy: Tuned, seed: int) -> tuple[PeftModel, list[Kind]]:
    """Wrap `network` in what the strategy trains; its random part is drawn from `seed`.

    Raises `RecipeError` where PEFT cannot do it on this base.
    """
    lora = getattr(strategy, "peft", None)
    if isinstance(lora, Lora):
        check_targets(network, lora)
    modules, heads = _modules(network), names(network)
    linear = _linear_kinds(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = _wrapped(network, strategy)
        if isinstance(lora, Lora) and lora.begins_in_the_weights:
            beginnings.take(adapted, str(lora.init_lora_weights))
    kinds = _kinds(adapted, modules, linear)
    if isinstance(lora, Lora):
        head = [name.rpartition(".")[2] for name in heads] if strategy.objective == "classify" else []
        _assert_inside(kinds, linear, [*head, *(lora.modules_to_save or ())], lora)
    return adapted, kinds


def reached_by_lora(network: nn.Module, strategy: PeftStrategy) -> list[Kind]:
    """What low rank would train where this strategy names modules: which these are, if not how much is in them."""
    modules, linear = _modules(network), _linear_kinds(network)
    try:
        return _kinds(_wrap(network, like_lora(strategy, network)), modules, linear)
    except _REFUSALS as error:
        raise refused(strategy, error) from None


def linear_size(config: PreTrainedConfig, head: Head | None = None) -> int:
    """How many weights lie in linear layers but the output head: what 4 bits store and adapters reach."""
    with torch.device("meta"):
        network = network_of(config, head)
    return sum(layer.weight.numel() for _, layer in _linear_layers(network))


def extent(source: Source, config: PreTrainedConfig, head: Head | None = None) -> tuple[int, int]:
    """How many weights a base has and how many bytes its files: by their headers, or by its config without them."""
    if source.whole:
        tensors = source.tensors()
        return sum(tensor.size for tensor in tensors), sum(tensor.bytes for tensor in tensors)
    with torch.device("meta"):
        network = network_of(config, head if head and head.encoder else None)
    stored = torch.empty(0, dtype=getattr(config, "dtype", None) or torch.float32).element_size()
    weights = sum(each.numel() for each in network.parameters())
    return weights, weights * stored


def check_targets(network: nn.Module, lora: Lora) -> None:
    """Every name must match, or an adapter of Llama's names would reach half of Phi-3's layers unnoticed."""
    if isinstance(lora.target_modules, str):
        return
    kinds = _linear_kinds(network)
    names = [name for name, _ in network.named_modules()]
    missed = [
        target
        for target in lora.target_modules
        if not any(name == target or name.endswith(f".{target}") for name in names)
    ]
    if missed:
        reached = [target for target in lora.target_modules if target not in missed]
        problem = f"{', '.join(missed)} match no layer of this model" + (
            f"; only {len(reached)} of its {len(kinds)} linear kinds would be trained" if reached else ""
        )
        fix = f'write "all-linear", or choose among {", ".join(sorted(kinds))}'
        raise RecipeError("recipe", [Fault("strategy.peft.target_modules", problem, fix)])


def _assert_inside(kinds: list[Kind], linear: Mapping[str, int], whole: Collection[str], lora: Lora) -> None:
    """The head and the embeddings are no targets of an adapter; whole they may be trained."""
    strange = [kind.name for kind in kinds if kind.name not in {*linear, *whole}]
    if strange or not sum(kind.parameters for kind in kinds):
        problem = f"{lora.target_modules!r} reaches other layers than the linear ones inside the model"
        fix = f'write "all-linear", or choose among {", ".join(sorted(linear))}'
        raise RecipeError("recipe", [Fault("strategy.peft.target_modules", problem, fix)])


def _wrapped(network: nn.Module, strategy: Tuned) -> PeftModel:
    config = config_of(strategy, network)
    config.base_model_name_or_path = None  # or PEFT would look that name up; the identity says more
    try:
        return _wrap(network, config)
    except _REFUSALS as error:
        raise refused(strategy, error) from None


def _wrap(network: nn.Module, config: PeftConfig, name: str = "default") -> PeftModel:
    """PEFT's wrapping, in silence; copies of a tied head and embedding stay tied."""
    if isinstance(network, PeftModel):
        network.add_adapter(name, config)
        return network
    head, embedding = (getattr(network, f"get_{side}_embeddings", lambda: None)() for side in ("output", "input"))
    tied = head is not None and getattr(head, "weight", None) is getattr(embedding, "weight", None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*(experts|MoE|target_parameters)", category=RuntimeWarning)
        warnings.filterwarnings("ignore", category=UserWarning)  # advice on use, which metier knows or measures
        adapted: PeftModel = get_peft_model(network, config, adapter_name=name)
    if tied:
        head, embedding = (getattr(network, f"get_{side}_embeddings")() for side in ("output", "input"))
        if isinstance(head, LNTuningLayer) and isinstance(embedding, LNTuningLayer):
            head.ln_tuning_layers["default"].weight = embedding.ln_tuning_layers["default"].weight
    return adapted


def _modules(network: nn.Module) -> dict[str, str]:
    """Path of every module of the base → the last part of its name that is no number."""
    return {
        name: next((part for part in reversed(name.split(".")) if not part.isdecimal()), "")
        for name, _ in network.named_modules()
    }


def _linear_kinds(network: nn.Module) -> Counter[str]:
    """Leaf name of every linear layer but the output head → how often it occurs."""
    return Counter(name.rpartition(".")[2] for name, _ in _linear_layers(network))


def _linear_layers(network: nn.Module) -> Iterator[tuple[str, Any]]:
    head = names(network)
    for name, module in network.named_modules():
        linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if linear and not any(name == each or name.startswith(f"{each}.") for each in head):
            yield name, module


def _kinds(adapted: PeftModel, modules: Mapping[str, str], linear: Mapping[str, int]) -> list[Kind]:
    """Trained parameters by the module of the base in which they stand, or by their own name outside of it."""
    parameters: Counter[str] = Counter()
    reached: dict[str, set[str]] = {}
    for name, parameter in trainable(adapted).items():
        path = name.removeprefix("base_model.").removeprefix("model.")
        while path and path not in modules:
            path = path.rpartition(".")[0]
        kind = modules[path] if path else name.removeprefix("base_model.").partition(".")[0]
        parameters[kind] += parameter.numel()
        reached.setdefault(kind, set()).add(path)
    have = Counter(modules.values()) | Counter(linear)
    return [
        Kind(kind, max(have[kind], len(reached.get(kind, ()))), len(reached.get(kind, ())), parameters[kind])
        for kind in sorted({*linear, *parameters})
    ]


def trainable(adapted: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that move, by name in a fixed order."""
    return {name: each for name, each in sorted(adapted.named_parameters()) if each.requires_grad}


def state(adapted: nn.Module) -> dict[str, Tensor]:
    """What moves, detached from training."""
    return {name: each.detach().clone().contiguous() for name, each in trainable(adapted).items()}


def restore(adapted: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `state` took."""
    for name, each in trainable(adapted).items():
        each.data.copy_(tensors[name])


def save(adapted: PeftModel, identity: Identity, template: str, directory: Path, head: Head | None = None) -> None:
    """Write an adapter that PEFT loads, with its identity and chat template; same tensors, same bytes.

    With a head, what its outputs mean lies beside it.
    """
    if head is not None:
        write_json(directory / HEAD, asdict(head))
    write_peft(adapted, identity.base, directory)
    write_json(directory / IDENTITY, asdict(identity))
    write_atomic(directory / "chat_template.jinja", template)


def write_peft(adapted: PeftModel, base: str, directory: Path) -> None:
    """Write what PEFT loads and no more: the adapter's tensors, and its configuration with the name of its base."""
    config = adapted.peft_config["default"]
    values = {key: _plain(value) for key, value in sorted(config.to_dict().items())}
    values |= {"inference_mode": True, "base_model_name_or_path": base}
    tensors = _tensors(adapted, "default")
    if beginnings.NAME in adapted.peft_config:
        assert isinstance(config, LoraConfig)
        tensors = beginnings.without(tensors, _tensors(adapted, beginnings.NAME))
        values |= beginnings.doubled(config)
    # Serialised in memory: the library's own writing raises nothing that tells of a full disk.
    (directory / WEIGHTS).write_bytes(serialize(tensors, metadata={"format": "pt"}))
    write_json(directory / "adapter_config.json", values)


def read_head(directory: Path) -> Head | None:
    """The head that a saved adapter brings, if it brings one."""
    if not (directory / HEAD).exists():
        return None
    values = read_json(directory / HEAD)
    return Head({domain: tuple(labels) for domain, labels in values["labels"].items()}, values["encoder"])


def _tensors(adapted: PeftModel, name: str) -> dict[str, Tensor]:
    """An adapter's tensors under PEFT's own names."""
    with torch.no_grad():
        found = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
    return {key: found[key].detach().clone().contiguous() for key in sorted(found)}


def _plain(value: Any) -> Any:
    """Sets in a fixed order: PEFT's own writing follows the hash seed."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return json.loads(json.dumps(value, default=str))


def load(network: nn.Module, directory: Path, identity: Identity) -> PeftModel:
    """Put a saved adapter on a base; raises `ModelError` where it was made for another one, or has changed since."""
    check_belongs(directory, identity)
    return _put(network, directory)[0]


def check_belongs(directory: Path, identity: Identity) -> None:
    """Raise `ModelError` where a saved adapter was made for another base, or has changed since."""
    if not verify(directory):
        raise changed(directory)
    made_for = Identity(**read_json(directory / IDENTITY))
    for what, name in (
        ("base", "base_digest"),
        ("tokenizer", "tokenizer_digest"),
        ("chat template", "template_digest"),
    ):
        if getattr(made_for, name) != getattr(identity, name):
            raise ModelError(
                f"{directory}: was trained with another {what}: made for {made_for.base} "
                f"({getattr(made_for, name)[:12]}), but this is {identity.base} ({getattr(identity, name)[:12]})",
                hint="use the base that the run names, or train again on this one",
            )


def changed(directory: Path) -> ModelError:
    """What is said of an adapter whose files are not what was saved."""
    hint = "restore the folder from a copy, or remove the run and train again"
    return ModelError(f"{directory}: is not what was tested: its files differ from its manifest", hint)


def load_foreign(network: nn.Module, directory: Path, name: str = "default") -> PeftModel:
    """Put an adapter that PEFT wrote elsewhere on a base, beside those of other names that it has.

    Raises `ModelError` where it does not belong on it.
    """
    hint = "give an adapter that was made for this base, with the base's own names"
    try:
        adapted, strange = _put(network, directory, name)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OSError) as error:
        raise ModelError(f"{directory}: does not go on this base: {said(error)}", hint) from None
    if strange:
        problem = f"{len(strange)} of its tensors belong to no layer of this base, {strange[0]} among them"
        raise ModelError(f"{directory}: {problem}", hint)
    return adapted


def check_foreign(directory: Path) -> None:
    """Raise `RecipeError` where a folder is no adapter, before anything heavy is loaded."""
    lacking = [name for name in _FOREIGN if not (directory / name).is_file()]
    if lacking:
        fix = "give a folder that PEFT's save_pretrained wrote, as safetensors"
        raise RecipeError("recipe", [Fault("strategy.adapter", f"{directory} has no {lacking[0]}", fix)])
    try:
        known = "peft_type" in dict(read_json(directory / "adapter_config.json"))
    except (ValueError, TypeError):
        known = False
    if not known:
        problem = f"{directory / 'adapter_config.json'} is no configuration of PEFT's"
        raise RecipeError("recipe", [Fault("strategy.adapter", problem, "restore it from where it was made")])


def foreign_digest(directory: Path) -> str:
    return digest({name: file_digest(directory / name) for name in _FOREIGN})


def foreign_why_rows(directory: Path) -> str:
    """Why rows run alone under an adapter made elsewhere: only low rank is proven over trees."""
    config = read_json(directory / "adapter_config.json")
    method = str(config["peft_type"])
    return (
        ""
        if method == "LORA" and not config.get("alora_invocation_tokens")
        else f"an adapter of {method.lower()} made elsewhere was not tried over trees"
    )


def _put(network: nn.Module, directory: Path, name: str = "default") -> tuple[PeftModel, list[str]]:
    """The network with a saved adapter, and the tensors of its file that found no place."""
    config = PeftConfig.from_pretrained(str(directory))
    config.base_model_name_or_path = getattr(network, "name_or_path", None)  # the identity says more than a name
    adapted = _wrap(network, config, name)
    found = set_peft_model_state_dict(adapted, load_file(directory / WEIGHTS), adapter_name=name)
    adapted.requires_grad_(False).eval()
    return adapted, list(found.unexpected_keys)  # type: ignore[attr-defined]


def add_up(adapted: PeftModel, names: Sequence[str], weights: Sequence[float], kind: str, density: float) -> None:
    """Put the adapters of these names together as "default", by PEFT's `add_weighted_adapter`; low rank alone."""
    adapted.add_weighted_adapter([*names], [*weights], "default", combination_type=kind, density=density)
    config = adapted.peft_config["default"]
    assert isinstance(config, LoraConfig)
    config.use_rslora = False  # PEFT copies it from the first one, whose scaling is in the tensors by now


def merge(adapted: PeftModel) -> nn.Module:
    """The base with the adapter in its weights. Raises `ModelError` for a method that lies beside them."""
    try:
        whole: nn.Module = adapted.merge_and_unload()
    except (AttributeError, NotImplementedError, ValueError) as error:
        method = adapted.active_peft_config.peft_type.value.lower()
        problem = f"an adapter of {method} cannot be merged into its base: {str(error).splitlines()[0]}"
        raise ModelError(problem, hint="choose a run of another method, such as lora or full") from None
    return whole


@contextmanager
def disabled(network: nn.Module) -> Iterator[None]:
    """The untuned base, for as long as the block lasts."""
    if not isinstance(network, PeftModel):
        yield
        return
    moving = {id(each) for each in network.parameters() if each.requires_grad}
    with network.disable_adapter():
        yield
    for each in network.parameters():  # PEFT lets all that was disabled move behind the block
        each.requires_grad_(id(each) in moving)


def behind_prompt(network: nn.Module) -> nn.Module:
    """What goes on behind a past that was read through `network`: PEFT would put virtual tokens in front again."""
    if isinstance(network, PeftModel) and network.active_peft_config.is_prompt_learning:
        base: nn.Module = network.get_base_model()
        return base
    return network
