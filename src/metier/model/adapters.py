"""Adapters: which linear kinds they reach, how many parameters they train, and what they are bound to."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from metier.errors import Fault, ModelError, RecipeError
from metier.files import read_json, verify, write_atomic, write_json
from metier.recipe import Lora

IDENTITY = "identity.json"


@dataclass(frozen=True)
class Identity:
    """What an adapter belongs to; on anything else it is refused."""

    base: str
    base_digest: str
    tokenizer_digest: str
    template_digest: str


@dataclass(frozen=True)
class Kind:
    """One kind of linear layer: how many the base has, how many are adapted, parameters trained in them."""

    name: str
    layers: int
    adapted: int
    parameters: int

    def __str__(self) -> str:
        return f"{self.name} {self.adapted}/{self.layers} ({self.parameters:,})"


def attach(network: nn.Module, lora: Lora, seed: int) -> tuple[PeftModel, list[Kind]]:
    """Wrap `network` in a fresh LoRA adapter; its random half is drawn from `seed` alone."""
    check_targets(network, lora)
    before = _linear_kinds(network)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = _wrap(network, _config(lora))
    kinds = _kinds(adapted, before)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    if not trained or trained != sum(kind.parameters for kind in kinds):
        problem = f"{lora.target_modules!r} reaches other layers than the linear ones inside the model"
        fix = f'write "all-linear", or choose among {", ".join(sorted(before))}'
        raise RecipeError("recipe", [Fault("strategy.peft.target_modules", problem, fix)])
    return adapted, kinds


def linear_size(config: PreTrainedConfig) -> int:
    """How many weights lie in linear layers but the output head: what 4 bits store and adapters reach."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(layer.weight.numel() for _, layer in _linear_layers(network))


def count(config: PreTrainedConfig, lora: Lora) -> list[Kind]:
    """What `attach` would train, found on the meta device: no weight is read."""
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        return attach(network, lora, seed=0)[1]


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


def _wrap(network: nn.Module, config: LoraConfig) -> PeftModel:
    """PEFT's wrapping, without its use of a name that transformers has deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*(experts|MoE|target_parameters)", category=RuntimeWarning)
        try:
            adapted: PeftModel = get_peft_model(network, config)
        except ValueError as error:  # PEFT knows layers that cannot be adapted
            fault = Fault("strategy.peft.target_modules", str(error).splitlines()[0], "name other linear layers")
            raise RecipeError("recipe", [fault]) from None
    return adapted


def _config(lora: Lora) -> LoraConfig:
    targets = lora.target_modules
    return LoraConfig(
        r=int(lora.r),
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type]
        lora_dropout=lora.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        task_type="CAUSAL_LM",
    )


def _linear_kinds(network: nn.Module) -> Counter[str]:
    """Leaf name of every linear layer but the output head → how often it occurs."""
    return Counter(name.rpartition(".")[2] for name, _ in _linear_layers(network))


def _linear_layers(network: nn.Module) -> Iterator[tuple[str, Any]]:
    head = getattr(network, "get_output_embeddings", lambda: None)()
    for name, module in network.named_modules():
        linear = isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if linear and module is not head:
            yield name, module


def _kinds(adapted: PeftModel, before: Mapping[str, int]) -> list[Kind]:
    layers: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            kind = name.partition(".lora_")[0].rpartition(".")[2]
            parameters[kind] += parameter.numel()
            layers[kind] += ".lora_A." in name
    return [Kind(kind, before[kind], layers[kind], parameters[kind]) for kind in sorted(before)]


def trainable(adapted: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that move, by name in a fixed order."""
    return {name: each for name, each in sorted(adapted.named_parameters()) if each.requires_grad}


def state(adapted: PeftModel) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's own names, detached from training."""
    tensors = get_peft_model_state_dict(adapted)
    return {name: tensors[name].detach().clone().contiguous() for name in sorted(tensors)}


def restore(adapted: PeftModel, tensors: Mapping[str, Tensor]) -> None:
    set_peft_model_state_dict(adapted, dict(tensors))


def save(tensors: Mapping[str, Tensor], adapted: PeftModel, identity: Identity, template: str, directory: Path) -> None:
    """Write an adapter that PEFT loads, with its identity and chat template; same tensors, same bytes."""
    # Serialised in memory: the library's own writing raises nothing that tells of a full disk.
    (directory / "adapter_model.safetensors").write_bytes(serialize(dict(tensors), metadata={"format": "pt"}))
    config = {key: _plain(value) for key, value in sorted(adapted.peft_config["default"].to_dict().items())}
    config |= {"inference_mode": True, "base_model_name_or_path": identity.base}
    write_json(directory / "adapter_config.json", config)
    write_json(directory / IDENTITY, asdict(identity))
    write_atomic(directory / "chat_template.jinja", template)


def _plain(value: Any) -> Any:
    """Sets in a fixed order: PEFT's own writing follows the hash seed."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return json.loads(json.dumps(value, default=str))


def load(network: nn.Module, directory: Path, identity: Identity) -> PeftModel:
    """Put a saved adapter on a base; raises `ModelError` where it was made for another one, or has changed since."""
    if not verify(directory):
        hint = "restore the folder from a copy, or remove the run and train again"
        raise ModelError(f"{directory}: is not what was tested: its files differ from its manifest", hint)
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
    config = LoraConfig.from_pretrained(str(directory))
    config.base_model_name_or_path = getattr(network, "name_or_path", None)  # the identity says more than a name
    adapted = _wrap(network, config)
    restore(adapted, load_file(directory / "adapter_model.safetensors"))
    adapted.requires_grad_(False).eval()
    return adapted


@contextmanager
def disabled(network: nn.Module) -> Iterator[None]:
    """The untuned base, for as long as the block lasts."""
    if isinstance(network, PeftModel):
        with network.disable_adapter():
            yield
    else:
        yield
