from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from metier.errors import DoesNotFit, RecipeError
from metier.hardware import Accelerator, Hardware, Rates
from metier.memory import GIB, Shape
from metier.planning import Plan, plan, resolve
from metier.recipe import Recipe
from metier.strategies import QloraStrategy

LAPTOP = Hardware("Linux x86_64", 4, 16 * GIB, 12 * GIB, ("avx2",))
SERVER = Hardware("Linux x86_64", 8, 64 * GIB, 60 * GIB, ("avx2", "avx512f", "avx512_bf16"))
T4 = Accelerator("cuda", "Tesla T4", 15 * GIB, 14 * GIB, "7.5", "550.54.15")
COLAB = dataclasses.replace(LAPTOP, accelerator=T4)
A100 = dataclasses.replace(SERVER, accelerator=Accelerator("cuda", "A100", 40 * GIB, 39 * GIB, "8.0", "580.1"))
MAC = Hardware("Darwin arm64", 8, 16 * GIB, 11 * GIB, (), Accelerator("mps", "Apple", 12 * GIB, 12 * GIB, "", "15.1"))
RATES = Rates(train=1e-3, read=4e-4, decode=0.02, unpack=5e-10, product=1e-11)
PHI = Shape(
    parameters=3_821_000_000,
    linear_parameters=3_623_000_000,
    file_bytes=7_642_000_000,
    layers=32,
    hidden=3072,
    intermediate=8192,
    cache_width=2 * 3072,
    vocabulary=32_064,
    context=131_072,
    forks=True,
    why_rows="",
    examples=1000,
    packed_tokens=150_000,
    row_tokens=180_000,
    targets=100_000,
    longest_row=900,
    longest_unit=0,
    largest_step=2400,
    general_tokens=7000,
    decoded_items=200,
    scored_tokens=40_000,
    validation_items=40,
    trainable=25_165_824,
)
NANO = dataclasses.replace(
    PHI,
    parameters=8_520_000,
    linear_parameters=6_400_000,
    file_bytes=17_000_000,
    layers=8,
    hidden=256,
    intermediate=704,
    cache_width=512,
    vocabulary=8192,
    trainable=532_480,
)


def recipe(method: str = "qlora", **changes: Any) -> Recipe:
    strategy = {"method": method} | ({"adapter": "theirs"} if method == "adapter" else {})
    raw = {"model": "nano", "domain": [{"name": "a", "data": "a.csv"}], "strategy": strategy}
    return Recipe.of(raw, Path("recipe.toml")).override(**changes)


def planned(method: str, shape: Shape, machine: Hardware, **overrides: Any) -> Plan:
    return plan(resolve(recipe(method), shape), shape, machine, RATES, overrides)


def test_resolving_replaces_every_auto_and_nothing_else() -> None:
    resolved = resolve(recipe(**{"train.batch_size": 12}), PHI)
    assert "auto" not in str(resolved.values())
    assert resolved.train.batch_size == 12
    assert isinstance(resolved.strategy, QloraStrategy)
    assert resolved.strategy.peft.lora_alpha == 2 * float(resolved.strategy.peft.r)
    assert resolve(resolved, PHI) == resolved


def test_resolving_follows_size_and_rows() -> None:
    few, many = (resolve(recipe(), dataclasses.replace(PHI, examples=n)).train for n in (100, 100_000))
    assert float(few.num_train_epochs) > float(many.num_train_epochs)
    assert float(few.batch_size) < float(many.batch_size)
    assert float(resolve(recipe(), NANO).train.learning_rate) > float(few.learning_rate)


def test_hardware_changes_means_never_steps() -> None:
    laptop, server = (planned("qlora", NANO, machine) for machine in (LAPTOP, SERVER))
    assert (laptop.compute, server.compute) == ("float32", "bfloat16")
    assert (laptop.steps, laptop.warmup, laptop.validate_every) == (server.steps, server.warmup, server.validate_every)


def test_qlora_stores_nf4_and_lora_what_it_computes_in() -> None:
    assert planned("qlora", NANO, SERVER).number_format == "nf4/bfloat16"
    assert planned("lora", NANO, SERVER).number_format == "bfloat16/bfloat16"
    assert planned("lora", NANO, LAPTOP).number_format == "float32/float32"


def test_every_choice_has_its_reason_and_the_peak_is_the_sum() -> None:
    made = planned("qlora", PHI, SERVER)
    assert {"storage", "compute", "threads", "tokens_per_batch", "checkpointing", "kernels"} <= set(made.reasons)
    assert all(made.reasons.values())
    assert made.peak == sum(made.memory.values()) <= SERVER.available
    assert all(seconds >= 0 for seconds in made.seconds.values())
    assert sum(made.seconds.values()) > 0


@pytest.mark.parametrize(
    ("row", "unit", "tokens", "why"),
    [
        (900, 0, 2048, "enough to keep it busy"),
        (900, 1700, 2048, "enough to keep it busy"),
        (3000, 0, 3000, "the longest row"),
        (900, 2500, 2500, "the longest two replies that are compared"),
        (3000, 5000, 5000, "the longest two replies that are compared"),
    ],
)
def test_the_tokens_of_a_batch_have_their_true_reason(row: int, unit: int, tokens: int, why: str) -> None:
    made = planned("qlora", dataclasses.replace(NANO, longest_row=row, longest_unit=unit), SERVER)
    assert (made.tokens_per_batch, made.reasons["tokens_per_batch"]) == (tokens, why)


def tight(shape: Shape, method: str = "qlora", **overrides: Any) -> tuple[Plan, Plan]:
    """A plan with room, and the plan of a machine that has an eighth of a GiB less."""
    roomy = planned(method, shape, SERVER, **overrides)
    machine = dataclasses.replace(SERVER, available=roomy.peak - GIB // 8)
    return roomy, planned(method, shape, machine, **overrides)


def test_less_memory_brings_fewer_answers_at_once_where_their_cache_is_the_peak() -> None:
    roomy, less = tight(dataclasses.replace(PHI, longest_row=4000))
    assert roomy.largest == "answers"
    assert less.sequences < roomy.sequences
    assert "would not fit" in less.reasons["sequences"]
    assert not less.checkpointing


def test_less_memory_brings_smaller_batches_then_recomputing_where_training_is_the_peak() -> None:
    shape = dataclasses.replace(PHI, decoded_items=0, layers=64)
    roomy, less = tight(shape)
    assert roomy.largest == "training"
    assert less.tokens_per_batch < roomy.tokens_per_batch
    least = planned("qlora", shape, SERVER, tokens_per_batch=900)
    assert tight(dataclasses.replace(shape, longest_row=roomy.tokens_per_batch))[1].checkpointing
    assert least.peak < roomy.peak


def test_general_text_and_checkpoints_can_be_the_peak() -> None:
    """A great vocabulary before which little moves; all weights of a base that reads short rows."""
    few: dict[str, Any] = {"decoded_items": 0, "largest_step": 64, "longest_row": 64, "file_bytes": 0}
    small = dataclasses.replace(NANO, vocabulary=256_000, **few)
    made = planned("lora", small, LAPTOP, tokens_per_batch=64)
    assert made.largest == "general text"
    assert made.memory["whole distributions"] >= 2 * 512 * 256_000 * 4
    whole = dataclasses.replace(small, vocabulary=100, whole=True, trainable=500_000_000)
    assert planned("full", whole, SERVER, tokens_per_batch=64).largest == "checkpoint"


def test_what_the_base_says_of_compared_replies_is_read_once_before_training() -> None:
    answers, pairs = (
        plan(resolve(recipe("lora", **{"strategy.objective": objective}), NANO), NANO, SERVER, RATES, {})
        for objective in ("sft", "dpo")
    )
    assert "reference" not in answers.seconds
    general = {"general_tokens": NANO.packed_tokens, "packed_tokens": NANO.packed_tokens, "targets": NANO.packed_tokens}
    same = dataclasses.replace(NANO, **general)
    made = plan(resolve(recipe("lora", **{"strategy.objective": "dpo"}), same), same, SERVER, RATES, {})
    assert made.seconds["reference"] == pytest.approx(made.seconds["general text"] / 2)
    assert 0 < pairs.seconds["reference"] < pairs.seconds["training"]


def test_an_adapter_that_does_not_move_is_held_too() -> None:
    shape = dataclasses.replace(PHI, trainable=0, foreign=True)
    bare, held = (planned("adapter", dataclasses.replace(shape, frozen=n), SERVER) for n in (0, 50_000_000))
    assert held.peak - bare.peak == held.memory["frozen adapter"] == 200_000_000


def test_what_cannot_be_recomputed_never_is() -> None:
    shape = dataclasses.replace(PHI, why_kept="prefix_tuning: differs")
    assert "prefix_tuning" in planned("lora", shape, SERVER).reasons["checkpointing"]
    with pytest.raises(DoesNotFit):
        planned("lora", shape, LAPTOP)
    with pytest.raises(RecipeError, match=r"--plan checkpointing: cannot be: prefix_tuning"):
        planned("lora", shape, SERVER, checkpointing=True)


def test_what_does_not_fit_shows_the_arithmetic_and_every_way_with_what_it_saves() -> None:
    with pytest.raises(DoesNotFit, match=r"needs .* GiB \(\w+\): .*weights .*this machine has 12\.0 GiB") as caught:
        planned("lora", PHI, LAPTOP)
    ways = caught.value.hint
    assert ways.startswith('it fits with strategy.method = "qlora" (saves ')
    assert planned("qlora", PHI, LAPTOP).peak <= LAPTOP.available  # what is promised holds
    billions = float(ways.partition("a base of at most ")[2].split()[0])
    assert 0.5 < billions < 3.8
    with pytest.raises(DoesNotFit) as caught:
        planned("full", dataclasses.replace(PHI, trainable=PHI.parameters, whole=True), SERVER)
    assert 'strategy.method = "lora" (saves' in caught.value.hint


def test_a_forced_choice_that_does_not_fit_is_named_first() -> None:
    with pytest.raises(DoesNotFit, match="decoding cache") as caught:
        planned("qlora", PHI, SERVER, sequences=4096)
    assert caught.value.hint.startswith("it fits with --plan without sequences (saves ")


def test_the_rate_follows_what_moves() -> None:
    """A tenth of LoRA's for the base's own weights, five times as much for IA3's few vectors."""
    methods = ("lora", "full", "last-n", "boft", "ia3")
    rates = [float(resolve(recipe(method), PHI).train.learning_rate) for method in methods]
    assert rates[1] == rates[2] == pytest.approx(rates[0] / 10, rel=0.02)
    assert rates[3] == rates[0]
    assert rates[4] == pytest.approx(5 * rates[0], rel=0.05)


def test_decoding_is_forecast_by_the_trained_answers_length() -> None:
    times = {
        tokens: sum(
            seconds
            for name, seconds in planned(
                "lora", dataclasses.replace(NANO, answer_tokens=tokens), SERVER
            ).seconds.items()
            if name in ("validation", "held-out answers")
        )
        for tokens in (0, 8, 10_000)
    }
    assert times[8] < times[0] == times[10_000]  # at most as long as answers may be


def test_overrides_are_obeyed_and_checked() -> None:
    made = planned("qlora", NANO, SERVER, compute="float32", tokens_per_batch=777, threads=1)
    assert (made.compute, made.tokens_per_batch, made.threads) == ("float32", 777, 1)
    assert made.reasons["compute"] == "as --plan says"
    for wrong in ({"speed": 1}, {"threads": 0}, {"threads": "two"}, {"compute": "int3"}, {"kernels": "magic"}):
        with pytest.raises(RecipeError, match="--plan"):
            planned("qlora", NANO, SERVER, **wrong)


def test_a_model_that_cannot_fork_says_so() -> None:
    made = planned("lora", dataclasses.replace(NANO, forks=False, why_rows="bloom: differs"), SERVER)
    assert "rows alone: bloom" in made.reasons["kernels"]


def test_a_card_with_bfloat16_computes_in_it() -> None:
    made = planned("qlora", PHI, A100)
    assert (made.device, made.number_format, made.pad_to) == ("cuda", "nf4/bfloat16", 8)
    assert "A100" in made.reasons["device"]
    assert "8.0" in made.reasons["compute"]


def test_an_older_card_computes_in_float16_with_loss_scaling() -> None:
    made = planned("qlora", PHI, COLAB, sequences=4)
    assert (made.device, made.number_format) == ("cuda", "nf4/float16")
    assert "loss scaling" in made.reasons["compute"]
    assert planned("lora", NANO, COLAB).number_format == "float16/float16"


def test_a_mac_computes_in_bfloat16_from_macos_14_on() -> None:
    made = planned("qlora", NANO, MAC)
    assert (made.device, made.number_format, made.pad_to) == ("mps", "nf4/bfloat16", 1)
    assert "plain torch" in made.reasons["storage"]
    assert MAC.accelerator
    older = dataclasses.replace(MAC, accelerator=dataclasses.replace(MAC.accelerator, driver="13.6.1"))
    assert planned("lora", NANO, older).compute == "float32"


def test_the_device_can_be_chosen_among_those_that_are_there() -> None:
    made = planned("qlora", NANO, COLAB, device="cpu")
    assert (made.device, made.compute, made.host_memory) == ("cpu", "float32", {})
    assert made.reasons["device"] == "as --plan says"
    for machine, device in ((LAPTOP, "cuda"), (COLAB, "mps"), (MAC, "cuda")):
        with pytest.raises(RecipeError, match=f"is '{device}', but torch finds only .*cpu") as caught:
            planned("qlora", NANO, machine, device=device)
        assert "install a torch" in caught.value.faults[0].fix
    with pytest.raises(RecipeError, match="choose from cpu, cuda, mps"):
        planned("qlora", NANO, COLAB, device="tpu")


def test_steps_are_the_same_on_every_device() -> None:
    plans = [planned("qlora", NANO, machine) for machine in (LAPTOP, SERVER, COLAB, A100, MAC)]
    assert len({(made.steps, made.warmup, made.validate_every) for made in plans}) == 1


def test_a_card_holds_the_model_and_the_host_the_libraries() -> None:
    on_card, on_cpu = planned("qlora", PHI, A100), planned("qlora", PHI, A100, device="cpu")
    assert on_card.memory["weights"] == on_cpu.memory["weights"]
    assert on_card.host_memory["libraries"] == on_cpu.memory["libraries"]
    assert not any(on_card.memory[name] for name in ("libraries", "compiled kernels"))


def test_what_does_not_fit_on_a_card_names_it() -> None:
    small = dataclasses.replace(COLAB, accelerator=dataclasses.replace(T4, available=GIB))
    with pytest.raises(DoesNotFit, match=r"weights .*; Tesla T4 has 1.0 GiB free; beside it .* of the machine's own"):
        planned("qlora", PHI, small)
    assert planned("qlora", PHI, small, device="cpu", sequences=4).device == "cpu"
    with pytest.raises(DoesNotFit):
        planned("qlora", PHI, dataclasses.replace(COLAB, available=GIB // 4), sequences=4)


def test_a_macs_memory_is_counted_once() -> None:
    """What its graphics unit takes is the machine's own memory."""
    peak = planned("qlora", PHI, MAC, sequences=4).peak
    with pytest.raises(DoesNotFit):
        planned("qlora", PHI, dataclasses.replace(MAC, available=peak // 4), sequences=4)


def test_eight_bits_are_asked_for_and_named() -> None:
    asked = recipe("qlora", **{"strategy.quantization_bit": 8})
    made = plan(resolve(asked, PHI), PHI, A100, RATES, {})
    assert made.number_format == "int8/bfloat16"
    four, sixteen = planned("qlora", PHI, A100), planned("lora", PHI, A100)
    assert four.memory["weights"] < made.memory["weights"] < sixteen.memory["weights"]
    with pytest.raises(RecipeError, match="quantization_bit"):
        recipe("qlora", **{"strategy.quantization_bit": 3})
    with pytest.raises(RecipeError, match="quantization_bit"):
        recipe("lora", **{"strategy.quantization_bit": 8})
