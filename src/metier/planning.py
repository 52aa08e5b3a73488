"""Recipe × hardware × shape → how a run is done, what it takes, and why: pure arithmetic."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metier.errors import DoesNotFit, Fault, RecipeError
from metier.hardware import Hardware, Rates
from metier.recipe import LoraStrategy, QloraStrategy, Recipe, Tuned

GIB = 1 << 30
# Bytes a parameter: NF4 with double quantisation keeps 4 bits and one 8-bit scale for 64 values.
_BYTES = {"nf4": 0.5 + 1 / 64, "float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
_PYTHON = int(0.55 * GIB)  # interpreter, torch, transformers, PEFT and scikit-learn, measured after importing them
_SLACK = 1.3  # of activations: what the backward pass and the allocator hold beside them, measured (docs/log.md)
_KERNELS = 300 << 20  # code that oneDNN compiles and keeps for every length of a bfloat16 product (decision 4)
_DECODING = 2.0  # of a bare layer's time: caches that grow, finished answers that leave, measured
_COMPARED = 5 * 512  # whole distributions that are held while general text is read


@dataclass(frozen=True)
class Shape:
    """What planning knows of a job, in plain numbers.

    Of the base: parameters, those in linear layers, layers, widths, vocabulary, bytes of its files. Of
    the data: training examples, tokens and targets of one epoch, the distinct tokens of an epoch and of
    the largest step, the longest row, the longest pair that is read at once, held-out and validation items to
    be decoded and scored, tokens of general text.
    """

    parameters: int
    linear_parameters: int
    file_bytes: int
    layers: int
    hidden: int
    intermediate: int
    cache_width: int  # key and value numbers a layer keeps for one position
    vocabulary: int
    context: int
    forks: bool
    why_rows: str
    examples: int
    packed_tokens: int
    row_tokens: int
    targets: int
    longest_row: int
    longest_unit: int
    largest_step: int
    general_tokens: int
    decoded_items: int
    scored_tokens: int
    validation_items: int
    trainable: int = 0

    @property
    def unreached(self) -> int:
        """Weights in neither linear layers nor embeddings: small norms, and a mixture's experts."""
        return self.parameters - self.linear_parameters - 2 * self.vocabulary * self.hidden


@dataclass(frozen=True)
class Plan:
    """The means of a run. They change its numbers by rounding alone; a run keeps the plan that it began with."""

    device: str
    storage: str
    compute: str
    threads: int
    tokens_per_batch: int
    pad_to: int
    checkpointing: bool
    kernels: str
    sequences: int
    steps: int
    warmup: int
    validate_every: int
    checkpoint_every: int
    memory: Mapping[str, int]
    seconds: Mapping[str, float]
    reasons: Mapping[str, str]

    @property
    def peak(self) -> int:
        """Forecast peak memory, bytes."""
        return sum(self.memory.values())

    @property
    def number_format(self) -> str:
        return f"{self.storage}/{self.compute}"

    @property
    def long_warmup(self) -> str:
        """What to say where the rate rises for most of a short run, which nobody means; else ""."""
        if self.warmup <= max(1.0, self.steps / 10):
            return ""
        return f"the warm-up takes {self.warmup} of {self.steps} steps, more than a tenth of the run"


OVERRIDABLE: dict[str, type] = {
    "compute": str,
    "threads": int,
    "tokens_per_batch": int,
    "pad_to": int,
    "checkpointing": bool,
    "kernels": str,
    "sequences": int,
    "checkpoint_every": int,
}


def resolve(recipe: Recipe, shape: Shape) -> Recipe:
    """Replace every "auto" from model size and number of examples alone; the machine has no say."""
    train = recipe.train
    changes: dict[str, Any] = {}
    paired = isinstance(recipe.strategy, Tuned) and recipe.strategy.objective in ("dpo", "kto")
    if isinstance(recipe.strategy, Tuned) and recipe.strategy.objective == "auto":
        changes["strategy.objective"] = "sft"  # what other data asks for is known before its rows are rendered
    if isinstance(recipe.strategy, Tuned) and paired and not recipe.strategy.beta:
        changes["strategy.beta"] = 0.1
    if train.num_train_epochs == "auto":
        changes["train.num_train_epochs"] = float(_by_size(shape.examples, {200: 10, 1000: 6, 3000: 4, 20_000: 2}, 1))
    if train.batch_size == "auto":
        changes["train.batch_size"] = _by_size(shape.examples, {1000: 8, 50_000: 16}, 32)
    if train.learning_rate == "auto":
        changes["train.learning_rate"] = _learning_rate(shape, paired)
    if isinstance(recipe.strategy, LoraStrategy | QloraStrategy):
        r = recipe.strategy.peft.r
        if r == "auto":
            r = changes["strategy.peft.r"] = _by_size(shape.examples, {300: 8, 50_000: 16}, 32)
        if recipe.strategy.peft.lora_alpha == "auto":
            changes["strategy.peft.lora_alpha"] = 2.0 * r
    return recipe.override(**changes)


def _by_size(rows: int, table: Mapping[int, int], beyond: int) -> int:
    return next((value for limit, value in table.items() if rows <= limit), beyond)


def _learning_rate(shape: Shape, paired: bool) -> float:
    """LoRA's rate: 2e-4 at width 4096, higher for narrower models; halved for very long runs.

    Preferences take a twentieth, as TRL's defaults have it (1e-6 for DPO and KTO, 2e-5 for SFT).
    """
    scaled = 2e-4 * (4096 / shape.hidden) ** 0.75
    scaled *= 0.5 if shape.examples > 50_000 else 1.0
    scaled *= 0.05 if paired else 1.0
    return float(f"{scaled:.1e}")


def plan(recipe: Recipe, shape: Shape, hardware: Hardware, rates: Rates | None, overrides: Mapping[str, Any]) -> Plan:
    """Choose the means for a resolved recipe. Raises `DoesNotFit` with the arithmetic."""
    _check_overrides(overrides)
    epochs, batch = _number(recipe.train.num_train_epochs), _number(recipe.train.batch_size)
    steps = max(1, math.ceil(epochs * shape.examples / batch))
    chosen, reasons = _choose(recipe, shape, hardware)
    chosen["checkpoint_every"] = max(1, min(50, steps // 6))
    for key, value in overrides.items():
        chosen[key], reasons[key] = value, "as --plan says"
    if recipe.strategy.method != "qlora":
        chosen["storage"] = chosen["compute"]
    chosen |= _schedule(recipe, steps)
    draft = Plan(**chosen, memory={}, seconds={}, reasons=reasons)
    draft = _fit(draft, recipe, shape, hardware, overrides)
    return dataclasses.replace(draft, seconds=_seconds(draft, recipe, shape, rates) if rates else {})


def _number(value: float | str) -> float:
    assert not isinstance(value, str), "resolve the recipe first"
    return value


def _check_overrides(overrides: Mapping[str, Any]) -> None:
    faults = []
    for key, value in overrides.items():
        wanted = OVERRIDABLE.get(key)
        if wanted is None:
            faults.append(
                Fault(f"--plan {key}", "is not a choice of the plan", f"choose from {', '.join(OVERRIDABLE)}")
            )
        elif type(value) is not wanted or (isinstance(value, int) and not isinstance(value, bool) and value < 1):
            faults.append(Fault(f"--plan {key}", f"is {value!r}", f"give {_GIVEN[wanted]}"))
    choices = {"compute": ("float32", "bfloat16", "float16"), "kernels": ("fused", "reference")}
    for key, allowed in choices.items():
        if isinstance(value := overrides.get(key), str) and value not in allowed:
            faults.append(Fault(f"--plan {key}", f"is {value!r}", f"choose from {', '.join(allowed)}"))
    if faults:
        raise RecipeError("--plan", faults)


_GIVEN = {int: "a whole number from 1 on", str: "a word", bool: "true or false"}


def _choose(recipe: Recipe, shape: Shape, hardware: Hardware) -> tuple[dict[str, Any], dict[str, str]]:
    compute = "bfloat16" if hardware.fast_bf16 else "float32"
    features = ", ".join(hardware.features) or "no vector instructions that matter"
    dropout = getattr(getattr(recipe.strategy, "peft", None), "lora_dropout", 0.0)
    chosen: dict[str, Any] = {
        "device": "cpu",
        "storage": "nf4" if recipe.strategy.method == "qlora" else compute,
        "compute": compute,
        "threads": hardware.cores,
        "tokens_per_batch": max(2048, shape.longest_row, shape.longest_unit),
        "pad_to": 64 if compute == "bfloat16" else 1,
        "checkpointing": False,
        "kernels": "fused",
        "sequences": 64,
    }
    reasons = {
        "device": "no accelerator is used in this release",
        "storage": "NF4 with double quantisation, as qlora asks" if chosen["storage"] == "nf4" else "as it computes",
        "compute": f"this processor has {features}",
        "threads": "one a physical core",
        "tokens_per_batch": "enough to keep the cores busy" if shape.longest_row <= 2048 else "the longest row",
        "pad_to": "bfloat16 kernels are compiled for each length" if compute == "bfloat16" else "no padding is needed",
        "checkpointing": "activations fit without",
        "kernels": "torch's fused attention, block by block" if shape.forks else f"rows alone: {shape.why_rows}",
        "sequences": "decoded together",
    }
    if dropout and shape.forks:
        reasons["kernels"] += "; dropout draws one mask for a shared prefix"
    return chosen, reasons


def _schedule(recipe: Recipe, steps: int) -> dict[str, int]:
    """The recipe's shares of a run, in steps."""
    return {
        "steps": steps,
        "warmup": _steps(recipe.train.warmup_steps, steps),
        "validate_every": max(1, _steps(recipe.train.eval_steps, steps)),
    }


def _steps(value: float, total: int) -> int:
    return math.ceil(value * total) if value < 1 else int(value)


def _fit(draft: Plan, recipe: Recipe, shape: Shape, hardware: Hardware, overrides: Mapping[str, Any]) -> Plan:
    """Take the cheapest means that fit: fewer tokens a batch first, then recomputing activations."""
    longest = max(shape.longest_row, shape.longest_unit)
    smaller = sorted({draft.tokens_per_batch, max(512, longest), longest}, reverse=True)
    budgets = [draft.tokens_per_batch] if "tokens_per_batch" in overrides else [n for n in smaller if n >= 1]
    recompute = [draft.checkpointing] if "checkpointing" in overrides else [False, True]
    attempt = draft
    for checkpointing in recompute:
        for tokens in budgets:
            attempt = dataclasses.replace(draft, tokens_per_batch=tokens, checkpointing=checkpointing)
            attempt = dataclasses.replace(attempt, memory=_memory(attempt, shape))
            if attempt.peak <= hardware.available:
                return _explained(attempt, draft)
    raise DoesNotFit(_arithmetic(attempt, hardware), hint=_smallest_change(attempt, recipe, hardware))


def _explained(fitting: Plan, draft: Plan) -> Plan:
    reasons = dict(fitting.reasons)
    if fitting.tokens_per_batch < draft.tokens_per_batch:
        reasons["tokens_per_batch"] = f"{draft.tokens_per_batch} would not fit into memory"
    if fitting.checkpointing and not draft.checkpointing:
        reasons["checkpointing"] = "activations would not fit otherwise; a third more arithmetic"
    return dataclasses.replace(fitting, reasons=reasons)


def _memory(draft: Plan, shape: Shape) -> dict[str, int]:
    """Forecast peak by purpose, in bytes."""
    width = _BYTES[draft.compute]
    rest = (shape.parameters - shape.linear_parameters) * width
    tokens = min(draft.tokens_per_batch, max(shape.largest_step, 1))
    # Kept for the backward pass, a layer and token: inputs of norms, attention and MLP in the compute
    # format, and the float32 copies that float32 adapters work on.
    adapter = 4 if shape.trainable else 0
    layer = (10 * width + 3 * adapter) * shape.hidden + (4 * width + 2 * adapter) * shape.intermediate
    kept = shape.layers * (shape.hidden * width if draft.checkpointing else layer) + layer
    training = shape.trainable > 0
    targets = min(tokens, max(1, round(tokens * shape.targets / max(1, shape.packed_tokens))))
    cached = draft.sequences * min(shape.context, shape.longest_row + 256) * shape.layers * shape.cache_width * width
    working = {
        "adapter, gradient, optimizer": 16 * shape.trainable,
        "activations": int(tokens * (_SLACK * kept if training else layer)),
        "logits": shape.vocabulary * 4 * (max(3 * targets, _COMPARED) if training else 2 * tokens),
        "decoding cache": int(cached) if shape.decoded_items else 0,
    }
    return {
        "libraries": _PYTHON,
        "compiled kernels": _KERNELS if draft.compute == "bfloat16" else 0,
        "weights": int(shape.linear_parameters * _BYTES[draft.storage] + rest),
        # Mapped only until the weights are read: they count for what they exceed later needs.
        "weight files while loading": max(0, shape.file_bytes - sum(working.values())),
        **working,
    }


def _seconds(draft: Plan, recipe: Recipe, shape: Shape, rates: Rates) -> dict[str, float]:
    """Forecast time by purpose: a layer's measured times, 4-bit weights unpacked, the output head's product."""
    head = shape.vocabulary * shape.hidden * rates.product
    unpack = shape.linear_parameters * rates.unpack

    def reading(tokens: float, targets: float) -> float:
        calls = math.ceil(tokens / draft.tokens_per_batch)
        return tokens * shape.layers * rates.read + targets * head + calls * unpack

    def training(tokens: float, targets: float, steps: int) -> float:
        calls = max(steps, math.ceil(tokens / draft.tokens_per_batch))
        again = reading(tokens, 0) if draft.checkpointing else 0.0
        return tokens * shape.layers * rates.train + 2 * targets * head + 2 * calls * unpack + again

    def decoding(items: int) -> float:
        step = _DECODING * shape.layers * rates.decode + min(items, draft.sequences) * head + unpack
        return math.ceil(items / draft.sequences) * recipe.eval.max_new_tokens * step

    epochs, moves = _number(recipe.train.num_train_epochs), shape.trainable > 0
    validations = math.ceil(draft.steps / draft.validate_every) if moves else 0
    return {
        "training": training(epochs * shape.packed_tokens, epochs * shape.targets, draft.steps) if moves else 0.0,
        "validation": validations * decoding(shape.validation_items),
        "held-out answers": reading(shape.scored_tokens, shape.scored_tokens / 2) + decoding(shape.decoded_items),
        "general text": 2 * reading(shape.general_tokens, shape.general_tokens) if moves else 0.0,
    }


def _arithmetic(draft: Plan, hardware: Hardware) -> str:
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in draft.memory.items() if size)
    return f"needs {draft.peak / GIB:.1f} GiB: {parts}; this machine has {hardware.available / GIB:.1f} GiB free"


def _smallest_change(draft: Plan, recipe: Recipe, hardware: Hardware) -> str:
    missing = (draft.peak - hardware.available) / GIB
    if recipe.strategy.method == "lora" and draft.memory["weights"] * 0.7 > missing * GIB:
        return f'set strategy.method = "qlora": it saves about {draft.memory["weights"] * 0.7 / GIB:.1f} GiB'
    return (
        f"a smaller model, or a shorter train.max_length (now {recipe.train.max_length}): {missing:.1f} GiB are missing"
    )
