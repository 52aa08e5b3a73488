"""Recipe × hardware × shape → how a run is done, what it takes, and why: pure arithmetic."""

from __future__ import annotations

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from metier.errors import DoesNotFit, Fault, RecipeError
from metier.hardware import DEVICES, Hardware, Rates, padding
from metier.memory import GIB, Shape, beside, peak
from metier.recipe import Recipe
from metier.strategies import Full, HeadOnly, LastN, Lora, LoraStrategy, QloraStrategy, Strategy, Tuned
from metier.tables import as_text, html, plan_parts

ANSWERS, GENERAL = "held-out answers", "general text"  # phases, by whose names seconds are forecast and measured
MEASURING = (ANSWERS, GENERAL)  # what is left of them where nothing is tuned
_BUSY = 2048  # tokens at once, with which arithmetic and not reading weights takes the time
_DECODING = 2.0  # of a bare layer's time: caches that grow, finished answers that leave, measured


@dataclass(frozen=True, repr=False)
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
    memory: Mapping[str, int]  # in the phase that needs the most
    largest: str  # that phase
    seconds: Mapping[str, float]
    reasons: Mapping[str, str]
    host_memory: Mapping[str, int] = field(default_factory=dict)  # beside a card's own

    @property
    def peak(self) -> int:
        """Forecast peak memory of the device, bytes."""
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

    def __repr__(self) -> str:
        return as_text(plan_parts(dataclasses.asdict(self)))

    def _repr_html_(self) -> str:
        return html(plan_parts(dataclasses.asdict(self)))


OVERRIDABLE: dict[str, type] = {
    "device": str,
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
    if isinstance(recipe.strategy, Tuned) and recipe.strategy.objective == "auto":
        changes["strategy.objective"] = "sft"  # what other data asks for is known before its rows are rendered
    if isinstance(recipe.strategy, Tuned) and _paired(recipe.strategy) and not recipe.strategy.beta:
        changes["strategy.beta"] = 0.1
    if train.num_train_epochs == "auto":
        changes["train.num_train_epochs"] = float(_by_size(shape.examples, {200: 10, 1000: 6, 3000: 4, 20_000: 2}, 1))
    if train.batch_size == "auto":
        changes["train.batch_size"] = _by_size(shape.examples, {1000: 8, 50_000: 16}, 32)
    if train.learning_rate == "auto":
        changes["train.learning_rate"] = _learning_rate(shape, recipe.strategy)
    if isinstance(recipe.strategy, LoraStrategy | QloraStrategy):
        r = recipe.strategy.peft.r
        if r == "auto":
            r = changes["strategy.peft.r"] = _by_size(shape.examples, {300: 8, 50_000: 16}, 32)
        if recipe.strategy.peft.lora_alpha == "auto":
            changes["strategy.peft.lora_alpha"] = 2.0 * r
    return recipe.override(**changes)


def _paired(strategy: Strategy) -> bool:
    return isinstance(strategy, Tuned) and strategy.objective in ("dpo", "kto")


def _by_size(rows: int, table: Mapping[int, int], beyond: int) -> int:
    return next((value for limit, value in table.items() if rows <= limit), beyond)


# Times LoRA's rate: measured for the first three, the other two as PEFT's examples have them (1e-2 at width 1024).
_FASTER = {"ia3": 5, "ln_tuning": 5, "vera": 10, "prompt_tuning": 20, "prefix_tuning": 20}


def _learning_rate(shape: Shape, strategy: Strategy) -> float:
    """LoRA's rate: 2e-4 at width 4096, higher for narrower models; halved for very long runs.

    The base's own weights take a tenth, a head alone three times as much, methods that move a few vectors
    more (docs/log.md). Preferences take a twentieth, as TRL's defaults have it (1e-6 for DPO and KTO, 2e-5 for SFT).
    """
    scaled = 2e-4 * (4096 / shape.hidden) ** 0.75
    scaled *= 0.5 if shape.examples > 50_000 else 1.0
    scaled *= 0.1 if isinstance(strategy, Full | LastN) else 1.0
    scaled *= 0.05 if _paired(strategy) else 1.0
    scaled *= 3.0 if isinstance(strategy, HeadOnly) else 1.0
    scaled *= _FASTER.get(getattr(strategy, "method", ""), 1.0)
    return float(f"{scaled:.1e}")


def plan(recipe: Recipe, shape: Shape, hardware: Hardware, rates: Rates | None, overrides: Mapping[str, Any]) -> Plan:
    """Choose the means for a resolved recipe. Raises `DoesNotFit` with the arithmetic."""
    _check_overrides(overrides, shape, hardware)
    epochs, batch = _number(recipe.train.num_train_epochs), _number(recipe.train.batch_size)
    steps = max(1, math.ceil(epochs * shape.examples / batch))
    chosen, reasons = _choose(recipe, shape, hardware, overrides)
    chosen["checkpoint_every"] = max(1, min(50, steps // 6))
    for key, value in overrides.items():
        chosen[key], reasons[key] = value, "as --plan says"
    chosen |= _schedule(recipe, steps)
    draft = Plan(**chosen, memory={}, largest="", seconds={}, reasons=reasons)
    draft = _fit(draft, recipe, shape, hardware, overrides)
    return dataclasses.replace(draft, seconds=_seconds(draft, recipe, shape, rates) if rates else {})


def _number(value: float | str) -> float:
    assert not isinstance(value, str), "resolve the recipe first"
    return value


def _check_overrides(overrides: Mapping[str, Any], shape: Shape, hardware: Hardware) -> None:
    faults = []
    if overrides.get("checkpointing") is True and shape.why_kept:
        faults.append(Fault("--plan checkpointing", f"cannot be: {shape.why_kept}", "leave it out"))
    for key, value in overrides.items():
        wanted = OVERRIDABLE.get(key)
        if wanted is None:
            faults.append(
                Fault(f"--plan {key}", "is not a choice of the plan", f"choose from {', '.join(OVERRIDABLE)}")
            )
        elif type(value) is not wanted or (isinstance(value, int) and not isinstance(value, bool) and value < 1):
            faults.append(Fault(f"--plan {key}", f"is {value!r}", f"give {_GIVEN[wanted]}"))
    choices = {"compute": ("float32", "bfloat16", "float16"), "kernels": ("fused", "reference"), "device": DEVICES}
    for key, allowed in choices.items():
        if isinstance(value := overrides.get(key), str) and value not in allowed:
            faults.append(Fault(f"--plan {key}", f"is {value!r}", f"choose from {', '.join(allowed)}"))
    if (device := overrides.get("device")) in DEVICES and device not in hardware.devices:
        problem = f"is {device!r}, but torch finds only {' and '.join(hardware.devices)} on this machine"
        fix = "leave it out, or install a torch made for your card (pytorch.org/get-started) and its driver"
        faults.append(Fault("--plan device", problem, fix))
    if faults:
        raise RecipeError("--plan", faults)


_GIVEN = {int: "a whole number from 1 on", str: "a word", bool: "true or false"}


def _choose(
    recipe: Recipe, shape: Shape, hardware: Hardware, overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    device = overrides.get("device", hardware.devices[0])
    compute, why = hardware.number_format(device)
    compute = overrides.get("compute", compute)
    storage, why_stored = _storage(recipe.strategy, device, compute)
    pad_to, why_padded = padding(device, compute)
    chosen: dict[str, Any] = {
        "device": device,
        "storage": storage,
        "compute": compute,
        "threads": hardware.cores,
        "tokens_per_batch": max(_BUSY, shape.longest_row, shape.longest_unit),
        "pad_to": pad_to,
        "checkpointing": False,
        "kernels": "fused",
        "sequences": 64,
    }
    reasons = {
        "device": str(hardware.accelerator or "torch finds no accelerator"),
        "storage": why_stored,
        "compute": why,
        "threads": "one a physical core",
        "tokens_per_batch": _why_tokens(chosen["tokens_per_batch"], shape),
        "pad_to": why_padded,
        "checkpointing": f"activations stay: {shape.why_kept}" if shape.why_kept else "activations fit without",
        "kernels": "torch's fused attention, block by block" if shape.forks else f"rows alone: {shape.why_rows}",
        "sequences": "decoded together",
    }
    if _drops(recipe.strategy) and shape.forks:
        reasons["kernels"] += "; dropout draws one mask for a shared prefix"
    return chosen, reasons


def _why_tokens(tokens: int, shape: Shape) -> str:
    if tokens == _BUSY:
        return "enough to keep it busy"
    return "the longest row" if tokens == shape.longest_row else "the longest two replies that are compared"


def _storage(strategy: Strategy, device: str, compute: str) -> tuple[str, str]:
    """How the base's linear layers are kept, and why."""
    if not isinstance(strategy, QloraStrategy):
        return compute, "as it computes"
    slow = "; on a Mac bitsandbytes unpacks it in plain torch: lora is faster where it fits" if device == "mps" else ""
    if strategy.quantization_bit == 8:
        return "int8", f"LLM.int8, as quantization_bit = 8 asks{slow}"
    return "nf4", f"NF4 with double quantisation, as qlora asks{slow}"


def _drops(strategy: Strategy) -> bool:
    """Whether an adapter drops something in training, under whatever name."""
    peft = getattr(strategy, "peft", {})
    return any("dropout" in key and value for key, value in (dict(peft) if peft else {}).items())


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
    """Take the first means that fit."""
    for attempt in _attempts(draft, recipe, shape, overrides):
        if _fits(attempt, hardware):
            return _explained(attempt, draft)
    raise DoesNotFit(_arithmetic(attempt, hardware), hint=_ways(attempt, recipe, shape, hardware, overrides))


def _attempts(draft: Plan, recipe: Recipe, shape: Shape, overrides: Mapping[str, Any]) -> Iterator[Plan]:
    """From the quickest means to the leanest: fewer answers at once, fewer tokens a batch, then recomputing."""
    longest = max(shape.longest_row, shape.longest_unit)
    leaner: dict[str, list[Any]] = {
        "checkpointing": [False] if shape.why_kept or not shape.trainable else [False, True],
        "tokens_per_batch": sorted({draft.tokens_per_batch, max(512, longest), longest}, reverse=True),
        "sequences": [each for each in (64, 16, 4, 1) if each <= draft.sequences],
    }
    for key in leaner.keys() & overrides.keys():
        leaner[key] = [overrides[key]]
    for choices in product(*leaner.values()):
        attempt = dataclasses.replace(draft, **dict(zip(leaner, choices, strict=True)))
        largest, held = peak(attempt, shape, recipe.eval.max_new_tokens)
        yield dataclasses.replace(attempt, memory=held, largest=largest, host_memory=beside(attempt))


def _fits(draft: Plan, hardware: Hardware) -> bool:
    return draft.peak <= hardware.room(draft.device) and sum(draft.host_memory.values()) <= hardware.available


def _explained(fitting: Plan, draft: Plan) -> Plan:
    reasons = dict(fitting.reasons)
    if fitting.tokens_per_batch < draft.tokens_per_batch:
        reasons["tokens_per_batch"] = f"{draft.tokens_per_batch} would not fit into memory"
    if fitting.sequences < draft.sequences:
        reasons["sequences"] = f"decoded together; the caches of {draft.sequences} would not fit"
    if fitting.checkpointing and not draft.checkpointing:
        reasons["checkpointing"] = "activations would not fit otherwise; a third more arithmetic"
    return dataclasses.replace(fitting, reasons=reasons)


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

    length = min(recipe.eval.max_new_tokens, shape.answer_tokens or recipe.eval.max_new_tokens)

    def answering(scored: int, items: int) -> float:
        step = _DECODING * shape.layers * rates.decode + min(items, draft.sequences) * head + unpack
        return reading(scored, scored / 2) + math.ceil(items / draft.sequences) * length * step

    epochs, moves = _number(recipe.train.num_train_epochs), shape.trainable > 0
    validations = math.ceil(draft.steps / draft.validate_every) if moves else 0
    reference = {"reference": reading(shape.packed_tokens, shape.targets)} if moves and _paired(recipe.strategy) else {}
    asked = {"replay answers": answering(0, shape.replay_items)} if shape.replay_items else {}
    compared = epochs * shape.compared_tokens  # read once more, by the base
    learning = training(epochs * shape.packed_tokens, epochs * shape.targets, draft.steps) + reading(compared, compared)
    return {
        **asked,
        **reference,
        "training": learning if moves else 0.0,
        "validation": validations * answering(shape.validation_tokens, shape.validation_items),
        ANSWERS: answering(shape.scored_tokens, shape.decoded_items),
        GENERAL: 2 * reading(shape.general_tokens, shape.general_tokens) if moves or shape.foreign else 0.0,
    }


def _arithmetic(draft: Plan, hardware: Hardware) -> str:
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in draft.memory.items() if size >= 0.05 * GIB)
    where = hardware.accelerator.name if hardware.accelerator and draft.host_memory else "this machine"
    free = f"{where} has {hardware.room(draft.device) / GIB:.1f} GiB free"
    if host := sum(draft.host_memory.values()):
        free += f"; beside it {host / GIB:.1f} of the machine's own {hardware.available / GIB:.1f} GiB"
    return f"needs {draft.peak / GIB:.1f} GiB ({draft.largest}): {parts}; {free}"


def _ways(leanest: Plan, recipe: Recipe, shape: Shape, hardware: Hardware, overrides: Mapping[str, Any]) -> str:
    """Every change that saves something, with what it saves; those that make it fit first."""
    enough, little = [], []
    for text, draft, smaller, forced in _changes(leanest, recipe, shape, overrides):
        *_, least = _attempts(draft, recipe, smaller, forced)
        saved = leanest.peak - least.peak
        if _fits(least, hardware):
            enough.append(f"{text} (saves {saved / GIB:.1f} GiB)")
        elif saved >= 0.05 * GIB:
            little.append(f"{text} (saves {saved / GIB:.1f} GiB)")
    if largest := _largest_base(leanest, recipe, shape, hardware, overrides):
        enough.append(f"a base of at most {largest / 1e9:.2g} B parameters")
    ways = f"it fits with {', or '.join(enough)}" if enough else "no single change is enough"
    return f"{ways}; less far {'goes' if len(little) == 1 else 'go'} {', '.join(little)}" if little else ways


Change = tuple[str, Plan, Shape, Mapping[str, Any]]


def _changes(draft: Plan, recipe: Recipe, shape: Shape, overrides: Mapping[str, Any]) -> Iterator[Change]:
    """What could be changed: its text, then plan, shape and overrides with it."""
    replace, strategy = dataclasses.replace, recipe.strategy
    for key in ("checkpointing", "tokens_per_batch", "sequences"):
        if key in overrides:
            yield f"--plan without {key}", draft, shape, {name: overrides[name] for name in overrides if name != key}
    if isinstance(strategy, Full | LastN):
        small = replace(shape, trainable=min(shape.trainable, _lora_size(shape)), whole=False)
        yield 'strategy.method = "lora"', draft, small, overrides
        yield 'strategy.method = "qlora"', replace(draft, storage="nf4"), small, overrides
    if draft.storage == "int8":
        yield "strategy.quantization_bit = 4", replace(draft, storage="nf4"), shape, overrides
    if isinstance(strategy, LoraStrategy):
        yield 'strategy.method = "qlora"', replace(draft, storage="nf4"), shape, overrides
    if isinstance(peft := getattr(strategy, "peft", None), Lora) and (r := int(peft.r)) > 1:
        yield (
            f"strategy.peft.r = {r // 2}",
            draft,
            replace(shape, trainable=shape.trainable // 2, frozen=shape.frozen // 2),
            overrides,
        )
    if (half := max(shape.longest_row, shape.longest_unit) // 2) >= 64:
        step = min(shape.largest_step, max(half, 512))
        row, unit = min(shape.longest_row, half), min(shape.longest_unit, half)
        less = replace(shape, longest_row=row, longest_unit=unit, largest_step=step)
        yield f"train.max_length = {half}", draft, less, overrides


def _lora_size(shape: Shape) -> int:
    """Parameters of LoRA at r = 16 in a layer of attention with four square products and a gated MLP."""
    return 16 * shape.layers * (8 * shape.hidden + 3 * (shape.hidden + shape.intermediate))


def _largest_base(draft: Plan, recipe: Recipe, shape: Shape, hardware: Hardware, overrides: Mapping[str, Any]) -> float:
    """Parameters of the largest base of this base's widths that would fit, to a hundredth; 0 where none does."""
    sized = ("parameters", "linear_parameters", "file_bytes", "layers", "trainable", "frozen")

    def exceeds(hundredths: int) -> bool:
        smaller: dict[str, Any] = {name: getattr(shape, name) * hundredths // 100 for name in sized}
        *_, leanest = _attempts(draft, recipe, dataclasses.replace(shape, **smaller), overrides)
        return not _fits(leanest, hardware)

    return shape.parameters * bisect_left(range(1, 100), True, key=exceeds) / 100
